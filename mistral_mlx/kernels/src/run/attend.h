// Attention on all threads.
#pragma once
#include <vector>

#include "../contract.h"

namespace kernels {

// Attention over all heads and positions of each, see Attention in contract.h.
void attend_all(const std::vector<Attention>& all);

}  // namespace kernels
