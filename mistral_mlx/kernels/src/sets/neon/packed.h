// Products with packed weights in 128 bits, see parts/few.h and parts/many.h. Both products of bytes, SDOT and SMMLA,
// take signed ones: many rows as they are, a few rows with codes of 8 bits less 128.
#pragma once
#include <arm_neon.h>

#include "../../parts/vectors.h"

namespace kernels {
namespace {

constexpr int LARGEST_BITS_AS_BYTES = 8;
template <int>
constexpr int PARTS_OF = 1;
constexpr bool SIGNED_BYTES = true;
constexpr int CODE_BYTES = 1, START = 0;
constexpr int ROWS_ABREAST = 4, VECTORS_ABREAST = 4;

}  // namespace
}  // namespace kernels

#include "../../parts/few.h"
#ifdef __ARM_FEATURE_MATMUL_INT8
#include "smmla.h"
#else
#include "../../parts/dots.h"
#endif
#include "../../parts/passes.h"

#include "../../parts/many.h"

namespace kernels {
namespace {

template <int BITS, int S>
void add_run(const Bytes (&codes)[RUN_BYTES], const uint8_t* const (&x)[S], SumsOf<BITS> (&sums)[S]) {
#pragma GCC unroll 8
  for (int v = 0; v < RUN_BYTES; ++v) {
    const int8x16_t signed_codes = (int8x16_t)(BITS == 8 ? codes[v] ^ 128 : codes[v]);
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const int8x16_t both = vreinterpretq_s8_s64(vld1q_dup_s64(reinterpret_cast<const int64_t*>(x[s] + 8 * v)));
      sums[s].high[0] = (Ints)vdotq_laneq_s32((int32x4_t)sums[s].high[0], signed_codes, both, 0);
      sums[s].low[0] = (Ints)vdotq_laneq_s32((int32x4_t)sums[s].low[0], signed_codes, both, 1);
    }
  }
}

void add_products(Ints& sum, Ints activations, Ints codes) {
  sum = (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)codes, (int8x16_t)activations);
}

}  // namespace
}  // namespace kernels
