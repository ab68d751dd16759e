// AVX-512 with VNNI. See contract.h for the layout and the contract.
#include "../parts/attention.h"
#include "../parts/search.h"
#include "avx512/few.h"
#include "avx512/many.h"

namespace kernels {
namespace {

constexpr int AHEAD = 8;  // rows of weights that are asked for ahead, into the L2 cache

template <Float T>
void prefetch(const void* floats, int64_t i) {
  _mm_prefetch(static_cast<const char*>(floats) + i * (T == Float::f32 ? 4 : 2), _MM_HINT_T1);
}

template <Float T, int R>
void dense_few(const Dense& w, const float* x, float* y, int64_t n) {
  __m512 acc[R];
  for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
  for (int64_t k = 0; k < w.n_in; k += LANES) {
    const __mmask16 mask = first16(w.n_in - k);
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + k);
    for (int r = 0; r < R; ++r) {
      prefetch<T>(w.weights, (n + r + AHEAD) * w.n_in + k);
      acc[r] = _mm512_fmadd_ps(load<T>(w.weights, (n + r) * w.n_in + k, mask), v, acc[r]);
    }
  }
  for (int r = 0; r < R; ++r) y[n + r] = _mm512_reduce_add_ps(acc[r]);
}

template <Float T>
[[gnu::noinline]] void dense_few_all(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  abreast<4>(n0, n1, [&]<int R>(int64_t n) { dense_few<T, R>(w, x, y, n); });
}

void dense_row(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  with_type(w.type, [&]<Float T> { dense_few_all<T>(w, x, y, n0, n1); });
}

template <Float T>
void unpack_typed(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* out) {
  for (int64_t half = 0; half < TILE; half += LANES)
    for (int64_t k = k0; k < k1; k += LANES) {
      __m512i v[16];
      for (int64_t i = 0; i < LANES; ++i) {
        const int64_t n = n0 + half + i;
        v[i] = _mm512_castps_si512(n < n1 ? load<T>(w.weights, n * w.n_in + k, first16(k1 - k)) : _mm512_setzero_ps());
      }
      transpose(v);
      for (int64_t i = 0; i < LANES; ++i) _mm512_store_si512(out + (k - k0 + i) * TILE + half, v[i]);
    }
}

template <int M>
void dense_many(const float* block, const float* x, int64_t x_stride, int64_t k0, int64_t k1, float* y,
                int64_t y_stride, int64_t n_tile) {
  __m512 acc[M][2];
  for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm512_setzero_ps();
  for (int64_t k = k0; k < k1; ++k, block += TILE) {
    const __m512 b0 = _mm512_load_ps(block), b1 = _mm512_load_ps(block + LANES);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const __m512 a = _mm512_set1_ps(x[m * x_stride + k]);
      acc[m][0] = _mm512_fmadd_ps(b0, a, acc[m][0]);
      acc[m][1] = _mm512_fmadd_ps(b1, a, acc[m][1]);
    }
  }
  for (int j = 0; j < 2; ++j) {
    const __mmask16 mask = n_tile <= j * LANES ? __mmask16{0} : first16(n_tile - j * LANES);
    for (int m = 0; m < M; ++m) {
      float* out = y + m * y_stride + j * LANES;
      if (k0 > 0) acc[m][j] = _mm512_add_ps(acc[m][j], _mm512_maskz_loadu_ps(mask, out));
      _mm512_mask_storeu_ps(out, mask, acc[m][j]);
    }
  }
}

constexpr int ROWS = 12;  // 24 sums in registers
using DenseMany = void (*)(const float*, const float*, int64_t, int64_t, int64_t, float*, int64_t, int64_t);
constexpr DenseMany DENSE_MANY[ROWS + 1] = {nullptr,        dense_many<1>,  dense_many<2>, dense_many<3>, dense_many<4>,
                                            dense_many<5>,  dense_many<6>,  dense_many<7>, dense_many<8>, dense_many<9>,
                                            dense_many<10>, dense_many<11>, dense_many<12>};

void unpack(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block) {
  with_type(w.type, [&]<Float T> { unpack_typed<T>(w, n0, n1, k0, k1, block); });
}

void multiply(const float* block, const float* x, int64_t rows, int64_t x_stride, int64_t k0, int64_t k1, float* y,
              int64_t y_stride, int64_t n_left) {
  for (int64_t row = 0; row < rows; row += ROWS) {
    const int64_t left = rows - row;
    DENSE_MANY[left < ROWS ? left : ROWS](block, x + row * x_stride, x_stride, k0, k1, y + row * y_stride, y_stride,
                                          n_left);
  }
}

}  // namespace

extern constinit const Kernels avx512{"avx512-vnni", 8,         1,          round_few, round_many, few,
                                      many,          dense_row, dense_rows, attend,    improve};

}  // namespace kernels
