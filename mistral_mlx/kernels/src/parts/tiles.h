// What the products of the vector kernels share, compiled once per set: a type for each float, and ends of rows.
#pragma once
#include "vectors.h"

namespace kernels {
namespace {

// Calls use<TYPE>().
template <typename Use>
auto with_type(Float type, Use&& use) {
  if (type == Float::f32) return use.template operator()<Float::f32>();
  if (type == Float::f16) return use.template operator()<Float::f16>();
  return use.template operator()<Float::bf16>();
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
