// Products with packed weights in 512 bits, see parts/few.h and parts/many.h. VNNI multiplies unsigned by signed bytes:
// codes of weights are unsigned for a few rows; for many rows those of activations are, by START. AMX takes signed
// bytes.
#pragma once
#include <immintrin.h>

#include "../../parts/vectors.h"

namespace kernels {
namespace {

constexpr int LARGEST_BITS_AS_BYTES = 8;
constexpr bool SIGNED_BYTES = false;
template <int BITS>
constexpr int PARTS_OF = BITS == 4 ? 2 : 1;
#ifdef __AMX_INT8__
constexpr int CODE_BYTES = 1, START = 0;
#else
constexpr int CODE_BYTES = 1, START = 128;
#endif
constexpr int ROWS_ABREAST = 6, VECTORS_ABREAST = 2;  // 12 integer and 12 float sums stay in registers

}  // namespace
}  // namespace kernels

#include "../../parts/few.h"
#ifdef __AMX_INT8__
#include "amx.h"
#else
#include "../../parts/dots.h"
#include "../../parts/passes.h"
#endif
#include "../../parts/many.h"
#include "../../parts/vnni.h"

namespace kernels {
namespace {

void add_dot(Ints& sum, Bytes unsigned_bytes, Ints signed_bytes) {
  sum = (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
}

}  // namespace
}  // namespace kernels
