// Rows times a block, word by word.
#pragma once
#include "block.h"

namespace kernels {
namespace {

// Adds M rows times OUTPUTS outputs of the block, from `first` on, to y; k0 is where the block begins: y is set where
// that is 0. Every loop over the sums is unrolled, or they would not stay in registers.
template <int M, int PLANES>
void rows_times_block(Block& block, int64_t first, const Panels& w, const Rounded& x, int64_t row, int64_t k0,
                      int64_t k1, float* y, int64_t y_stride, int64_t n_left) {
  constexpr int J = VECTORS_ABREAST;
  Vector sum[M][J];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j)
      sum[m][j] = k0 == 0 ? Vector{} : load_some(y + (row + m) * y_stride + j * WIDTH, n_left - j * WIDTH);
  const int64_t stride = x.stride, plane_stride = plane_of(w), n_groups = (k1 - k0) / w.group;
  const uint8_t *codes = x.codes + row * stride + k0 * CODE_BYTES, *at = block.codes + WORD * first;
  int64_t of_group = row * x.group_stride + k0 / w.group;
  for (int64_t g = 0; g < n_groups; ++g, ++of_group) {
    Ints acc[M][J];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j)
        acc[m][j] = START == 0 ? Ints{} : ints_at(block.starts + g * TILE + first + j * WIDTH);
#pragma GCC unroll 2
    for (int plane = 0; plane < PLANES; ++plane) {
      const uint8_t *code = codes + plane * plane_stride, *b = at;
      for (const uint8_t* end = code + w.group * CODE_BYTES; code < end; code += 4, b += 4 * TILE) {
        Ints words[J];
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) words[j] = ints_at(b + 4 * j * WIDTH);
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
          const Ints a = all_words(code + m * stride);
#pragma GCC unroll 4
          for (int j = 0; j < J; ++j) add_products(acc[m][j], a, words[j]);
        }
      }
      if (plane + 1 < PLANES)
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
          for (int j = 0; j < J; ++j) acc[m][j] <<= 8;
    }
    block.upcoming.ask();
    codes += w.group * CODE_BYTES;
    at += w.group * CODE_BYTES * TILE;
    const float *scales = block.scales + g * TILE + first, *biases = block.biases + g * TILE + first;
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const Vector x_scale = all(x.scales[of_group + m * x.group_stride]);
      const Vector x_sum = all(x.sums[of_group + m * x.group_stride]);
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) {
        const Vector dot = __builtin_convertvector(acc[m][j], Vector);
        sum[m][j] = multiply_add(dot, vector_at(scales + j * WIDTH) * x_scale, sum[m][j]);
        sum[m][j] = multiply_add(vector_at(biases + j * WIDTH), x_sum, sum[m][j]);
      }
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) store(y + (row + m) * y_stride + j * WIDTH, n_left - j * WIDTH, sum[m][j]);
}

}  // namespace
}  // namespace kernels
