// Products on all threads: rounds the activations, cuts the outputs into pieces, calls the kernels in use.
#pragma once
#include "kernels.h"

namespace kernels {

// y[rows, n_out] = x[rows, n_in] W^T, all row-major and contiguous.
void multiply(const Packed& w, const float* x, int64_t rows, float* y);
void multiply(const Dense& w, const float* x, int64_t rows, float* y);

// Attention on all threads, over heads and positions.
void attend_all(const Attention& a);

// x / sqrt(mean(x^2) + eps) * weight for rows of `dim`.
void rms_norm(const float* x, const void* weight, Float type, float eps, int64_t rows, int64_t dim, float* out);

// Rotary positions offset, offset + 1, ... on [batch, heads, n, head_dim], halves paired; strides in elements, the last 1.
void rotate(const float* x, const int64_t (&strides)[3], int64_t batch, int64_t heads, int64_t n, int64_t head_dim, double base,
            int64_t offset, float* out);

// silu(gate) * up
void silu_times(const float* gate, const float* up, int64_t n, float* out);

// How finely many rows are rounded: 2 planes (the default) or 1, see kernels.h.
void set_planes(int n);

// Bytes per second that all threads read from memory together, the best of `repeats` runs over `bytes`.
double read_bandwidth(int64_t bytes, int repeats);

}  // namespace kernels
