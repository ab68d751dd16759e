// Products with packed weights in 256 bits, see parts/few.h and parts/many.h. With AVX-VNNI many rows multiply bytes;
// without it, codes are spread over words of 16 bits: `maddubs`, which multiplies bytes, would saturate.
#pragma once
#include <immintrin.h>

#include "../../parts/few.h"

namespace kernels {
namespace {

constexpr int ROWS_ABREAST = 4, VECTORS_ABREAST = 2;
constexpr int64_t UNPACKED_4_BITS = 32, UNPACKED_BITS = 32;
#ifdef __AVXVNNI__
constexpr int CODE_BYTES = 1, START = 128;
#else
constexpr int CODE_BYTES = 2, START = 0;
#endif

__m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// sum += two products of 16 bits, in each lane.
void add_dot16(Ints& sum, __m256i a, __m256i b) {
#ifdef __AVXVNNI__
  sum = (Ints)_mm256_dpwssd_avx_epi32((__m256i)sum, a, b);
#else
  sum += (Ints)_mm256_madd_epi16(a, b);
#endif
}

void add_products(Ints& sum, Ints activations, Ints codes) {
#ifdef __AVXVNNI__
  sum = (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)activations, (__m256i)codes);
#else
  add_dot16(sum, (__m256i)activations, (__m256i)codes);
#endif
}

// 8 floats from element i on; those from `n` on are 0 and not read.
template <Float T>
__m256 load(const void* p, int64_t i, int64_t n) {
  constexpr int64_t SIZE = T == Float::f32 ? 4 : 2;
  const char* at = static_cast<const char*>(p) + i * SIZE;
  alignas(32) char copy[WIDTH * 4] = {};
  if (n < WIDTH) {
    std::memcpy(copy, at, n > 0 ? n * SIZE : 0);
    at = copy;
  }
  if constexpr (T == Float::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  if constexpr (T == Float::f16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// Turns rows of 8 words into columns. Inlined, or the rows would go through memory.
[[gnu::always_inline]] inline void transpose(__m256i (&v)[8]) {
  __m256i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(v[i], v[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) v[i] = t[i];
}

template <Float T>
void lines_of_type(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases,
                   int64_t stride) {
  const __m256 zero = _mm256_set1_ps(static_cast<float>(w.zero()));
  for (int64_t half = 0; half < 16; half += WIDTH) {
    __m256i s[8], b[8];
    for (int64_t i = 0; i < 8; ++i) {
      const int64_t left = i < n_outputs ? w.groups() - g - half : 0,
                    at = left > 0 ? (n + i) * w.groups() + g + half : 0;
      s[i] = _mm256_castps_si256(load<T>(w.scales, at, left));
      b[i] = _mm256_castps_si256(load<T>(w.biases, at, left));
    }
    transpose(s);
    transpose(b);
    for (int64_t i = 0; i < 8; ++i) {
      const __m256 scale = _mm256_castsi256_ps(s[i]);
      _mm256_store_ps(scales + (half + i) * stride, scale);
      _mm256_store_ps(biases + (half + i) * stride, _mm256_fmadd_ps(zero, scale, _mm256_castsi256_ps(b[i])));
    }
  }
}

void lines(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases, int64_t stride) {
  with_type(w.type, [&]<Float T> { lines_of_type<T>(w, n, n_outputs, g, scales, biases, stride); });
}

// Few rows.

template <int BITS>
constexpr int PHASES = BITS == 4 ? 4 : 2;  // words of 16 bits that a vector of weights is spread over

// Of 16 * phases codes vector p holds those of number phases * i + p.
template <int PHASES>
void arrange_words(const int16_t* codes, uint8_t* out) {
  for (int64_t i = 0; i < BLOCK; i += 16 * PHASES)
    for (int p = 0; p < PHASES; ++p) {
      int16_t words[16];
      for (int j = 0; j < 16; ++j) words[j] = codes[i + PHASES * j + p];
      std::memcpy(out + 2 * (i + 16 * p), words, sizeof words);
    }
}

void round_few(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  round_row<true>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
    (w.bits == 4 ? arrange_words<4> : arrange_words<2>)(codes, to + 2 * k);
  });
}

template <int BITS, bool FULL>
void spread(const uint8_t* at, int64_t left, __m256i (&words)[PHASES<BITS>]) {
  if constexpr (BITS != 4 && BITS != 8) {
    const Pairs both = pairs<BITS>(at, left);
    words[0] = (__m256i)even<BITS>(both);
    words[1] = (__m256i)odd<BITS>(both);
    return;
  }
  // Half a vector is left of 4 bits where a row ends with a group of 32.
  const __m256i b = FULL || left >= 32 ? load_bytes(at)
                                       : _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  const __m256i low = _mm256_set1_epi16(BITS == 4 ? 15 : 255);
  words[0] = _mm256_and_si256(b, low);
  if constexpr (BITS == 4) {
    words[1] = _mm256_and_si256(_mm256_srli_epi16(b, 4), low);
    words[2] = _mm256_and_si256(_mm256_srli_epi16(b, 8), low);
  }
  words[PHASES<BITS> - 1] = _mm256_srli_epi16(b, 16 - BITS);
}

template <int BITS, Form FORM, int S, bool FULL>
void add_vector(const uint8_t* at, int64_t left, const uint8_t* const (&codes)[S], int64_t offset, Ints (&sums)[S]) {
  __m256i words[PHASES<BITS>];
  spread<BITS, FULL>(at, left, words);
#pragma GCC unroll 4
  for (int p = 0; p < PHASES<BITS>; ++p)
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) add_dot16(sums[s], words[p], load_bytes(codes[s] + offset + 32 * p));
}

Ints add_quads(Ints a, Ints b, Ints c, Ints d) {
  return (Ints)_mm256_hadd_epi32(_mm256_hadd_epi32((__m256i)a, (__m256i)b), _mm256_hadd_epi32((__m256i)c, (__m256i)d));
}

template <int SPAN>
void gather(const Ints (&quads)[WIDTH / 4], Ints (&sums)[WIDTH / SPAN]) {
  const Ints first = (Ints)_mm256_permute2x128_si256((__m256i)quads[0], (__m256i)quads[1], 0x20);
  const Ints second = (Ints)_mm256_permute2x128_si256((__m256i)quads[0], (__m256i)quads[1], 0x31);
  if constexpr (SPAN == 4)
    sums[0] = first, sums[1] = second;
  else
    sums[0] = first + second;
}

void few(const Packed& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  with_bits(w.bits, [&]<int BITS> { few_of<BITS, Form::words>(w, x, y, y_stride, n0, n1); });
}

}  // namespace
}  // namespace kernels

