// The processes that share a model, each of which has a rank: MLX's own communication (mx.distributed).
#pragma once
#include <cstdint>
#include <string>

namespace kernels {

// Joins the group of MLX's `backend`, such as "ring". It waits for all ranks, and is what mx.distributed.init does;
// that one would keep all other threads of Python waiting. Throws std::runtime_error if there is no such group.
void join_ranks(const std::string& backend);

// Puts in the place of `n` floats their sum over all ranks, the same bits on each. Throws std::runtime_error if a rank
// is lost.
void sum_over_ranks(float* data, int64_t n);

}  // namespace kernels
