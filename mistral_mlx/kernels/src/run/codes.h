// Keys and values as 8-bit codes, Float::q8 in contract.h.
#pragma once
#include "../contract.h"

namespace kernels {

// The Walsh-Hadamard transform of a head, divided by the root of its points so that no length changes: over stretches
// of the largest power of two that divides head_dim. Queries and keys turned alike have the scores that they had, but
// an outlier of a key is spread over all its elements, and no longer makes the steps of the others coarse (QuaRot,
// Ashkboos et al., 2024).
void turn_head(float* x, int64_t head_dim);

// Codes of a head and its scale, [head_dim + SCALE_BYTES]: scale = largest magnitude / 127, code = x / scale to nearest
// even. The scale is NaN where an element is not finite.
void encode(const float* x, int64_t head_dim, void* out);

}  // namespace kernels
