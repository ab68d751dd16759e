// NEON with products of four bytes (SDOT); compiled a second time with those of 2x8 by 8x2 bytes (SMMLA, of i8mm) for
// many rows. See contract.h for the layout and the contract.
#include <arm_neon.h>

#include "../parts/attention.h"
#include "../parts/search.h"
#include "neon/packed.h"

namespace kernels {
namespace {

constexpr int LANES = 4;
constexpr int WIDE = 16;  // outputs that dense_rows computes at a time

template <Float T>
void dense_row_of(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; ++n) {
    float32x4_t acc[4] = {};
    const auto add = [&](int i, int64_t k, int64_t left) {
      acc[i] = vfmaq_f32(acc[i], load<T>(w.weights, n * w.n_in + k, left), load<Float::f32>(x, k, left));
    };
    int64_t k = 0;
    for (; k + 4 * LANES <= w.n_in; k += 4 * LANES)
      for (int i = 0; i < 4; ++i) add(i, k + i * LANES, LANES);
    for (int i = 0; k < w.n_in; ++i, k += LANES) add(i, k, w.n_in - k);
    y[n] = vaddvq_f32(vaddq_f32(vaddq_f32(acc[0], acc[1]), vaddq_f32(acc[2], acc[3])));
  }
}

void dense_row(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  with_type(w.type, [&]<Float T> { dense_row_of<T>(w, x, y, n0, n1); });
}

template <int M>
void dense_many(const float* block, const float* x, int64_t x_stride, int64_t k0, int64_t k1, float* y,
                int64_t y_stride, int64_t n_left) {
  float32x4_t acc[M][WIDE / LANES] = {};
  for (int64_t k = k0; k < k1; ++k, block += TILE)
    for (int j = 0; j < WIDE / LANES; ++j) {
      const float32x4_t b = vld1q_f32(block + j * LANES);
      for (int m = 0; m < M; ++m) acc[m][j] = vfmaq_n_f32(acc[m][j], b, x[m * x_stride + k]);
    }
  for (int m = 0; m < M; ++m)
    for (int j = 0; j * LANES < WIDE && j * LANES < n_left; ++j)
      store(y + m * y_stride + j * LANES, n_left - j * LANES, k0 > 0, (Vector)acc[m][j]);
}

void unpack(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block) {
  unpack_one_by_one(w, n0, n1, k0, k1, block);
}

void multiply(const float* block, const float* x, int64_t rows, int64_t x_stride, int64_t k0, int64_t k1, float* y,
              int64_t y_stride, int64_t n_left) {
  for (int64_t half = 0; half < TILE && half < n_left; half += WIDE)
    abreast<4>(0, rows, [&]<int M>(int64_t row) {
      dense_many<M>(block + half, x + row * x_stride, x_stride, k0, k1, y + row * y_stride + half, y_stride,
                    n_left - half);
    });
}

}  // namespace

#ifdef __ARM_FEATURE_MATMUL_INT8
extern constinit const Kernels neon_i8mm{"neon-i8mm", 8,         CODE_BYTES, round_few, round_many, few,
                                         many,        dense_row, dense_rows, attend,    improve};
#else
extern constinit const Kernels neon{"neon-dotprod", 8,         CODE_BYTES, round_few, round_many, few,
                                    many,           dense_row, dense_rows, attend,    improve};
#endif

}  // namespace kernels
