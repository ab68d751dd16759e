// Attention on all threads.
#pragma once
#include "../contract.h"

namespace kernels {

// Attention over all heads and positions, see Attention in contract.h.
void attend_all(const Attention& a);

}  // namespace kernels
