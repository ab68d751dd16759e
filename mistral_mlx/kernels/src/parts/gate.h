// The gate of the feed-forward, SwiGLU (Shazeer, 2020), compiled once per set.
#pragma once
#include "vectors.h"

namespace kernels {
namespace {

// silu(gate) * up, into gate.
void silu_times(float* gate, const float* up, int64_t n) {
  const auto one = [](Vector x, Vector y) {
    const Vector e = exp_of((Vector)((Ints)x | INT32_MIN));  // of -|x|
    const Ints negative = x < Vector{};
    const Vector top = (Vector)(((Ints)e & negative) | ((Ints)(Vector{} + 1.0f) & ~negative));
    return x * (top / (e + 1.0f)) * y;
  };
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) put(gate + i, one(vector_at(gate + i), vector_at(up + i)));
  for (; i < n; ++i) gate[i] = one(Vector{} + gate[i], Vector{} + up[i])[0];
}

}  // namespace
}  // namespace kernels
