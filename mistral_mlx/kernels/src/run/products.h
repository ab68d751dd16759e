// Products on all threads, with what stands before and after them in a transformer: rounds the activations, cuts the
// outputs into pieces, calls the kernels in use. Knows nothing of MLX.
#pragma once
#include <optional>
#include <variant>
#include <vector>

#include "../contract.h"

namespace kernels {

using Matrix = std::variant<Packed, Panels, Dense>;

struct Norm {  // x / sqrt(mean(x^2) + eps) * weight, over a row
  const void* weight;
  Float type;
  float eps;
};

// y[i] = x W[i]^T for matrices of one n_in; all row-major and contiguous.
struct Products {
  enum Then { EACH, ADD, SWIGLU };
  std::vector<Matrix> weights;
  const float* x;  // [rows, n_in]
  int64_t rows;
  std::optional<Norm> norm;  // of x, before
  Then then;                 // ADD: y[0] = residual + x W[0]^T.  SWIGLU: y[0] = silu(x W[0]^T) * x W[1]^T
  const float* residual;     // [rows, n_out]
  std::vector<float*> y;     // [rows, n_out] each
  bool exact = false;        // round as after set_exact(true)
};
void compute(const Products& p);

inline int64_t inputs_of(const Matrix& w) {
  return std::visit([](const auto& known) { return known.n_in; }, w);
}
inline int64_t outputs_of(const Matrix& w) {
  return std::visit([](const auto& known) { return known.n_out; }, w);
}

// Whether activations are rounded to exact codes or, the default, to rotated ones; and whether weights of bfloat16 are
// multiplied by float32, even by a set that otherwise rounds activations to bfloat16. See contract.h.
void set_exact(bool on);
bool exact();

// Bytes per second that all threads read from memory together, the best of `repeats` runs over `bytes`.
double read_bandwidth(int64_t bytes, int repeats);

}  // namespace kernels
