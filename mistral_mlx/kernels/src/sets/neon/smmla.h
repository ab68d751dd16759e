// Rows times a block with SMMLA, of i8mm.
#pragma once
#include "../../parts/block.h"

namespace kernels {
namespace {

// SMMLA multiplies two rows by two outputs: a vector of sums has the two outputs of the first row, then those of the
// second one. A last row without a second one is multiplied twice.
template <int M, int PLANES>
void rows_times_block(Block& block, int64_t first, const Panels& w, const Rounded& x, int64_t row, int64_t k0,
                      int64_t k1, float* y, int64_t y_stride, int64_t n_left) {
  constexpr int A = (M + 1) / 2, B = OUTPUTS / 2;
  const auto row_of = [=](int i) { return row + (i < M ? i : M - 1); };
  float32x4_t sum[A][B];
  for (int i = 0; i < A; ++i)
    for (int j = 0; j < B; ++j) {
      float start[4] = {};
      for (int l = 0; l < 4 && k0 > 0; ++l)
        if (2 * j + l % 2 < n_left) start[l] = y[row_of(2 * i + l / 2) * y_stride + 2 * j + l % 2];
      sum[i][j] = vld1q_f32(start);
    }
  const int64_t n_groups = (k1 - k0) / w.group;
  for (int64_t g = 0; g < n_groups; ++g) {
    int32x4_t acc[A][B] = {};
    for (int plane = 0; plane < PLANES; ++plane) {
      const uint8_t* at = block.codes + g * w.group * TILE + WORD * first;
      const uint8_t* code = x.codes + plane * plane_of(w) + k0 + g * w.group;
      if (plane > 0)
        for (auto& line : acc)
          for (int32x4_t& v : line) v = vshlq_n_s32(v, 8);
      for (int k = 0; k < w.group; k += WORD, at += WORD * TILE, code += WORD) {
        int8x16_t a[A];
        for (int i = 0; i < A; ++i)
          a[i] = vreinterpretq_s8_u8(
              vcombine_u8(vld1_u8(code + row_of(2 * i) * x.stride), vld1_u8(code + row_of(2 * i + 1) * x.stride)));
        for (int j = 0; j < B; ++j) {
          const int8x16_t b = vreinterpretq_s8_u8(vld1q_u8(at + 16 * j));
          for (int i = 0; i < A; ++i) acc[i][j] = vmmlaq_s32(acc[i][j], a[i], b);
        }
      }
    }
    block.upcoming.ask();
    const float *scales = block.scales + g * TILE + first, *biases = block.biases + g * TILE + first;
    for (int i = 0; i < A; ++i) {
      const int64_t one = row_of(2 * i) * x.group_stride + k0 / w.group + g,
                    two = row_of(2 * i + 1) * x.group_stride + k0 / w.group + g;
      const float32x4_t x_scale = vcombine_f32(vdup_n_f32(x.scales[one]), vdup_n_f32(x.scales[two])),
                        x_sum = vcombine_f32(vdup_n_f32(x.sums[one]), vdup_n_f32(x.sums[two]));
      for (int j = 0; j < B; ++j) {
        const float32x2_t scale = vld1_f32(scales + 2 * j), bias = vld1_f32(biases + 2 * j);
        sum[i][j] = vfmaq_f32(sum[i][j], vcvtq_f32_s32(acc[i][j]), vmulq_f32(vcombine_f32(scale, scale), x_scale));
        sum[i][j] = vfmaq_f32(sum[i][j], vcombine_f32(bias, bias), x_sum);
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int64_t n = 0; n < OUTPUTS && n < n_left; ++n)
      y[(row + m) * y_stride + n] = sum[m / 2][n / 2][m % 2 * 2 + n % 2];
}

}  // namespace
}  // namespace kernels
