// AVX-512 with VNNI; compiled again with AVX512-BF16, and with AMX. See contract.h for the layout and the contract.
#include "../parts/attention.h"
#include "../parts/dense.h"
#include "../parts/gate.h"
#include "../parts/search.h"
#include "avx512/packed.h"

namespace kernels {

#ifdef __AMX_INT8__
extern constinit const Kernels avx512_amx{"avx512-amx", 6,           1,     round_few, round_many, few,    many,
                                          true,         place_dense, dense, attend,    silu_times, improve};
#elif defined(__AVX512BF16__)
extern constinit const Kernels avx512_bf16{"avx512-bf16", 4,           1,     round_few, round_many, few,    many,
                                           true,          place_dense, dense, attend,    silu_times, improve};
#else
extern constinit const Kernels avx512{"avx512-vnni", 4,           1,     round_few, round_many, few,    many,
                                      false,         place_dense, dense, attend,    silu_times, improve};
#endif

}  // namespace kernels
