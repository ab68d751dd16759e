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

}  // namespace
}  // namespace kernels
