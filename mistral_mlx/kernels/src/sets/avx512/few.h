// A few rows, see parts/few.h: 16 outputs abreast.
#pragma once
#include "../../parts/few.h"
#include "vectors.h"

namespace kernels {
namespace {

template <int BITS>
constexpr int PHASES = BITS == 4 ? 4 : 2;  // vectors of 32 codes in a vector of weights

// Form::bytes, of 4 bits and rotated codes alone: a byte b holds the codes lo + 16 hi of an even and an odd input, e
// and o. What is wanted, lo e + hi o, is (lo (16 e - o) + b o) / 16: the high half is never cut out. 16 e - o and o
// come as two planes of bytes, 256 * high + low. e and o are of one transform, so e^2 + o^2 <= (16 COARSE_LIMIT)^2, and
// 16 e - o fits two planes.
constexpr int64_t LARGEST_PAIR = 16 * COARSE_LIMIT * 16 + 64;  // 16 * 2032 * sqrt(257 / 256), rounded up
static_assert(LARGEST_PAIR <= FINE_LIMIT);

Form form_of(const Packed& w, const Rounded& x) { return w.bits == 4 && x.points > 1 ? Form::bytes : Form::words; }

// Of 128 codes: high plane of 16 e - o, of o, low plane of 16 e - o, of o.
void arrange_bytes(const int16_t* codes, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    const __m512i v = _mm512_loadu_si512(codes + 32 * i), e = _mm512_srai_epi32(_mm512_slli_epi32(v, 16), 16),
                  odd = _mm512_srai_epi32(v, 16), even = _mm512_sub_epi32(_mm512_slli_epi32(e, 4), odd);
    const auto store = [&](int plane, __m512i values) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 64 * plane + 16 * i), _mm512_cvtepi32_epi8(values));
    };
    const auto high = [](__m512i value) {  // what is left over of the low byte, as a signed one
      return _mm512_srai_epi32(_mm512_add_epi32(value, _mm512_set1_epi32(128)), 8);
    };
    store(0, high(even)), store(1, high(odd)), store(2, even), store(3, odd);
  }
}

// Of 32 * phases codes vector p holds those of number phases * i + p.
void arrange_words(const int16_t* codes, int bits, uint8_t* out) {
  for (int i = 0; i < 4; ++i) {
    const __m512i v = _mm512_loadu_si512(codes + 32 * i);
    if (bits == 4) {
      for (int p = 0; p < 4; ++p)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 64 * p + 16 * i),
                         _mm512_cvtepi64_epi16(_mm512_srli_epi64(v, 16 * p)));
    } else {
      for (int p = 0; p < 2; ++p)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 128 * (i / 2) + 64 * p + 32 * (i % 2)),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16 * p)));
    }
  }
}

void round_few(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  const Form form = form_of(w, out);
  round_row<true>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
    form == Form::bytes ? arrange_bytes(codes, to + 2 * k) : arrange_words(codes, w.bits, to + 2 * k);
  });
  for (int64_t g = row * out.group_stride; form == Form::bytes && g < row * out.group_stride + w.groups(); ++g)
    out.totals[g] *= 16, out.scales[g] /= 16;
}

// A vector of weights; FULL: at least as many bytes are left of the row. The empty asm keeps it in a register, or every
// use of it would be a load.
template <bool FULL>
__m512i load_codes(const uint8_t* at, int64_t left) {
  __m512i b = FULL ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8(first64(left), at);
  asm("" : "+v"(b));
  return b;
}

template <int BITS, bool FULL>
void spread(const uint8_t* at, int64_t left, __m512i (&words)[PHASES<BITS>]) {
  if constexpr (BITS != 4 && BITS != 8) {
    const Pairs both = pairs<BITS>(at, FULL ? 64 : left);
    words[0] = (__m512i)even<BITS>(both);
    words[1] = (__m512i)odd<BITS>(both);
    return;
  }
  const __m512i b = load_codes<FULL>(at, left), low = _mm512_set1_epi16(BITS == 4 ? 15 : 255);
  words[0] = _mm512_and_si512(b, low);
  if constexpr (BITS == 4) {
    words[1] = _mm512_and_si512(_mm512_srli_epi16(b, 4), low);
    words[2] = _mm512_and_si512(_mm512_srli_epi16(b, 8), low);
  }
  words[PHASES<BITS> - 1] = _mm512_srli_epi16(b, 16 - BITS);
}

// sums[s] += the weights at `at` times the activations of row s at `codes`; 16 times that where the form is bytes.
template <int BITS, Form FORM, int S, bool FULL>
inline void add_vector(const uint8_t* at, int64_t left, const uint8_t* const (&codes)[S], int64_t offset,
                       Ints (&sums)[S]) {
  const auto plane = [&](int s, int p) { return _mm512_loadu_si512(codes[s] + offset + 64 * p); };
  if constexpr (FORM == Form::bytes) {
    const __m512i b = load_codes<FULL>(at, left), low = _mm512_and_si512(b, _mm512_set1_epi8(15));
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      add_dot(sums[s], low, plane(s, 0));
      add_dot(sums[s], b, plane(s, 1));
      sums[s] <<= 8;
      add_dot(sums[s], low, plane(s, 2));
      add_dot(sums[s], b, plane(s, 3));
    }
  } else {
    __m512i words[PHASES<BITS>];
    spread<BITS, FULL>(at, left, words);
#pragma GCC unroll 4
    for (int p = 0; p < PHASES<BITS>; ++p)
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) add_dot16(sums[s], words[p], plane(s, p));
  }
}

__m512i add_pairs(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

Ints add_quads(Ints a, Ints b, Ints c, Ints d) {
  const __m512i ab = add_pairs((__m512i)a, (__m512i)b), cd = add_pairs((__m512i)c, (__m512i)d);
  return (Ints)_mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

template <int SPAN>
void gather(const Ints (&q)[WIDTH / 4], Ints (&sums)[WIDTH / SPAN]) {
  const auto pick = [](__m512i x, __m512i y, auto odd) { return _mm512_shuffle_i32x4(x, y, odd.value ? 0xdd : 0x88); };
  const std::false_type even;
  const std::true_type odd;
  const __m512i a = pick((__m512i)q[0], (__m512i)q[1], even), b = pick((__m512i)q[0], (__m512i)q[1], odd);
  const __m512i c = pick((__m512i)q[2], (__m512i)q[3], even), d = pick((__m512i)q[2], (__m512i)q[3], odd);
  if constexpr (SPAN == 4) {
    sums[0] = (Ints)pick(a, c, even), sums[1] = (Ints)pick(b, d, even);
    sums[2] = (Ints)pick(a, c, odd), sums[3] = (Ints)pick(b, d, odd);
  } else {
    const __m512i ab = _mm512_add_epi32(a, b), cd = _mm512_add_epi32(c, d);
    if constexpr (SPAN == 8)
      sums[0] = (Ints)pick(ab, cd, even), sums[1] = (Ints)pick(ab, cd, odd);
    else
      sums[0] = (Ints)_mm512_add_epi32(pick(ab, cd, even), pick(ab, cd, odd));
  }
}

void few(const Packed& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  if (form_of(w, x) == Form::bytes) return few_of<4, Form::bytes>(w, x, y, y_stride, n0, n1);
  with_bits(w.bits, [&]<int BITS> { few_of<BITS, Form::words>(w, x, y, y_stride, n0, n1); });
}

}  // namespace
}  // namespace kernels
