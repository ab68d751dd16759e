// AVX2 with FMA and F16C; compiled a second time with AVX-VNNI. See contract.h for the layout and the contract.
#include <immintrin.h>

#include "../parts/attention.h"
#include "../parts/search.h"
#include "avx2/packed.h"

namespace kernels {
namespace {

constexpr int LANES = 8;

template <Float T>
void dense_row_of(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; ++n) {
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t k = 0; k < w.n_in; k += LANES) {
      __m256& sum = acc[k / LANES % 2];
      sum = _mm256_fmadd_ps(load<T>(w.weights, n * w.n_in + k, w.n_in - k), load<Float::f32>(x, k, w.n_in - k), sum);
    }
    y[n] = sum_of((Vector)_mm256_add_ps(acc[0], acc[1]));
  }
}

void dense_row(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  with_type(w.type, [&]<Float T> { dense_row_of<T>(w, x, y, n0, n1); });
}

template <int M>
void dense_many(const float* block, int64_t half, const float* x, int64_t x_stride, int64_t k0, int64_t k1, float* y,
                int64_t y_stride, int64_t n_left) {
  __m256 acc[M][2];
  for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  for (int64_t k = k0; k < k1; ++k) {
    const float* at = block + (k - k0) * TILE + half;
    const __m256 b0 = _mm256_load_ps(at), b1 = _mm256_load_ps(at + LANES);
    for (int m = 0; m < M; ++m) {
      const __m256 a = _mm256_set1_ps(x[m * x_stride + k]);
      acc[m][0] = _mm256_fmadd_ps(b0, a, acc[m][0]);
      acc[m][1] = _mm256_fmadd_ps(b1, a, acc[m][1]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int j = 0; j < 2; ++j)
      if (n_left > j * LANES) store(y + m * y_stride + j * LANES, n_left - j * LANES, k0 > 0, (Vector)acc[m][j]);
}

void unpack(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block) {
  unpack_one_by_one(w, n0, n1, k0, k1, block);
}

void multiply(const float* block, const float* x, int64_t rows, int64_t x_stride, int64_t k0, int64_t k1, float* y,
              int64_t y_stride, int64_t n_left) {
  for (int64_t half = 0; half < TILE && half < n_left; half += 2 * LANES)
    abreast<4>(0, rows, [&]<int M>(int64_t row) {
      dense_many<M>(block, half, x + row * x_stride, x_stride, k0, k1, y + row * y_stride + half, y_stride,
                    n_left - half);
    });
}

}  // namespace

#ifdef __AVXVNNI__
extern constinit const Kernels avx_vnni{"avx-vnni", 8,         CODE_BYTES, round_few, round_many, few,
                                        many,       dense_row, dense_rows, attend,    improve};
#else
extern constinit const Kernels avx2{"avx2", 8,         CODE_BYTES, round_few, round_many, few,
                                    many,   dense_row, dense_rows, attend,    improve};
#endif

}  // namespace kernels
