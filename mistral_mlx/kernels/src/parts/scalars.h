// Scalar helpers of the kernel files. Everything is `static`: these are compiled once per instruction set, and the
// linker must never pick one set's copy for another file.
#pragma once
#include <cstring>

#include "../contract.h"

namespace kernels {

static inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// Subnormals come out right: the exponent is rebased by a multiplication.
static inline float half_to_float(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13, sign = static_cast<uint32_t>(half & 0x8000)
                                                                                << 16;
  const uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;  // infinity and NaN keep their mantissa
  return bits_to_float(float_to_bits(bits_to_float(magnitude) * 0x1p112f) | special | sign);
}

// To nearest even; infinity from 65520 on.
static inline uint16_t float_to_half(float value) {
  const uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000)  // below 2^-14: a float of that exponent has the half's spacing as its own
    return static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000));
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

static inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float load_float(const void* p, Float type, int64_t i) {
  if (type == Float::f32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(p) + 4 * i, 4);
    return value;
  }
  if (type == Float::q8) return static_cast<const int8_t*>(p)[i];
  uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(p) + 2 * i, 2);
  return type == Float::f16 ? half_to_float(bits) : bits_to_float(static_cast<uint32_t>(bits) << 16);
}

// 11 of the 24 bits remain, and fewer below 2^-14: adding 2^13 times the power of two below x pushes the rest out.
static inline float round_to_half(float x) {
  const uint32_t bits = float_to_bits(x), sign = bits & 0x80000000u, magnitude = bits ^ sign;
  const uint32_t power = magnitude & 0x7f800000u, least = 0x38800000u;
  const float push = bits_to_float((power > least ? power : least) + (13u << 23));
  const float rounded = (bits_to_float(magnitude) + push) - push;
  const uint32_t result = magnitude >= 0x477ff000u ? 0x7f800000u : float_to_bits(rounded);  // 65520 and more
  return bits_to_float((magnitude > 0x7f800000u ? magnitude : result) | sign);
}

static inline uint32_t rounded_bfloat(uint32_t bits) {
  const uint32_t rounded = bits + (bits >> 16 & 1) + 0x7fff;
  return (bits & 0x7fffffff) > 0x7f800000u ? 0x7fc00000u : rounded & 0xffff0000u;
}

static inline float round_to(float x, Float type) {
  if (type == Float::f16) return round_to_half(x);
  return type == Float::bf16 ? bits_to_float(rounded_bfloat(float_to_bits(x))) : x;
}

// See Kernels.
static inline void place_dense(const float* x, int64_t n_in, Float type, void* out) {
  std::memset(out, 0, dense_stride(n_in, type) * float_bytes(type));
  if (type == Float::f32) return static_cast<void>(std::memcpy(out, x, n_in * sizeof(float)));
  uint16_t* rounded = static_cast<uint16_t*>(out);
  for (int64_t k = 0; k < n_in; ++k) rounded[k] = float_to_bfloat(x[k]);
}

}  // namespace kernels
