// The processes that share a model, see ranks.h.
#include "ranks.h"

#include <algorithm>
#include <cstring>

#include <mlx/distributed/ops.h>
#include "operation.h"

namespace kernels {
namespace {

// Of one operation, for each rank. MLX's ring cuts a larger one in two that run in opposite directions, and then each
// of its sockets has to send and to receive at a time. With less they can wait for data in the system, see group.py.
constexpr int64_t PART = (256 << 10) / static_cast<int64_t>(sizeof(float));

// Of so many floats every rank gets those of all others and adds them, in the order of the ranks: half the rounds of a
// sum, whose latency is what a small one costs. More floats are summed with fewer bytes.
constexpr int64_t FEW = 8192;

void sum_few(float* data, int64_t n, const mx::distributed::Group& group) {
  const mx::array own(data, {static_cast<int>(n)}, mx::float32);
  const mx::array all = evaluated(mx::distributed::all_gather(own, group, cpu_stream()));  // [ranks * n]
  const float* from = all.data<float>();
  std::copy_n(from, n, data);
  for (int rank = 1; rank < group.size(); ++rank)
    for (int64_t i = 0; i < n; ++i) data[i] += from[rank * n + i];
}

void sum_many(float* data, int64_t n, const mx::distributed::Group& group) {
  for (int64_t at = 0, most = PART * group.size(); at < n; at += most) {
    const int count = static_cast<int>(std::min(most, n - at));
    const mx::array part(data + at, {count}, mx::float32);
    const mx::array sum = evaluated(mx::distributed::all_sum(part, group, cpu_stream()));
    std::memcpy(data + at, sum.data<float>(), sum.nbytes());
  }
}

}  // namespace

void join_ranks(const std::string& backend) { mx::distributed::init(true, backend); }

void sum_over_ranks(float* data, int64_t n) {
  const mx::distributed::Group group = mx::distributed::init();
  if (n <= FEW)
    sum_few(data, n, group);
  else
    sum_many(data, n, group);
}

}  // namespace kernels
