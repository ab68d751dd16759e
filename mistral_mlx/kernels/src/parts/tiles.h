// The loops that the vector kernels share, compiled once per set: rows abreast, and products in blocks of TILE outputs.
// A set defines the functions declared here; the arithmetic is theirs.
#pragma once
#include "widen.h"

namespace kernels {
namespace {

// Calls use<TYPE>().
template <typename Use>
auto with_type(Float type, Use&& use) {
  if (type == Float::f32) return use.template operator()<Float::f32>();
  if (type == Float::f16) return use.template operator()<Float::f16>();
  return use.template operator()<Float::bf16>();
}

// Calls use<R>(i) for R rows at once, then use<LAST>(i), until all `n` rows from `first` on are covered.
template <int R, int LAST = 1, typename Use>
void abreast(int64_t first, int64_t end, Use&& use) {
  int64_t i = first;
  for (; i + R <= end; i += R) use.template operator()<R>(i);
  for (; i < end; i += LAST) use.template operator()<LAST>(i);
}

// Dense weights [n0, n0 + TILE) by [k0, k1) as columns, [k1 - k0, TILE]; those from n1 on are 0.
void unpack(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block);
// y[row * y_stride + n] += all rows times the block, for n below n_left; sets it where k0 is 0.
void multiply(const float* block, const float* x, int64_t rows, int64_t x_stride, int64_t k0, int64_t k1, float* y,
              int64_t y_stride, int64_t n_left);

void dense_rows(const Dense& w, const float* x, int64_t rows, float* y, int64_t y_stride, int64_t n0, int64_t n1,
                void* scratch) {
  float* block = static_cast<float*>(scratch);
  for (int64_t n = n0; n < n1; n += TILE)
    for (int64_t k = 0; k < w.n_in; k += DENSE_DEPTH) {
      const int64_t k1 = k + DENSE_DEPTH < w.n_in ? k + DENSE_DEPTH : w.n_in;
      unpack(w, n, n1, k, k1, block);
      multiply(block, x, rows, w.n_in, k, k1, y + n, y_stride, n1 - n);
    }
}

// The unpack of Dense for sets that have nothing faster.
inline void unpack_one_by_one(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block) {
  for (int64_t i = 0; i < TILE; ++i)
    for (int64_t k = k0; k < k1; ++k)
      block[(k - k0) * TILE + i] = n0 + i < n1 ? load_float(w.weights, w.type, (n0 + i) * w.n_in + k) : 0.0f;
}

// The first n floats at p, zeros behind them.
inline Vector load_some(const float* p, int64_t n) {
  if (n >= WIDTH) return vector_at(p);
  float values[WIDTH] = {};
  for (int64_t i = 0; i < n; ++i) values[i] = p[i];
  return vector_at(values);
}

inline void store(float* out, int64_t n, Vector v) {
  if (n >= WIDTH) return put(out, v);
  for (int64_t i = 0; i < n; ++i) out[i] = v[i];
}

// The first n lanes of v, added to `out` or set.
inline void store(float* out, int64_t n, bool add, Vector v) {
  if (n >= WIDTH) return put(out, add ? v + vector_at(out) : v);
  float values[WIDTH];
  put(values, v);
  for (int64_t i = 0; i < n; ++i) out[i] = add ? values[i] + out[i] : values[i];
}

}  // namespace
}  // namespace kernels
