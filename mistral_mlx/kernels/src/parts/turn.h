// Keys as columns: WIDTH keys by WIDTH elements are turned in registers. Everything is `static`, see scalars.h.
#pragma once
#include "vectors.h"

namespace kernels {

#if defined(__AVX512F__)

static inline void turn(Vector (&v)[WIDTH]) {
  __m512 pairs[16], quads[16], halves[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps((__m512)v[i], (__m512)v[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps((__m512)v[i], (__m512)v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      const __m512d first = _mm512_castps_pd(pairs[i + j]), second = _mm512_castps_pd(pairs[i + j + 2]);
      quads[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
      quads[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      halves[i + j] = _mm512_shuffle_f32x4(quads[i + j], quads[i + j + 4], 0x88);
      halves[i + j + 4] = _mm512_shuffle_f32x4(quads[i + j], quads[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {  // element j % 4 of lane j / 4, and of the lane two further on
    v[j] = (Vector)_mm512_shuffle_f32x4(halves[j], halves[j + 8], 0x88);
    v[j + 8] = (Vector)_mm512_shuffle_f32x4(halves[j], halves[j + 8], 0xdd);
  }
}

#elif defined(__AVX2__)

static inline void turn(Vector (&v)[WIDTH]) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps((__m256)v[i], (__m256)v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps((__m256)v[i], (__m256)v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
    }
  for (int j = 0; j < 4; ++j) {
    v[j] = (Vector)_mm256_permute2f128_ps(quads[j], quads[j + 4], 0x20);
    v[j + 4] = (Vector)_mm256_permute2f128_ps(quads[j], quads[j + 4], 0x31);
  }
}

#else

static inline void turn(Vector (&v)[WIDTH]) {
  const Vector a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7),
               c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5), v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

#endif

// Keys or values of one tile: row j for j in [first, last) is head_dim elements at `data`, j * stride elements on.
// Behind elements of q8 lies their scale.
struct Tile {
  const void* data;
  int64_t stride, first, last, head_dim;
};

// WIDTH elements of row j from element d on; 0 in place of those that there are not.
template <Float T>
static inline Vector elements(const Tile& t, int64_t j, int64_t d) {
  if (j < t.first || j >= t.last) return Vector{};
  if (d + WIDTH <= t.head_dim) return load_vector<T>(t.data, j * t.stride + d);
  float values[WIDTH] = {};
  for (int64_t i = d; i < t.head_dim; ++i) values[i - d] = load_float(t.data, T, j * t.stride + i);
  return vector_at(values);
}

// The scale of each row, 0 in place of those that there are not.
static inline void scales_at(const Tile& t, float* out) {
  for (int64_t j = 0; j < KEYS; ++j) out[j] = 0.0f;
  for (int64_t j = t.first; j < t.last; ++j)
    std::memcpy(out + j, static_cast<const char*>(t.data) + j * t.stride + t.head_dim, SCALE_BYTES);
}

template <Float T>
[[gnu::noinline]] static void edge_at(const Tile& t, int64_t j, int64_t d, Vector (&v)[WIDTH]) {
  for (int i = 0; i < WIDTH; ++i) v[i] = elements<T>(t, j + i, d);
}

// Elements [d, d + WIDTH) of the keys [j, j + WIDTH), one vector for each element.
template <Float T>
static inline void columns_at(const Tile& t, int64_t j, int64_t d, Vector (&v)[WIDTH]) {
  if (j >= t.first && j + WIDTH <= t.last && d + WIDTH <= t.head_dim) {
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; ++i) v[i] = load_vector<T>(t.data, (j + i) * t.stride + d);
  } else {
    edge_at<T>(t, j, d, v);
  }
  turn(v);
}

}  // namespace kernels
