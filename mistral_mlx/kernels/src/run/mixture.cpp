// A mixture of experts, see mixture.h. Rows are grouped by expert, so that its weights are read once for all of them.
#include "mixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pool.h"
#include "steps.h"
#include "workspace.h"

namespace kernels {
namespace {

// The rows that use an expert, in order, and the share that it has in each.
struct Share {
  int64_t row;
  float weight;
};
using Shares = std::vector<std::vector<Share>>;  // of each expert

// Adds a row to the experts with the `used` largest of its logits.
void choose(const float* logits, int64_t row, int64_t used, std::vector<int64_t>& order, Shares& shares) {
  for (size_t e = 0; e < order.size(); ++e) order[e] = static_cast<int64_t>(e);
  // Anything may come out where a logit is NaN, but a comparison that contradicts itself is undefined.
  const auto rank = [&](int64_t e) { return std::isnan(logits[e]) ? -INFINITY : logits[e]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rank(a) > rank(b); });
  float total = 0.0f;
  for (int64_t i = 0; i < used; ++i) total += std::exp(logits[order[i]] - logits[order[0]]);
  for (int64_t i = 0; i < used; ++i)
    shares[order[i]].push_back({row, std::exp(logits[order[i]] - logits[order[0]]) / total});
}

Shares shares_of(const float* logits, int64_t rows, int64_t experts, int64_t used) {
  Shares shares(experts);
  std::vector<int64_t> order(experts);
  for (int64_t row = 0; row < rows; ++row) choose(logits + row * experts, row, used, order, shares);
  return shares;
}

}  // namespace

void add_mixture(const Mixture& mixture, const Norm& norm, const float* x, int64_t rows, bool adds_residual,
                 float* out) {
  const int64_t experts = outputs_of(mixture.router), dim = inputs_of(mixture.router),
                hidden = outputs_of(mixture.experts[0].gate);
  float* normalized = reinterpret_cast<float*>(
      workspace<Slot::mixture>(rows * (3 * dim + hidden + experts) * static_cast<int64_t>(sizeof(float))));
  float *input = normalized + rows * dim, *result = input + rows * dim, *gated = result + rows * dim,
        *logits = gated + rows * hidden;
  rms_norm(x, norm, rows, dim, normalized);
  compute({{mixture.router}, normalized, rows, {}, Products::EACH, nullptr, {logits}, true});
  const Shares shares = shares_of(logits, rows, experts, mixture.used);
  if (adds_residual)
    std::memcpy(out, x, rows * dim * sizeof(float));
  else
    std::fill_n(out, rows * dim, 0.0f);
  for (int64_t e = 0; e < experts; ++e) {
    const std::vector<Share>& chosen = shares[e];
    const int64_t n = static_cast<int64_t>(chosen.size());
    if (n == 0) continue;
    const FeedForward& expert = mixture.experts[e];
    parallel(n,
             [&](int64_t i) { std::memcpy(input + i * dim, normalized + chosen[i].row * dim, dim * sizeof(float)); });
    compute({{expert.gate, expert.up}, input, n, {}, Products::SWIGLU, nullptr, {gated}});
    compute({{expert.down}, gated, n, {}, Products::EACH, nullptr, {result}});
    parallel(n, [&](int64_t i) {
      float* to = out + chosen[i].row * dim;
      const float* from = result + i * dim;
      for (int64_t k = 0; k < dim; ++k) to[k] += chosen[i].weight * from[k];
    });
  }
}

}  // namespace kernels
