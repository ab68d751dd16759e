// AVX2 with FMA and F16C; compiled a second time with AVX-VNNI. See contract.h for the layout and the contract.
#include <immintrin.h>

#include "../parts/attention.h"
#include "../parts/dense.h"
#include "../parts/gate.h"
#include "../parts/search.h"
#include "avx2/packed.h"

namespace kernels {

#ifdef __AVXVNNI__
extern constinit const Kernels avx_vnni{"avx-vnni", 4,           CODE_BYTES, round_few, round_many, few,    many,
                                        false,      place_dense, dense,      attend,    silu_times, improve};
#else
extern constinit const Kernels avx2{"avx2", 4,           CODE_BYTES, round_few, round_many, few,    many,
                                    false,  place_dense, dense,      attend,    silu_times, improve};
#endif

}  // namespace kernels
