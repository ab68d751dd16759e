// Keys and values as 8-bit codes, see codes.h. Compiled once, so that every set stores the same.
#include "codes.h"

#include <cmath>

#include "../parts/scalars.h"

namespace kernels {

void turn_head(float* x, int64_t head_dim) {
  const int64_t points = head_dim & -head_dim;
  const float factor = 1.0f / std::sqrt(static_cast<float>(points));
  for (float* run = x; run < x + head_dim; run += points) {
    for (int64_t half = 1; half < points; half *= 2)
      for (int64_t i = 0; i < points; i += 2 * half)
        for (int64_t j = i; j < i + half; ++j) {
          const float first = run[j], second = run[j + half];
          run[j] = first + second, run[j + half] = first - second;
        }
    for (int64_t i = 0; i < points; ++i) run[i] *= factor;
  }
}

void encode(const float* x, int64_t head_dim, void* out) {
  constexpr float LIMIT = 127.0f;
  uint32_t most = 0;  // on the bits: integers order as magnitudes do, NaN and infinity above all of them
  for (int64_t i = 0; i < head_dim; ++i) {
    const uint32_t magnitude = float_to_bits(x[i]) & INT32_MAX;
    most = magnitude > most ? magnitude : most;
  }
  const float largest = bits_to_float(most);
  const bool finite = most < 0x7f800000, tiny = largest < 1e-30f;  // 1 / scale of less would overflow
  const float inverse = finite && !tiny ? LIMIT / largest : 0.0f, scale = !finite ? bits_to_float(0x7fc00000)
                                                                          : tiny  ? 0.0f
                                                                                  : largest / LIMIT;
  int8_t* codes = static_cast<int8_t*>(out);
  for (int64_t i = 0; i < head_dim; ++i) {  // 1.5 * 2^23 pushes the fraction out of the mantissa
    const float shifted = (finite ? x[i] : 0.0f) * inverse + 12582912.0f;
    codes[i] = static_cast<int8_t>(float_to_bits(shifted) - 0x4b400000);
  }
  std::memcpy(codes + head_dim, &scale, SCALE_BYTES);
}

}  // namespace kernels
