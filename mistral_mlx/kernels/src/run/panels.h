// Copies of weights as the kernels read them fastest: packed ones in panels, in memory with large pages.
#pragma once
#include <memory>

#include "products.h"

namespace kernels {

// Panels of the outputs [n0, n1) of packed weights, n0 a multiple of PANEL, into `out`.
void make_panels(const Packed& w, int64_t n0, int64_t n1, uint8_t* out);

// Memory in pages of 2 MB where the system has them, aligned to one. Throws std::bad_alloc.
std::shared_ptr<uint8_t> large_memory(int64_t bytes);

// The shape of weights without their data.
inline Panels shape_of(const Packed& w) { return {nullptr, w.type, w.bits, w.group, w.n_out, w.n_in}; }

// Copies of matrices, made on all threads, and the memory that they lie in. Throws std::bad_alloc.
struct Copies {
  std::vector<Matrix> matrices;
  std::shared_ptr<void> memory;
};
Copies copied(const std::vector<Matrix>& matrices);

// One row of Packed or Dense weights as float32. Throws std::out_of_range.
void unpack_row(const Matrix& w, int64_t row, float* out);

}  // namespace kernels