#include "../../parts/many.h"

namespace kernels {
namespace {

// Many rows.

// 32 codes of a row from input k on.
template <int BITS>
__m256i codes_in_order(const uint8_t* row, int64_t k, int64_t left) {
  const uint8_t* at = row + k * BITS / 8;
  if constexpr (BITS == 8) return load_bytes(at);
  if constexpr (BITS != 4) return (__m256i)widened<BITS>(at, left);
  const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  return _mm256_and_si256(_mm256_or_si256(b, _mm256_slli_epi16(b, 4)), _mm256_set1_epi8(15));
}

template <int BITS, bool ROTATED>
void unpack_codes(const Packed& w, int64_t n, int64_t n_outputs, int64_t k, uint8_t* out) {
  __m256i v[CODE_BYTES][8];
  const __m256i zero = _mm256_set1_epi8(static_cast<char>(w.zero()));
  for (int64_t i = 0; i < 8; ++i) {
    const uint8_t* row = w.codes + (n + (i < n_outputs ? i : 0)) * w.row_bytes();
    const __m256i codes = codes_in_order<BITS>(row, k, (w.n_in - k) * BITS / 8);
    const __m256i signed_codes = _mm256_sub_epi8(codes, zero);
    if constexpr (CODE_BYTES == 2) {
      v[0][i] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(signed_codes));
      v[1][i] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(signed_codes, 1));
    } else {
      v[0][i] = ROTATED ? codes : signed_codes;
    }
  }
  for (int part = 0; part < CODE_BYTES; ++part) {
    transpose(v[part]);
    if constexpr (ROTATED) rotate_run<BITS>(reinterpret_cast<Bytes(&)[8]>(v[part]));
    for (int i = 0; i < 8; ++i, out += 4 * TILE) _mm256_store_si256(reinterpret_cast<__m256i*>(out), v[part][i]);
  }
}

#ifdef __AVXVNNI__
void round_many(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t *first = out.codes + row * out.stride, *second = first + plane_of(w);
  round_row<false>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
    for (int i = 0; i < BLOCK; ++i)
      if (out.points > 1)
        first[k + i] = static_cast<uint8_t>(codes[i] + START);
      else
        first[k + i] = static_cast<uint8_t>((codes[i] + 32768) >> 8), second[k + i] = static_cast<uint8_t>(codes[i]);
  });
}
#else
void round_many(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  round_row<true>(x, w, out, row,
                  [&](int64_t k, const int16_t* codes) { std::memcpy(to + 2 * k, codes, BLOCK * sizeof(int16_t)); });
}
#endif

}  // namespace
}  // namespace kernels
