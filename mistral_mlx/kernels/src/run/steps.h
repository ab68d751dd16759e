// The small steps between the products.
#pragma once
#include "products.h"

namespace kernels {

// Rows of `dim`, each normalized.
void rms_norm(const float* x, const Norm& norm, int64_t rows, int64_t dim, float* out);

// Pair i of a head, elements i and i + head_dim / 2, turns by position * frequencies[i] radians. In float64: the angles
// of far positions need more than 24 bits.
struct Rotation {
  std::vector<double> frequencies;  // [head_dim / 2]
  double factor = 1;                // multiplies every cosine and sine

  int64_t head_dim() const { return 2 * static_cast<int64_t>(frequencies.size()); }
  bool operator==(const Rotation&) const = default;
};

// What queries are multiplied by after their rotation, 1 + beta * ln(1 + floor(position / original)): 1 at the
// positions before `original`.
struct QueryScale {
  double beta = 0;
  int64_t original = 1;

  float at(int64_t position) const;
};

// Rotary positions on [batch, heads, n, head_dim], n of them; strides in elements, the last 1. The result may be x
// where its strides are the same.
void rotate(const float* x, const int64_t (&strides)[3], int64_t batch, int64_t heads,
            const std::vector<int64_t>& positions, const Rotation& rotation, const QueryScale& scale, float* out,
            const int64_t (&out_strides)[3]);

// As `type`, to nearest even.
void narrow(const float* x, Float type, int64_t n, void* out);

}  // namespace kernels
