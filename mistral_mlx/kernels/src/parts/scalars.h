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

static inline int64_t float_bytes(Float type) { return type == Float::f32 ? 4 : 2; }

// Rounds one group to codes of at most `limit`, to nearest even; returns the scale and adds up the codes. The largest
// magnitude is found on the bits: integers order as the floats do, and NaN and infinity are above all of them.
template <typename Code>
static inline float round_group(const float* x, int group, int limit, Code* codes, int32_t* sum) {
  int32_t most = 0, total = 0;
  for (int k = 0; k < group; ++k) {
    const int32_t magnitude = static_cast<int32_t>(float_to_bits(x[k]) & 0x7fffffff);
    most = magnitude > most ? magnitude : most;
  }
  const float largest = bits_to_float(static_cast<uint32_t>(most));
  const bool finite = most < 0x7f800000, tiny = largest < 1e-30f;  // 1 / scale of less would overflow
  const float inverse = finite && !tiny ? static_cast<float>(limit) / largest : 0.0f;
  for (int k = 0; k < group; ++k) {
    // 1.5 * 2^23 pushes the fraction out of the mantissa. 0 * infinity is NaN here, and masked below.
    const uint32_t shifted = float_to_bits(x[k] * inverse + 12582912.0f) - 0x4b400000u;
    const int32_t code = finite ? static_cast<int32_t>(shifted) : 0;
    codes[k] = static_cast<Code>(code);
    total += code;
  }
  *sum = total;
  if (!finite) return bits_to_float(0x7fc00000);
  return tiny ? 0.0f : largest / static_cast<float>(limit);
}

// Rounds a row group by group and clears the padding behind it.
template <typename Code>
static inline void round_row(const float* x, int64_t n_in, int group, int limit, Code* codes, float* scales,
                             float* sums) {
  const int64_t groups = n_in / group;
  for (int64_t g = 0; g < groups; ++g) {
    int32_t sum;
    scales[g] = round_group(x + g * group, group, limit, codes + g * group, &sum);
    sums[g] = scales[g] * static_cast<float>(sum);
  }
  for (int64_t g = groups; g < round_up(groups, GROUP_BLOCK); ++g) scales[g] = sums[g] = 0.0f;
  std::memset(codes + n_in, 0, (round_up(n_in, BLOCK) - n_in) * sizeof(Code));
}

// Writes a 16-bit value as two bytes, 256 * high + low.
static inline void split(int value, int8_t* high, int8_t* low) {
  *low = static_cast<int8_t>(value);
  *high = static_cast<int8_t>((value - *low) >> 8);
}

static inline void round_one_of_many(const float* x, const Packed& w, const Rows& out, int64_t row) {
  int8_t* codes = out.codes + row * out.planes * out.stride;
  float* scales = out.scales + row * out.group_stride;
  float* sums = out.sums + row * out.group_stride;
  if (out.planes == 1) return round_row(x, w.n_in, w.group, COARSE_LIMIT, codes, scales, sums);
  for (int64_t k = 0; k < w.n_in; k += BLOCK) {
    int16_t fine[BLOCK];
    const int64_t n = w.n_in - k < BLOCK ? w.n_in - k : BLOCK;
    float block_scales[GROUP_BLOCK], block_sums[GROUP_BLOCK];
    round_row(x + k, n, w.group, FINE_LIMIT, fine, block_scales, block_sums);
    for (int64_t i = 0; i < BLOCK; ++i) split(fine[i], codes + k + i, codes + out.stride + k + i);
    std::memcpy(scales + k / w.group, block_scales, n / w.group * sizeof(float));
    std::memcpy(sums + k / w.group, block_sums, n / w.group * sizeof(float));
  }
}

// 2 * n codes as 16 bits, first those of even number, then the odd ones.
static inline void arrange_pairs(const int16_t* codes, int n, int8_t* out) {
  for (int i = 0; i < 2 * n; ++i) std::memcpy(out + 2 * (i % 2 * n + i / 2), codes + i, 2);
}

// A single row as two planes in vectors of BYTES. 4 bits, per 2 BYTES inputs: [high of even | high of odd | low | low];
// 8 bits, per BYTES inputs: [high | low]. Other widths, per BYTES inputs: [even | odd], 16 bits each.
template <int BYTES>
static inline void round_in_planes(const float* x, const Packed& w, const Fine& out) {
  const int step = w.bits == 4 ? 2 : 1;
  for (int64_t k = 0; k < w.n_in; k += BLOCK) {
    int16_t codes[BLOCK];
    float scales[GROUP_BLOCK], sums[GROUP_BLOCK];
    const int64_t n = w.n_in - k < BLOCK ? w.n_in - k : BLOCK;
    round_row(x + k, n, w.group, row_limit(w.bits), codes, scales, sums);
    std::memcpy(out.scales + k / w.group, scales, n / w.group * sizeof(float));
    std::memcpy(out.sums + k / w.group, sums, n / w.group * sizeof(float));
    int8_t* planes = out.planes + 2 * k;
    for (int i = 0; i < BLOCK; i += BYTES * step, planes += 2 * BYTES * step)
      if (w.bits != 4 && w.bits != 8)
        arrange_pairs(codes + i, BYTES / 2, planes);
      else
        for (int j = 0; j < BYTES * step; ++j) {
          int8_t* high = planes + j % step * BYTES + j / step;
          split(codes[i + j], high, high + step * BYTES);
        }
  }
  for (int64_t g = w.groups(); g < round_up(w.groups(), GROUP_BLOCK); ++g) out.scales[g] = out.sums[g] = 0.0f;
}

}  // namespace kernels
