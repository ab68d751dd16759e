// Many rows, see parts/many.h: 32 outputs and 6 rows abreast.
#pragma once
#include "vectors.h"

namespace kernels {
namespace {

constexpr int CODE_BYTES = 1, START = 128;
constexpr int ROWS_ABREAST = 6, VECTORS_ABREAST = 2;  // 12 integer and 12 float sums stay in registers
constexpr int64_t UNPACKED_4_BITS = 128, UNPACKED_BITS = 64;

}  // namespace
}  // namespace kernels

#include "../../parts/many.h"

namespace kernels {
namespace {

// Codes become bytes plus 128, as VNNI multiplies unsigned bytes by signed ones: in the order of the codes of a block,
// where 4 bits have the even inputs of 8 before the odd ones. Exact codes are two planes, 256 * first + second.
void arrange_many(const int16_t* codes, int bits, int points, uint8_t* out, int64_t plane_stride) {
  const __m512i order =
      bits != 4 ? _mm512_broadcast_i32x4(_mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
                : _mm512_broadcast_i32x4(_mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0));
  for (int i = 0; i < BLOCK; i += 64) {
    const __m512i a = _mm512_loadu_si512(codes + i), b = _mm512_loadu_si512(codes + i + 32);
    const auto bytes = [&](__m512i low, __m512i high) {
      return _mm512_xor_si512(
          _mm512_set1_epi8(points == 1 ? 0 : -128),
          _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(low)), _mm512_cvtepi16_epi8(high), 1));
    };
    if (points == 1) {
      const __m512i offset = _mm512_set1_epi16(INT16_MIN), c = _mm512_xor_si512(a, offset),
                    d = _mm512_xor_si512(b, offset);
      _mm512_storeu_si512(out + i, _mm512_shuffle_epi8(bytes(_mm512_srli_epi16(c, 8), _mm512_srli_epi16(d, 8)), order));
      _mm512_storeu_si512(out + plane_stride + i, _mm512_shuffle_epi8(bytes(c, d), order));
    } else {
      _mm512_storeu_si512(out + i, _mm512_shuffle_epi8(bytes(a, b), order));
    }
  }
}

void round_many(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  const int64_t plane = plane_of(w);
  round_row<false>(x, w, out, row,
                   [&](int64_t k, const int16_t* codes) { arrange_many(codes, w.bits, out.points, to + k, plane); });
}

void add_products(Ints& sum, Ints activations, Ints codes) { add_dot(sum, (__m512i)activations, (__m512i)codes); }

void add_and_subtract(__m512i& a, __m512i& b) {
  const __m512i sum = _mm512_add_epi8(a, b);
  b = _mm512_sub_epi8(a, b);
  a = sum;
}

// As rotate_run, of 4 bits: vector 2 i + p has the inputs 8 i + p, + 2, + 4 and + 6.
void rotate_halves(__m512i (&v)[8]) {
  for (int step = 1; step < 8; step *= 2)
    for (int i = 0; i < 8; ++i)
      if ((i & step) == 0) add_and_subtract(v[i], v[i + step]);
  for (__m512i& codes : v) {  // input bit 2: the halves of a word
    const __m512i other = _mm512_rol_epi32(codes, 16);
    codes = _mm512_mask_sub_epi8(_mm512_add_epi8(codes, other), 0xcccccccccccccccc, other, codes);
  }
  v[0] = _mm512_mask_sub_epi8(v[0], 0x3333333333333333, v[0], _mm512_set1_epi8(-128));  // 16 times the zero code
}

// FULL: all 16 outputs are there, and a whole vector is left of their rows.
template <int BITS, bool FULL>
[[gnu::always_inline]] inline void load_rows(const Packed& w, int64_t n, int64_t n_outputs, int64_t k,
                                             __m512i (&v)[16]) {
  const int64_t left = (w.n_in - k) * BITS / 8, row_bytes = w.row_bytes();
  const uint8_t* at = w.codes + n * row_bytes + k * BITS / 8;
  for (int64_t i = 0; i < LANES; ++i) {
    const uint8_t* row = at + (FULL || i < n_outputs ? i : 0) * row_bytes;
    if constexpr (BITS != 4 && BITS != 8)
      v[i] = (__m512i)widened<BITS>(row, FULL ? 64 : left);
    else
      v[i] = FULL ? _mm512_loadu_si512(row) : _mm512_maskz_loadu_epi8(first64(left), row);
  }
}

template <int BITS, bool ROTATED>
void unpack_codes(const Packed& w, int64_t n, int64_t n_outputs, int64_t k, uint8_t* out) {
  __m512i v[16];
  if (n_outputs >= LANES && w.n_in - k >= UNPACKED<BITS>)
    load_rows<BITS, true>(w, n, n_outputs, k, v);
  else
    load_rows<BITS, false>(w, n, n_outputs, k, v);
  transpose(v);
  const __m512i low = _mm512_set1_epi8(15), zero = _mm512_set1_epi8(static_cast<char>(1 << (BITS - 1)));
  constexpr int WORDS = BITS == 4 ? 4 : 8;  // of a run
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += WORDS) {
    __m512i run[8];
    if constexpr (BITS == 4)
      for (int j = 0; j < 4; ++j) {
        run[2 * j] = _mm512_and_si512(v[i + j], low);
        run[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(v[i + j], 4), low);
      }
    else
      for (int j = 0; j < 8; ++j) run[j] = v[i + j];
    if constexpr (ROTATED && BITS == 4)
      rotate_halves(run);
    else if constexpr (ROTATED)
      rotate_run<BITS>(reinterpret_cast<Bytes(&)[8]>(run));
    else
      for (__m512i& codes : run) codes = _mm512_sub_epi8(codes, zero);
    for (int j = 0; j < 8; ++j, out += 4 * TILE) _mm512_store_si512(out, run[j]);
  }
}

}  // namespace
}  // namespace kernels
