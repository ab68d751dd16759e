// A mixture of experts (Jiang et al., 2024): of many feed-forwards, each token uses the few that a router chooses.
#pragma once
#include "products.h"

namespace kernels {

struct FeedForward {
  Matrix gate, up, down;  // down(silu(gate x) * up x)
};

struct Mixture {
  Matrix router;  // [experts, dim]
  std::vector<FeedForward> experts;
  int64_t used;  // by each token
};

// out = x + the sum over the chosen experts e of share(e) * e(norm(x)), for rows of x [rows, dim]; x may not be out.
// Chosen are those with the largest logits, of equal ones the first, and the shares are the softmax over them. The
// router is computed exactly, see set_exact: a rounded one would choose others where two are close. Without
// `adds_residual` x is not added.
void add_mixture(const Mixture& mixture, const Norm& norm, const float* x, int64_t rows, bool adds_residual,
                 float* out);

}  // namespace kernels
