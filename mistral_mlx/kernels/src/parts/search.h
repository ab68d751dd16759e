// The search for better scales and biases, in vectors of whatever width the including file is compiled for, and nothing
// that the linker could share. Every lane has a group of its own and there is no fma: every set of instructions gives
// the same bits.
//
// Codes are made for a few widths of the range, narrower ones than the weights need among them: where steps are few, it
// pays to cut off the ends. For given codes the best scale and bias are a least squares fit. The best of these fits is
// rounded to its stored type, codes are made for the rounded line and fitted again, and the line that is taken is the
// one whose error, rounded as it will be read, is the least. MLX's own stays where none is better.
#pragma once
#include "vectors.h"

namespace kernels {
namespace {

constexpr int LINES = 2;              // rounded lines that are tried; a third gains 0.3 % or less
constexpr float CLEARLY = 1 - 1e-5f;  // better by more than the rounding of the sums

constexpr int WIDTHS = 5;  // three would leave 0.4 % more of the error at 4 bits, nine 0.2 % less

struct Widths {
  float first, step;  // in parts of the whole range of a group
};

// Those that win for normal, Laplace and trained weights (measured).
constexpr Widths widths_to_try(int bits) {
  return bits == 2   ? Widths{0.5f, 0.0875f}
         : bits == 3 ? Widths{0.74f, 0.065f}
         : bits == 4 ? Widths{0.87f, 0.04f}
         : bits == 5 ? Widths{0.94f, 0.0275f}
         : bits == 6 ? Widths{0.98f, 0.0175f}
                     : Widths{0.995f, 0.00625f};
}

// WIDTH groups side by side: weight k of lane j is weights[k * SEARCH_GROUPS + j].
struct Groups {
  const float *weights, *importance;
  int group;
  float most_code;
  Vector middle, width, total, mean;  // of the range; of the importance, and of the weights less the middle by it

  Vector weight(int k) const { return vector_at(weights + k * SEARCH_GROUPS); }
  Vector weighted(int k, Vector v) const {
    return importance == nullptr ? v : v * vector_at(importance + k * SEARCH_GROUPS);
  }
};

// A fit to codes: weight - middle - mean ~ scale * (code - mean_code).
struct Fit {
  Vector scale, mean_code;
  Vector explained;  // of the weights' variance: the more, the smaller the error
};

struct Lines {
  Vector scale, bias;
};

Vector choose(Ints condition, Vector yes, Vector no) {
  return (Vector)(((Ints)yes & condition) | ((Ints)no & ~condition));
}

// The comparisons are such that NaN becomes 0.
Vector nearest_code(Vector steps, float most_code) {
  constexpr float WHOLE = 0x1p23f;  // as in quantize.cpp
  return (smaller(larger(steps, Vector{}), Vector{} + most_code) + WHOLE) - WHOLE;
}

struct Sums {  // of importance times code, code^2 and code * (weight - middle)
  Vector codes = {}, squares = {}, products = {};

  void add(Vector code, Vector weighted, Vector centred) {
    codes += weighted;
    squares += weighted * code;
    products += weighted * centred;
  }
  Fit fit(const Groups& x) const {
    const Vector mean_code = codes / x.total;
    const Vector variance = squares - codes * mean_code, covariance = products - codes * x.mean;
    const Vector scale = covariance / variance;
    return {scale, mean_code, covariance * scale};
  }
};

void measure(Groups& x) {
  Vector low = x.weight(0), high = low;
  for (int k = 1; k < x.group; ++k) low = smaller(x.weight(k), low), high = larger(x.weight(k), high);
  x.width = high - low;
  x.middle = low + 0.5f * x.width;
  x.total = x.mean = Vector{};
  for (int k = 0; k < x.group; ++k) {
    x.total += x.weighted(k, Vector{} + 1.0f);
    x.mean += x.weighted(k, x.weight(k) - x.middle);
  }
  x.mean /= x.total;
}

Fit try_width(const Groups& x, float part) {
  const Vector inverse = x.most_code / (x.width * part), half = Vector{} + 0.5f * x.most_code;
  Sums sums;
  for (int k = 0; k < x.group; ++k) {
    const Vector centred = x.weight(k) - x.middle, code = nearest_code(centred * inverse + half, x.most_code);
    sums.add(code, x.weighted(k, code), centred);
  }
  return sums.fit(x);
}

// Returns the error of lines with the codes nearest to them, and the fit to those codes.
Vector try_lines(const Groups& x, const Lines& lines, Fit& fit) {
  const Vector inverse = 1.0f / lines.scale;
  Vector error = {};
  Sums sums;
  for (int k = 0; k < x.group; ++k) {
    const Vector w = x.weight(k), code = nearest_code((w - lines.bias) * inverse, x.most_code);
    const Vector lost = w - (lines.scale * code + lines.bias);
    sums.add(code, x.weighted(k, code), w - x.middle);
    error += x.weighted(k, lost * lost);
  }
  fit = sums.fit(x);
  return error;
}

Vector error_of(const Groups& x, const Lines& lines, const float* codes) {
  Vector error = {};
  for (int k = 0; k < x.group; ++k) {
    const Vector lost = x.weight(k) - (lines.scale * vector_at(codes + k * SEARCH_GROUPS) + lines.bias);
    error += x.weighted(k, lost * lost);
  }
  return error;
}

Vector rounded(Vector v, Float type) {
  float values[WIDTH];
  put(values, v);
  for (float& value : values) value = round_to(value, type);
  return vector_at(values);
}

// The comparisons are such that NaN, infinities and a range of nothing leave all as it is. Returns a bit for each lane,
// set if it has other lines now, or the same ones and better codes.
uint32_t improve_lanes(Groups& x, int bits, Float type, const float* codes, float* scales, float* biases) {
  measure(x);
  Fit best{};
  const Widths widths = widths_to_try(bits);
  for (int i = 0; i < WIDTHS; ++i) {
    const Fit fit = try_width(x, widths.first + static_cast<float>(i) * widths.step);
    const Ints better = fit.explained > best.explained;
    best = {choose(better, fit.scale, best.scale), choose(better, fit.mean_code, best.mean_code),
            choose(better, fit.explained, best.explained)};
  }
  Lines lines{vector_at(scales), vector_at(biases)};
  Vector least = error_of(x, lines, codes) * CLEARLY;
  Ints improved = {};
  for (int i = 0; i < LINES; ++i) {
    Lines next;
    next.scale = rounded(best.scale, type);
    next.bias = rounded(x.middle + (x.mean - next.scale * best.mean_code), type);
    const Vector error = try_lines(x, next, best);
    const Ints better = (error < least) & (next.scale > Vector{});
    lines = {choose(better, next.scale, lines.scale), choose(better, next.bias, lines.bias)};
    least = choose(better, error, least);
    improved |= better;
  }
  put(scales, lines.scale);
  put(biases, lines.bias);
  uint32_t lanes = 0;
  for (int j = 0; j < WIDTH; ++j) lanes |= (improved[j] & 1u) << j;
  return lanes;
}

// See Kernels.
uint32_t improve(const float* weights, const float* importance, int group, int bits, Float type, const float* codes,
                 float* scales, float* biases) {
  uint32_t improved = 0;
  for (int j = 0; j < SEARCH_GROUPS; j += WIDTH) {
    Groups x{weights + j, importance == nullptr ? nullptr : importance + j,
             group,       static_cast<float>((1 << bits) - 1),
             {},          {},
             {},          {}};
    improved |= improve_lanes(x, bits, type, codes + j, scales + j, biases + j) << j;
  }
  return improved;
}

}  // namespace
}  // namespace kernels
