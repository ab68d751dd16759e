// Attention in vectors of whatever width the including file is compiled for. Everything is `static`, see scalars.h.
//
// One call serves the query heads of one key head for a few positions. Keys and values pass in tiles of KEYS, turned
// into float32 once for all of those rows; a row keeps its largest score, its sum of weights and its weighted values,
// and rescales them when a larger score comes (Milakov and Gimelshein, 2018): no scores beyond a tile are ever stored.
#pragma once
#include <cmath>

#include "scalars.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace kernels {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

static inline Vector vector_at(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline void put(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

static inline Vector multiply_add(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

static inline float sum_of(Vector v) {
  float parts[WIDTH];
  std::memcpy(parts, &v, sizeof v);
  for (int n = WIDTH / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) parts[i] += parts[i + n];
  return parts[0];
}

// e^x for x <= 0, to 2e-7 of the result; 0 below -87. NaN stays NaN.
static inline Vector exp_of(Vector x) {
  const Vector zero = {}, low = zero - 87.0f;
  const Ints tiny = x < low;
  const Vector kept = (Vector)(((Ints)low & tiny) | ((Ints)x & ~tiny));
  const Vector shifted = kept * 1.44269504f + 12582912.0f;  // see round_group
  const Vector n = shifted - 12582912.0f;
  const Vector r = multiply_add(n, zero + 1.42860677e-6f, multiply_add(n, zero - 0.693148613f, kept));
  Vector p = zero + 1.0f / 720;
  p = multiply_add(p, r, zero + 1.0f / 120);
  p = multiply_add(p, r, zero + 1.0f / 24);
  p = multiply_add(p, r, zero + 1.0f / 6);
  p = multiply_add(p, r, zero + 0.5f);
  p = multiply_add(p, r, zero + 1.0f);
  p = multiply_add(p, r, zero + 1.0f);
  const Ints exponent = ((Ints)shifted - 0x4b400000) << 23;
  return (Vector)(((Ints)p + exponent) & ~tiny);
}

// n rows of head_dim elements as float32 rows of `width`, zeros behind; rows up to KEYS are cleared.
static inline void widen_tile(const void* from, Float type, int64_t stride, int64_t n, int64_t head_dim, int64_t width, float* to) {
  for (int64_t j = 0; j < KEYS; ++j, to += width) {
    const int64_t filled = j < n ? head_dim : 0;
    if (type == Float::f32)
      std::memcpy(to, static_cast<const float*>(from) + j * stride, filled * sizeof(float));
    else
      for (int64_t d = 0; d < filled; ++d) to[d] = load_float(from, type, j * stride + d);
    for (int64_t d = filled; d < width; ++d) to[d] = 0.0f;
  }
}

// The scores of one row against a tile; keys outside [first, last) count as unseen.
static inline float scores_of(const float* q, const float* keys, int64_t width, float scale, int64_t first, int64_t last, float* scores) {
  float largest = -INFINITY;
  for (int64_t j = 0; j < KEYS; ++j) {
    if (j < first || j >= last) {
      scores[j] = -INFINITY;
      continue;
    }
    Vector sum = {};
    for (int64_t d = 0; d < width; d += WIDTH) sum = multiply_add(vector_at(q + d), vector_at(keys + j * width + d), sum);
    scores[j] = sum_of(sum) * scale;
    largest = scores[j] > largest ? scores[j] : largest;
  }
  return largest;
}

static void attend(const Attention& a, int64_t batch, int64_t kv_head, int64_t position, int64_t n_positions, float* scratch) {
  const int64_t repeats = a.heads / a.kv_heads, width = padded_head(a.head_dim), rows = repeats * n_positions;
  float* keys = scratch;                  // [KEYS, width]
  float* values = keys + KEYS * width;    // [KEYS, width]
  float* queries = values + KEYS * width; // [rows, width]
  float* out = queries + rows * width;    // [rows, width]
  float* largest = out + rows * width;
  float* sums = largest + rows;
  alignas(64) float weights[KEYS];
  const int64_t elements = float_bytes(a.type), before = a.keys - a.queries;
  const auto row_at = [&](int64_t row) {
    return ((batch * a.heads + kv_head * repeats + row / n_positions) * a.queries + position + row % n_positions) * a.head_dim;
  };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t d = 0; d < width; ++d) queries[row * width + d] = d < a.head_dim ? a.q[row_at(row) + d] : 0.0f;
    for (int64_t d = 0; d < width; ++d) out[row * width + d] = 0.0f;
    largest[row] = -INFINITY, sums[row] = 0.0f;
  }
  const auto first_key = [&](int64_t p) { return a.window > 0 && before + p >= a.window ? before + p - a.window + 1 : 0; };
  for (int64_t tile = first_key(position) / KEYS * KEYS; tile < before + position + n_positions; tile += KEYS) {
    const int64_t n = a.keys - tile < KEYS ? a.keys - tile : KEYS;
    const int64_t k_at = batch * a.k_strides[0] + kv_head * a.k_strides[1] + tile * a.k_strides[2];
    const int64_t v_at = batch * a.v_strides[0] + kv_head * a.v_strides[1] + tile * a.v_strides[2];
    widen_tile(static_cast<const char*>(a.k) + k_at * elements, a.type, a.k_strides[2], n, a.head_dim, width, keys);
    widen_tile(static_cast<const char*>(a.v) + v_at * elements, a.type, a.v_strides[2], n, a.head_dim, width, values);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t p = position + row % n_positions;
      const int64_t first = first_key(p) - tile, last = before + p + 1 - tile < n ? before + p + 1 - tile : n;
      if (first >= n || last <= 0) continue;
      const float most = scores_of(queries + row * width, keys, width, a.scale, first, last, weights);
      if (most > largest[row]) {
        const float shrink = std::exp(largest[row] - most);
        for (int64_t d = 0; d < width; ++d) out[row * width + d] *= shrink;
        sums[row] *= shrink;
        largest[row] = most;
      }
      Vector sum = {};
      for (int j = 0; j < KEYS; j += WIDTH) {
        const Vector e = exp_of(vector_at(weights + j) - largest[row]);
        put(weights + j, e);
        sum += e;
      }
      sums[row] += sum_of(sum);
      const int64_t j0 = first > 0 ? first : 0;
      for (int64_t d = 0; d < width; d += WIDTH) {
        Vector acc = vector_at(out + row * width + d);
        for (int64_t j = j0; j < last; ++j) acc = multiply_add(Vector{} + weights[j], vector_at(values + j * width + d), acc);
        put(out + row * width + d, acc);
      }
    }
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t d = 0; d < a.head_dim; ++d) a.out[row_at(row) + d] = out[row * width + d] / sums[row];
}

}  // namespace kernels
