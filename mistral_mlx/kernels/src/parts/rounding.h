// Rounds activations to codes, see contract.h, in vectors of whatever width the including file is compiled for. Every
// set does the same operations in the same order, so that all of them round to the same codes.
#pragma once
#include <utility>

#include "vectors.h"

namespace kernels {
namespace {

constexpr int64_t RUN = 32;  // inputs that are rotated together: a group has 1, 2 or 4 runs
constexpr int RUN_VECTORS = RUN / WIDTH;
typedef int16_t Shorts __attribute__((vector_size(WIDTH * 2)));

#if defined(__clang__)
template <int BIT, typename V, size_t... I>
V exchange(V v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (I ^ BIT)...);
}
#else
template <int BIT, typename V, size_t... I>
V exchange(V v, std::index_sequence<I...>) {
  return __builtin_shuffle(v, Ints{(I ^ BIT)...});
}
#endif
// Lane i of lane i ^ BIT.
template <int BIT, typename V>
V exchange(V v) {
  return exchange<BIT>(v, std::make_index_sequence<WIDTH>());
}

// All bits of the lanes that have BIT in their number.
template <int BIT, size_t... I>
Ints lanes_with(std::index_sequence<I...>) {
  return Ints{(I & BIT ? -1 : 0)...};
}
template <int BIT>
Ints lanes_with() {
  return lanes_with<BIT>(std::make_index_sequence<WIDTH>());
}

template <int BIT>
Ints negated(Ints v) {
  const Ints mask = lanes_with<BIT>();
  return (v ^ mask) - mask;
}
template <int BIT>
Vector negated(Vector v) {
  const Ints sign = lanes_with<BIT>() & INT32_MIN;
  return (Vector)((Ints)v ^ sign);
}

// Inputs whose numbers differ in BIT alone become their sum and their difference.
template <int BIT, typename V>
void stage(V (&run)[RUN_VECTORS]) {
  if constexpr (BIT < WIDTH) {
    for (V& v : run) v = exchange<BIT>(v) + negated<BIT>(v);
  } else {
    for (int i = 0; i < RUN_VECTORS; ++i)
      if (constexpr int NEXT = BIT / WIDTH; (i & NEXT) == 0) {
        const V first = run[i], second = run[i + NEXT];
        run[i] = first + second;
        run[i + NEXT] = first - second;
      }
  }
}

// The Walsh-Hadamard transform of a run, see rotated_points in contract.h.
template <int POINTS, typename V>
void rotate(V (&run)[RUN_VECTORS]) {
  if constexpr (POINTS >= 16) stage<1>(run);
  if constexpr (POINTS >= 8) stage<4>(run);
  if constexpr (POINTS >= 4) stage<8>(run), stage<16>(run);
}

// Lanes of vector i of a run that a rotation gathers its sums in.
template <int POINTS>
Ints first_lanes(int i) {
  constexpr int BITS = POINTS == 16 ? 29 : POINTS == 8 ? 28 : POINTS == 4 ? 24 : 0;
  Ints lanes;
  for (int j = 0; j < WIDTH; ++j) lanes[j] = ((i * WIDTH + j) & BITS) == 0 ? -1 : 0;
  return lanes;
}

inline int32_t total_of(Ints v) {
  int32_t total = 0;
  for (int i = 0; i < WIDTH; ++i) total += v[i];
  return total;
}
inline int32_t largest_of(Ints v) {
  int32_t most = 0;
  for (int i = 0; i < WIDTH; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

struct Group {
  float scale;
  int32_t sum;  // of the codes as they meet the weights
};

// Rounds a group to codes of at most `limit`, to nearest even. BACK: the codes are rotated back, as they meet weights
// that are not rotated. The largest magnitude is found on the bits: integers order as the floats do, and NaN and
// infinity are above all of them.
template <int POINTS, bool BACK>
Group round_group(const float* x, int64_t group, int limit, int16_t* codes) {
  Vector turned[128 / WIDTH];
  Ints most = {}, total = {};
  for (int64_t k = 0; k < group; k += RUN) {
    Vector(&run)[RUN_VECTORS] = reinterpret_cast<Vector(&)[RUN_VECTORS]>(turned[k / WIDTH]);
    for (int i = 0; i < RUN_VECTORS; ++i) run[i] = vector_at(x + k + i * WIDTH) * (1.0f / POINTS);
    rotate<POINTS>(run);
    for (const Vector& v : run) {
      const Ints magnitude = (Ints)v & INT32_MAX;
      most = magnitude > most ? magnitude : most;
    }
  }
  const int32_t largest_bits = largest_of(most);
  const float largest = bits_to_float(static_cast<uint32_t>(largest_bits));
  const bool finite = largest_bits < 0x7f800000, tiny = largest < 1e-30f;  // 1 / scale of less would overflow
  const float inverse = finite && !tiny ? static_cast<float>(limit) / largest : 0.0f;
  const Ints kept = Ints{} - (finite ? 1 : 0);
  for (int64_t k = 0; k < group; k += RUN) {
    Ints run[RUN_VECTORS];
    for (int i = 0; i < RUN_VECTORS; ++i) {
      // 1.5 * 2^23 pushes the fraction out of the mantissa. 0 * infinity is NaN here, and masked.
      run[i] = ((Ints)(turned[k / WIDTH + i] * inverse + 12582912.0f) - 0x4b400000) & kept;
      total += POINTS == 1 ? run[i] : run[i] & first_lanes<POINTS>(i);
    }
    if constexpr (BACK) rotate<POINTS>(run);
    for (int i = 0; i < RUN_VECTORS; ++i) {
      const Shorts narrow = __builtin_convertvector(run[i], Shorts);
      std::memcpy(codes + k + i * WIDTH, &narrow, sizeof narrow);
    }
  }
  const float scale = !finite ? bits_to_float(0x7fc00000) : tiny ? 0.0f : largest / static_cast<float>(limit);
  return {scale, total_of(total) * POINTS};
}

// Rounds row `row` block by block, and calls arrange(k, codes) for the codes [BLOCK] of the inputs from k on, zeros
// behind the row.
template <int POINTS, bool BACK, typename Arrange>
void round_row(const float* x, const Panels& w, const Rounded& out, int64_t row, Arrange&& arrange) {
  const int64_t at = row * out.group_stride, groups = w.groups(), group = w.group;
  float *scales = out.scales + at, *sums = out.sums + at;
  int32_t* totals = out.totals + at;
  for (int64_t k = 0; k < w.n_in; k += BLOCK) {
    int16_t codes[BLOCK] = {};
    for (int64_t i = 0; i < BLOCK && k + i < w.n_in; i += group) {
      const Group rounded =
          round_group<POINTS, BACK>(x + k + i, group, POINTS == 1 ? FINE_LIMIT : COARSE_LIMIT, codes + i);
      const int64_t g = (k + i) / group;
      scales[g] = rounded.scale;
      sums[g] = rounded.scale * static_cast<float>(rounded.sum);
      totals[g] = w.zero() * rounded.sum;
    }
    arrange(k, codes);
  }
  for (int64_t g = groups; g < round_up(groups, GROUP_BLOCK); ++g) scales[g] = sums[g] = 0.0f, totals[g] = 0;
}

template <bool BACK, typename Arrange>
void round_row(const float* x, const Panels& w, const Rounded& out, int64_t row, Arrange&& arrange) {
  if (out.points == 16) return round_row<16, BACK>(x, w, out, row, arrange);
  if (out.points == 8) return round_row<8, BACK>(x, w, out, row, arrange);
  if (out.points == 4) return round_row<4, BACK>(x, w, out, row, arrange);
  round_row<1, BACK>(x, w, out, row, arrange);
}

}  // namespace
}  // namespace kernels
