// The processes that share a model, see ranks.h.
#include "ranks.h"

#include <algorithm>

#include <mlx/distributed/ops.h>
#include "operation.h"

namespace kernels {
namespace {

// Floats of one operation. MLX's ring cuts a larger one in two that run in opposite directions, and then each of its
// sockets has to send and to receive at a time. With less they can wait for data in the system, see group.py.
constexpr int64_t PART = (256 << 10) / static_cast<int64_t>(sizeof(float));

}  // namespace

void join_ranks(const std::string& backend) { mx::distributed::init(true, backend); }

// Every rank gets the floats of all others and adds them in the order of the ranks. A sum of MLX's would send fewer
// bytes over three ranks and more, but its order depends on how many floats there are: a token would have other last
// bits in a prompt than alone.
void sum_over_ranks(float* data, int64_t n) {
  const mx::distributed::Group group = mx::distributed::init();
  for (int64_t at = 0; at < n; at += PART) {
    const int64_t count = std::min(PART, n - at);
    const mx::array own(data + at, {static_cast<int>(count)}, mx::float32);
    const mx::array all = evaluated(mx::distributed::all_gather(own, group, cpu_stream()));  // [ranks * count]
    const float* from = all.data<float>();
    std::copy_n(from, count, data + at);
    for (int rank = 1; rank < group.size(); ++rank)
      for (int64_t i = 0; i < count; ++i) data[at + i] += from[rank * count + i];
  }
}

}  // namespace kernels
