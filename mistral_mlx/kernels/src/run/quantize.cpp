// Packs weights as MLX's affine mode does, to the bit: the same float32 operations in the same order, see `fit`; or
// with better scales and biases, see search.h. Plain C++ in a form that compilers turn into vectors of any width. A row
// passes in parts, each step over a whole part: a group alone would wait for its own divisions one after another.
#include "quantize.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "../parts/scalars.h"
#include "pool.h"

namespace kernels {
namespace {

constexpr int LANES = 16;
constexpr int MOST_GROUP = 128;
constexpr int PART = SEARCH_GROUPS * MOST_GROUP;  // weights; whole groups, and all copies of it stay in the L1 cache
constexpr int32_t INFINITE = 0x7f800000;          // as bits
constexpr float WHOLE = 0x1p23f;  // adding it to 0 ... 255 rounds to a whole number, ties to even, in the lowest byte

// `value` is one that `type` holds; the inverse of load_float, and NaN as MLX writes it.
void store_float(float value, void* p, Float type, int64_t i) {
  const uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000;
  if (type == Float::f32) {
    std::memcpy(static_cast<char*>(p) + 4 * i, &value, 4);
    return;
  }
  uint32_t half = float_to_bits(std::fabs(value) * 0x1p-112f) >> 13;
  half = sign | (std::isnan(value) ? 0x7d00 : half > 0x7c00 ? 0x7c00 : half);
  const uint16_t stored = static_cast<uint16_t>(type == Float::f16 ? half : bits >> 16);
  std::memcpy(static_cast<char*>(p) + 2 * i, &stored, 2);
}

void load(const Unpacked& w, int64_t start, int n, float* out) {
  if (w.type == Float::f32) {
    std::memcpy(out, static_cast<const char*>(w.weights) + 4 * start, 4 * n);
    return;
  }
  uint16_t stored[PART];
  std::memcpy(stored, static_cast<const char*>(w.weights) + 2 * start, 2 * n);
  if (w.type == Float::bf16)
    for (int k = 0; k < n; ++k) out[k] = bits_to_float(static_cast<uint32_t>(stored[k]) << 16);
  else
    for (int k = 0; k < n; ++k) out[k] = half_to_float(stored[k]);
}

void round_all(Float type, const float* w, int n, float* out) {
  if (type == Float::f16)
    for (int k = 0; k < n; ++k) out[k] = round_to_half(w[k]);
  else
    for (int k = 0; k < n; ++k) out[k] = bits_to_float(rounded_bfloat(float_to_bits(w[k])));
}

typedef float Four __attribute__((vector_size(16)));  // a smallest and a largest are not found in vectors otherwise

using Search = std::optional<std::vector<float>>;  // what `arrange` returns; nothing: as MLX does

struct Line {  // weight ~ scale * code + bias
  float scale, bias;
};

// From MLX's quantize: the range in equal steps, then moved so that the end farther from zero, and zero itself, are
// met.
Line fit(const float* w, int group, float most_code) {
  Four lows, highs;
  for (int k = 0; k < 4; ++k) lows[k] = INFINITY, highs[k] = -INFINITY;
  for (int i = 0; i < group; i += 4) {  // comparisons with NaN are false: it is passed over
    Four four;
    std::memcpy(&four, w + i, sizeof four);
    lows = four < lows ? four : lows;
    highs = four > highs ? four : highs;
  }
  float low = lows[0], high = highs[0];
  for (int k = 1; k < 4; ++k) {
    low = lows[k] < low ? lows[k] : low;
    high = highs[k] > high ? highs[k] : high;
  }
  const bool from_low = std::fabs(low) > std::fabs(high);
  const float width = (high - low) / most_code, step = width < 1e-7f ? 1e-7f : width;
  const float scale = from_low ? step : -step, edge = from_low ? low : high;
  const float steps = std::rint(edge / scale);
  return steps != 0 ? Line{edge / steps, edge} : Line{scale, 0.0f};
}

// The comparisons are such that NaN becomes 0.
void encode(const float* w, int group, const Line& line, float most_code, uint8_t* codes) {
  for (int k = 0; k < group; ++k) {
    float code = (w[k] - line.bias) / line.scale;
    code = code > 0.0f ? code : 0.0f;
    code = code < most_code ? code : most_code;
    codes[k] = static_cast<uint8_t>(float_to_bits(code + WHOLE));
  }
}

void pack(const uint8_t* codes, int n, int bits, uint8_t* out) {
  if (bits == 8) {
    std::memcpy(out, codes, n);
  } else if (bits == 4) {
    for (int k = 0; k < n / 2; ++k) out[k] = static_cast<uint8_t>(codes[2 * k] | codes[2 * k + 1] << 4);
  } else {
    for (int k = 0; k < n; k += 8, out += bits) {
      uint64_t word = 0;
      for (int j = 0; j < 8; ++j) word |= static_cast<uint64_t>(codes[k + j]) << (j * bits);
      for (int j = 0; j < bits; ++j) out[j] = static_cast<uint8_t>(word >> (8 * j));
    }
  }
}

struct Sums {
  float error[LANES] = {}, norm[LANES] = {};
};

void add(const float* w, int group, const Line& line, const uint8_t* codes, Sums& sums) {
  for (int i = 0; i < group; i += LANES)
    for (int k = 0; k < LANES; ++k) {
      const float lost = w[i + k] - (line.scale * static_cast<float>(codes[i + k]) + line.bias);
      sums.error[k] += lost * lost;
      sums.norm[k] += w[i + k] * w[i + k];
    }
}

// The bits of the largest magnitude below `limit`: they order as the floats do, NaN above infinity.
int32_t largest_bits(const float* w, int n, uint32_t limit) {
  int32_t most = 0;
  for (int k = 0; k < n; ++k) {
    const uint32_t bits = float_to_bits(w[k]) & 0x7fffffff;
    const int32_t magnitude = bits < limit ? static_cast<int32_t>(bits) : 0;
    most = magnitude > most ? magnitude : most;
  }
  return most;
}

void join(const Loss& part, Loss& whole) {
  whole.error += part.error;
  whole.norm += part.norm;
  whole.largest = part.largest > whole.largest ? part.largest : whole.largest;
  whole.finite = whole.finite && part.finite;
}

// The importance of inputs as Kernels::improve wants it, for all groups of a row; nothing if all are alike.
std::vector<float> arrange(const float* importance, const PackedOut& out) {
  if (importance == nullptr) return {};
  const int64_t tile = SEARCH_GROUPS * out.group;
  std::vector<float> arranged(round_up(out.n_in, tile));
  for (int64_t i = 0; i < out.n_in; ++i)
    arranged[i / tile * tile + i % out.group * SEARCH_GROUPS + i % tile / out.group] = importance[i];
  return arranged;
}

// Searches for better lines of n groups, and codes where there are some.
void improve(const float* w, const float* importance, const PackedOut& out, int n, uint8_t* codes, Line* lines) {
  alignas(64) float weights[SEARCH_GROUPS * MOST_GROUP], wide[SEARCH_GROUPS * MOST_GROUP];
  alignas(64) float scales[SEARCH_GROUPS], biases[SEARCH_GROUPS];
  for (int j = 0; j < SEARCH_GROUPS; ++j) {
    const int i = std::min(j, n - 1);  // the last one fills the lanes
    scales[j] = lines[i].scale, biases[j] = lines[i].bias;
    for (int k = 0; k < out.group; ++k) weights[k * SEARCH_GROUPS + j] = w[i * out.group + k];
    for (int k = 0; k < out.group; ++k) wide[k * SEARCH_GROUPS + j] = static_cast<float>(codes[i * out.group + k]);
  }
  const uint32_t improved = active().improve(weights, importance, out.group, out.bits, out.type, wide, scales, biases);
  for (int i = 0; i < n; ++i) {
    if (!(improved >> i & 1)) continue;
    lines[i] = {scales[i], biases[i]};
    encode(w + i * out.group, out.group, lines[i], static_cast<float>((1 << out.bits) - 1), codes + i * out.group);
  }
}

// Packs n weights from `start` on, counted from the first of all.
Loss quantize_part(const Unpacked& w, const PackedOut& out, const Search& search, int64_t start, int n) {
  const float most_code = static_cast<float>((1 << out.bits) - 1);
  const int groups = n / out.group;
  float exact[PART], rounded[PART];
  uint8_t codes[PART];
  Line lines[PART / 32];
  load(w, start, n, exact);
  const bool rounds = out.type != w.type && out.type != Float::f32;
  if (rounds) round_all(out.type, exact, n, rounded);
  const float* from = rounds ? rounded : exact;
  for (int i = 0; i < groups; ++i) lines[i] = fit(from + i * out.group, out.group, most_code);
  for (int i = 0; i < groups; ++i) encode(from + i * out.group, out.group, lines[i], most_code, codes + i * out.group);
  for (int i = 0; i < groups; ++i) lines[i] = {round_to(lines[i].scale, out.type), round_to(lines[i].bias, out.type)};
  if (search)
    for (int i = 0; i < groups; i += SEARCH_GROUPS) {
      const int64_t column = start % out.n_in + i * out.group;
      improve(exact + i * out.group, search->empty() ? nullptr : search->data() + column, out,
              std::min(groups - i, SEARCH_GROUPS), codes + i * out.group, lines + i);
    }
  pack(codes, n, out.bits, out.codes + start * out.bits / 8);
  Sums sums;
  for (int i = 0; i < groups; ++i) {
    store_float(lines[i].scale, out.scales, out.type, start / out.group + i);
    store_float(lines[i].bias, out.biases, out.type, start / out.group + i);
    add(exact + i * out.group, out.group, lines[i], codes + i * out.group, sums);
  }
  Loss loss{0, 0, 0, true};
  for (int k = 0; k < LANES; ++k) loss.error += sums.error[k], loss.norm += sums.norm[k];
  int32_t largest = largest_bits(exact, n, 0x80000000u);
  loss.finite = largest < INFINITE;
  if (!loss.finite) largest = largest_bits(exact, n, INFINITE);
  loss.largest = bits_to_float(static_cast<uint32_t>(largest));
  return loss;
}

}  // namespace

Loss quantize(const Unpacked& w, const PackedOut& out, bool search, const float* importance) {
  const Search searched = search ? Search(arrange(importance, out)) : std::nullopt;
  std::vector<Loss> rows(out.n_out, Loss{0, 0, 0, true});
  parallel(out.n_out, [&](int64_t row) {
    for (int64_t k = 0; k < out.n_in; k += PART)
      join(quantize_part(w, out, searched, row * out.n_in + k, static_cast<int>(std::min<int64_t>(PART, out.n_in - k))),
           rows[row]);
  });
  Loss whole{0, 0, 0, true};
  for (const Loss& row : rows) join(row, whole);
  return whole;
}

}  // namespace kernels
