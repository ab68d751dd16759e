// AVX-512 with VNNI; compiled a second time with AVX512-BF16. See contract.h for the layout and the contract.
#include "../parts/attention.h"
#include "../parts/dense.h"
#include "../parts/search.h"
#include "avx512/packed.h"

namespace kernels {

#ifdef __AVX512BF16__
extern constinit const Kernels avx512_bf16{"avx512-bf16", 8,    1,           round_few, round_many, few,
                                           many,          true, place_dense, dense,     attend,     improve};
#else
extern constinit const Kernels avx512{"avx512-vnni", 8,     1,           round_few, round_many, few,
                                      many,          false, place_dense, dense,     attend,     improve};
#endif

}  // namespace kernels
