// Products with packed weights in 256 bits, see parts/few.h and parts/many.h. AVX-VNNI multiplies bytes. Without it
// `maddubs` does, but it saturates: a few rows sum up as many products in 16 bits as fit, and codes of 8 bits become
// words; many rows, whose codes are rotated, take words of 16 bits too.
#pragma once
#include <immintrin.h>

#include "../../parts/vectors.h"

namespace kernels {
namespace {

template <int>
constexpr int PARTS_OF = 1;
constexpr bool SIGNED_BYTES = false;
constexpr int ROWS_ABREAST = 6, VECTORS_ABREAST = 2;
#ifdef __AVXVNNI__
constexpr int LARGEST_BITS_AS_BYTES = 8, CODE_BYTES = 1, START = 128;
#else
constexpr int LARGEST_BITS_AS_BYTES = 6, CODE_BYTES = 2, START = 0;
#endif

}  // namespace
}  // namespace kernels

#include "../../parts/dots.h"
#include "../../parts/few.h"
#include "../../parts/many.h"
#include "../../parts/passes.h"
#ifdef __AVXVNNI__
#include "../../parts/vnni.h"
#endif

namespace kernels {
namespace {

#ifdef __AVXVNNI__
void add_dot(Ints& sum, Bytes unsigned_bytes, Ints signed_bytes) {
  sum = (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)unsigned_bytes, (__m256i)signed_bytes);
}
#else
// Two products of 16 bits, in each lane.
inline Ints dot_words(Ints a, Ints b) { return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b); }

// Pairs of products of an unsigned and a signed byte, in 16 bits.
inline Halves dot_bytes(Bytes unsigned_bytes, Ints signed_bytes) {
  return (Halves)_mm256_maddubs_epi16((__m256i)unsigned_bytes, (__m256i)signed_bytes);
}

template <int BITS, int S>
void add_run(const Bytes (&codes)[RUN_BYTES], const uint8_t* const (&x)[S], SumsOf<BITS> (&sums)[S]) {
  if constexpr (BITS == 8) {
#pragma GCC unroll 8
    for (int v = 0; v < RUN_BYTES; ++v)
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) {
        sums[s].low[0] += dot_words((Ints)((Halves)codes[v] & 255), all_words(x[s] + 8 * v));
        sums[s].low[0] += dot_words((Ints)((Halves)codes[v] >> 8), all_words(x[s] + 8 * v + 4));
      }
  } else {
    constexpr int TOGETHER = BITS <= 4 ? 8 : BITS == 5 ? 4 : 2;  // times 2 * 128 * (2^BITS - 1) fit 16 bits
    const Ints ones = Ints{} + 0x00010001;
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s)
#pragma GCC unroll 4
      for (int v = 0; v < RUN_BYTES; v += TOGETHER) {
        Halves high = {}, low = {};
#pragma GCC unroll 8
        for (int i = v; i < v + TOGETHER; ++i) {
          high += dot_bytes(codes[i], all_words(x[s] + 8 * i));
          low += dot_bytes(codes[i], all_words(x[s] + 8 * i + 4));
        }
        sums[s].high[0] += dot_words((Ints)high, ones);
        sums[s].low[0] += dot_words((Ints)low, ones);
      }
  }
}

void add_products(Ints& sum, Ints activations, Ints codes) { sum += dot_words(activations, codes); }
#endif

}  // namespace
}  // namespace kernels
