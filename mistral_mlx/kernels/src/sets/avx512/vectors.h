// What the AVX-512 kernels share: masked loads, dot products, a transposition, and the scales of a panel.
#pragma once
#include <immintrin.h>

#include "../../parts/rounding.h"
#include "../../parts/tiles.h"

namespace kernels {
namespace {

constexpr int LANES = 16;

__mmask16 first16(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }
__mmask64 first64(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

template <Float T>
__m512 load(const void* p, int64_t i, __mmask16 mask) {
  const char* at = static_cast<const char*>(p) + i * (T == Float::f32 ? 4 : 2);
  if constexpr (T == Float::f32) return _mm512_maskz_loadu_ps(mask, at);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, at);
  if constexpr (T == Float::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// sum += four products of an unsigned and a signed byte, in each lane.
inline void add_dot(Ints& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  sum = (Ints)_mm512_dpbusd_epi32((__m512i)sum, unsigned_bytes, signed_bytes);
}
// The same with two products of 16 bits.
inline void add_dot16(Ints& sum, __m512i a, __m512i b) { sum = (Ints)_mm512_dpwssd_epi32((__m512i)sum, a, b); }

// Turns rows of 16 words into columns. Inlined, or the rows would go through memory.
[[gnu::always_inline]] inline void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// Rows of four words in each quarter of four vectors become columns.
[[gnu::always_inline]] inline void transpose_quads(__m512i (&v)[4]) {
  const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
  const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(a, c), v[1] = _mm512_unpackhi_epi64(a, c);
  v[2] = _mm512_unpacklo_epi64(b, d), v[3] = _mm512_unpackhi_epi64(b, d);
}

// 16 numbers of 16 bits of each of 16 outputs, `stride` numbers apart, turned: word j has those of groups 2 j and 2 j +
// 1 of every output. FULL: all of them are there; otherwise those behind n_outputs or not in the mask are 0.
template <bool FULL>
void turned_halves(const char* p, int64_t stride, int64_t n_outputs, __mmask16 mask, __m512i (&words)[8]) {
  const auto row = [&](int64_t i) {
    if (FULL) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 2 * i * stride));
    return _mm256_maskz_loadu_epi16(i < n_outputs ? mask : __mmask16{0}, p + (i < n_outputs ? 2 * i * stride : 0));
  };
  __m512i v[2][4];
  for (int i = 0; i < 8; ++i) v[i / 4][i % 4] = _mm512_inserti64x4(_mm512_castsi256_si512(row(i)), row(i + 8), 1);
  transpose_quads(v[0]);
  transpose_quads(v[1]);
  const __m512i even = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0), odd = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
  for (int i = 0; i < 4; ++i) {
    words[i] = _mm512_permutex2var_epi64(v[0][i], even, v[1][i]);
    words[i + 4] = _mm512_permutex2var_epi64(v[0][i], odd, v[1][i]);
  }
}

// The same of up to 8 groups.
void turned_eighths(const char* p, int64_t stride, int64_t n_outputs, __mmask8 mask, __m512i (&words)[4]) {
  const auto row = [&](int64_t i) {
    return _mm_maskz_loadu_epi16(i < n_outputs ? mask : __mmask8{0}, p + (i < n_outputs ? 2 * i * stride : 0));
  };
  for (int i = 0; i < 4; ++i) {
    words[i] = _mm512_inserti32x4(_mm512_castsi128_si512(row(i)), row(i + 4), 1);
    words[i] = _mm512_inserti32x4(_mm512_inserti32x4(words[i], row(i + 8), 2), row(i + 12), 3);
  }
  transpose_quads(words);
}

// The first or the second of the halves of words, as floats.
template <Float T, bool SECOND>
__m512 floats_of(__m512i words) {
  if constexpr (T == Float::f16)
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(SECOND ? _mm512_srli_epi32(words, 16) : words));
  if constexpr (SECOND)
    return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

template <Float T>
void lines_of_type(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases,
                   int64_t stride) {
  const __mmask16 mask = first16(w.groups() - g);
  const __m512 zero = _mm512_set1_ps(static_cast<float>(w.zero()));
  const int64_t at = n_outputs > 0 ? n * w.groups() + g : 0;
  const auto store = [&](int64_t i, __m512 scale, __m512 bias) {
    _mm512_store_ps(scales + i * stride, scale);
    _mm512_store_ps(biases + i * stride, _mm512_fmadd_ps(zero, scale, bias));
  };
  if constexpr (T == Float::f32) {
    __m512i s[16], b[16];
    for (int64_t i = 0; i < 16; ++i) {
      const __mmask16 valid = i < n_outputs ? mask : __mmask16{0};
      s[i] = _mm512_castps_si512(load<T>(w.scales, i < n_outputs ? at + i * w.groups() : 0, valid));
      b[i] = _mm512_castps_si512(load<T>(w.biases, i < n_outputs ? at + i * w.groups() : 0, valid));
    }
    transpose(s);
    transpose(b);
    for (int64_t i = 0; i < 16; ++i) store(i, _mm512_castsi512_ps(s[i]), _mm512_castsi512_ps(b[i]));
    return;
  }
  const char *s_at = static_cast<const char*>(w.scales) + 2 * at, *b_at = static_cast<const char*>(w.biases) + 2 * at;
  const auto store_pair = [&](int64_t i, __m512i s, __m512i b) {
    store(2 * i, floats_of<T, false>(s), floats_of<T, false>(b));
    store(2 * i + 1, floats_of<T, true>(s), floats_of<T, true>(b));
  };
  if (w.groups() - g <= 8) {
    __m512i s[4], b[4];
    turned_eighths(s_at, w.groups(), n_outputs, static_cast<__mmask8>(mask), s);
    turned_eighths(b_at, w.groups(), n_outputs, static_cast<__mmask8>(mask), b);
    for (int64_t i = 0; i < 4; ++i) store_pair(i, s[i], b[i]);
    for (int64_t i = 8; i < 16; ++i) store(i, _mm512_setzero_ps(), _mm512_setzero_ps());
    return;
  }
  const bool full = n_outputs >= 16 && w.groups() - g >= 16;
  __m512i s[8], b[8];
  (full ? turned_halves<true> : turned_halves<false>)(s_at, w.groups(), n_outputs, mask, s);
  (full ? turned_halves<true> : turned_halves<false>)(b_at, w.groups(), n_outputs, mask, b);
  for (int64_t i = 0; i < 8; ++i) store_pair(i, s[i], b[i]);
}

// See parts/few.h.
[[gnu::noinline]] void lines(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases,
                             int64_t stride) {
  with_type(w.type, [&]<Float T> { lines_of_type<T>(w, n, n_outputs, g, scales, biases, stride); });
}

}  // namespace
}  // namespace kernels
