// Vectors of whatever width the including file is compiled for. Everything is `static`, see scalars.h.
#pragma once
#include <utility>

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

static inline Vector vector_at(const void* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline Ints ints_at(const void* p) {
  Ints v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline void put(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

static inline Vector all(float x) { return x - Vector{}; }

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

// The second one if the first is NaN.
static inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
  return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

static inline Vector smaller(Vector a, Vector b) {
#if defined(__AVX512F__)
  return (Vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

static inline float sum_of(Vector v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float parts[WIDTH];
  std::memcpy(parts, &v, sizeof v);
  for (int n = WIDTH / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) parts[i] += parts[i + n];
  return parts[0];
#endif
}

// The largest one, if none of them is NaN.
static inline float largest_of(Vector v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float parts[WIDTH];
  std::memcpy(parts, &v, sizeof v);
  for (int n = WIDTH / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) parts[i] = parts[i] > parts[i + n] ? parts[i] : parts[i + n];
  return parts[0];
#endif
}

// Lanes of a and b in turn, SPAN at a time: those of the lower (0) or upper (1) half of each four.
template <int SPAN, int HALF, size_t... I>
static inline Vector interleave(Vector a, Vector b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b,
                                 (I / SPAN % 2 * WIDTH + I / 4 * 4 + (SPAN == 1 ? I % 4 / 2 : I % 2) + 2 * HALF)...);
}

template <int SPAN>
static inline Vector add_halves(Vector a, Vector b) {
  constexpr auto lanes = std::make_index_sequence<WIDTH>();
  return interleave<SPAN, 0>(a, b, lanes) + interleave<SPAN, 1>(a, b, lanes);
}

typedef float Four __attribute__((vector_size(16)));

// The sums of four vectors; not in the order of sum_of.
static inline Four sums_of(const Vector (&v)[4]) {
  const Vector all = add_halves<2>(add_halves<1>(v[0], v[1]), add_halves<1>(v[2], v[3]));
  Four fours[WIDTH / 4];
  std::memcpy(fours, &all, sizeof all);
  for (int n = WIDTH / 8; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) fours[i] += fours[i + n];
  return fours[0];
}

// WIDTH elements of type T from element i on.
template <Float T>
static inline Vector load_vector(const void* p, int64_t i) {
  if constexpr (T == Float::f32) return vector_at(static_cast<const float*>(p) + i);
  if constexpr (T == Float::q8) {
    const int8_t* codes = static_cast<const int8_t*>(p) + i;
#if defined(__AVX512F__)
    return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)codes)));
#elif defined(__AVX2__)
    return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)codes)));
#else
    typedef int8_t Bytes __attribute__((vector_size(WIDTH)));
    Bytes bytes;
    std::memcpy(&bytes, codes, sizeof bytes);
    return __builtin_convertvector(bytes, Vector);
#endif
  }
  typedef uint16_t Halves __attribute__((vector_size(WIDTH * 2)));
  Halves halves;
  std::memcpy(&halves, static_cast<const char*>(p) + 2 * i, sizeof halves);
#if defined(__AVX2__) && !defined(__AVX512F__)  // GCC takes several steps for the conversion below
  if constexpr (T == Float::bf16) return (Vector)((Ints)_mm256_cvtepu16_epi32((__m128i)halves) << 16);
#endif
  if constexpr (T == Float::bf16) return (Vector)(__builtin_convertvector(halves, Ints) << 16);
#if defined(__AVX512F__)
  return (Vector)_mm512_cvtph_ps((__m256i)halves);
#elif defined(__F16C__)
  return (Vector)_mm256_cvtph_ps((__m128i)halves);
#else
  const Ints wide = __builtin_convertvector(halves, Ints);  // as half_to_float does it
  const Ints special = ((wide & 0x7c00) == 0x7c00) & 0x7f800000;
  const Vector magnitude = (Vector)((wide & 0x7fff) << 13) * 0x1p112f;
  return (Vector)((Ints)magnitude | special | (wide & 0x8000) << 16);
#endif
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

}  // namespace kernels
