// NEON with products of four bytes (SDOT); compiled a second time with those of 2x8 by 8x2 bytes (SMMLA, of i8mm) for
// many rows. See contract.h for the layout and the contract.
#include <arm_neon.h>

#include "../parts/attention.h"
#include "../parts/dense.h"
#include "../parts/gate.h"
#include "../parts/search.h"
#include "neon/packed.h"

namespace kernels {

#ifdef __ARM_FEATURE_MATMUL_INT8
extern constinit const Kernels neon_i8mm{"neon-i8mm", 4,           CODE_BYTES, round_few, round_many, few,    many,
                                         false,       place_dense, dense,      attend,    silu_times, improve};
#else
extern constinit const Kernels neon{"neon-dotprod", 4,           CODE_BYTES, round_few, round_many, few,    many,
                                    false,          place_dense, dense,      attend,    silu_times, improve};
#endif

}  // namespace kernels
