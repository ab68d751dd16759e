// A block meets all rows, a few of them abreast. rows_times_block is defined before this file is included.
#pragma once
#include "block.h"

namespace kernels {
namespace {

using RowsTimesBlock = void (*)(Block&, int64_t, const Panels&, const Rounded&, int64_t, int64_t, int64_t, float*,
                                int64_t, int64_t);
template <int PLANES, size_t... I>
RowsTimesBlock times_block(int64_t rows, std::index_sequence<I...>) {
  static constexpr RowsTimesBlock FUNCTIONS[] = {rows_times_block<I + 1, PLANES>...};
  return FUNCTIONS[rows - 1];
}

// Adds all rows times the block, whose first output is y[0], to y; see rows_times_block.
template <int PLANES>
void meet_block(Block& block, const Panels& w, const Rounded& x, int64_t k0, int64_t k1, float* y, int64_t y_stride,
                int64_t n_left) {
  for (int64_t first = 0; first < TILE && first < n_left; first += OUTPUTS)
    for (int64_t row = 0, left = x.rows; left > 0;) {  // as evenly as it goes: 13 rows are 5 + 4 + 4
      const int64_t passes = (left + ROWS_ABREAST - 1) / ROWS_ABREAST, rows = (left + passes - 1) / passes;
      times_block<PLANES>(rows, std::make_index_sequence<ROWS_ABREAST>())(block, first, w, x, row, k0, k1, y + first,
                                                                          y_stride, n_left - first);
      row += rows, left -= rows;
    }
}

}  // namespace
}  // namespace kernels
