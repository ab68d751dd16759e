// Products with packed weights in 128 bits, see parts/few.h and parts/many.h. Both products of bytes, SDOT and SMMLA,
// take signed ones: codes are taken less the zero code, and activations as they are.
#pragma once
#include <arm_neon.h>

#include "../../parts/few.h"

namespace kernels {
namespace {

constexpr int CODE_BYTES = 1, START = 0;
constexpr int ROWS_ABREAST = 4, VECTORS_ABREAST = 4;
constexpr int64_t UNPACKED_4_BITS = 32, UNPACKED_BITS = 32;

// 4 floats from element i on; those from `n` on are 0 and not read.
template <Float T>
float32x4_t load(const void* p, int64_t i, int64_t n) {
  constexpr int64_t SIZE = T == Float::f32 ? 4 : 2;
  const uint8_t* at = static_cast<const uint8_t*>(p) + i * SIZE;
  uint8_t copy[WIDTH * 4] = {};
  if (n < WIDTH) {
    std::memcpy(copy, at, n > 0 ? n * SIZE : 0);
    at = copy;
  }
  if constexpr (T == Float::f32) return vreinterpretq_f32_u8(vld1q_u8(at));
  const uint16x4_t half = vreinterpret_u16_u8(vld1_u8(at));
  if constexpr (T == Float::f16) return vcvt_f32_f16(vreinterpret_f16_u16(half));
  return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

int32x4_t dot(int32x4_t sum, int8x16_t codes, const uint8_t* x) {
  return vdotq_s32(sum, codes, vreinterpretq_s8_u8(vld1q_u8(x)));
}
int8x16_t low_halves(uint8x16_t b) { return vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15))); }
int8x16_t high_halves(uint8x16_t b) { return vreinterpretq_s8_u8(vshrq_n_u8(b, 4)); }

// Turns rows of 4 words into columns.
void transpose(float32x4_t (&v)[4]) {
  const float32x4_t a = vzip1q_f32(v[0], v[2]), b = vzip2q_f32(v[0], v[2]);
  const float32x4_t c = vzip1q_f32(v[1], v[3]), d = vzip2q_f32(v[1], v[3]);
  v[0] = vzip1q_f32(a, c), v[1] = vzip2q_f32(a, c), v[2] = vzip1q_f32(b, d), v[3] = vzip2q_f32(b, d);
}

template <Float T>
void lines_of_type(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases,
                   int64_t stride) {
  const float32x4_t zero = vdupq_n_f32(static_cast<float>(w.zero()));
  for (int64_t part = 0; part < 16; part += WIDTH) {
    float32x4_t s[4], b[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t left = i < n_outputs ? w.groups() - g - part : 0,
                    at = left > 0 ? (n + i) * w.groups() + g + part : 0;
      s[i] = load<T>(w.scales, at, left);
      b[i] = load<T>(w.biases, at, left);
    }
    transpose(s);
    transpose(b);
    for (int64_t i = 0; i < 4; ++i) {
      vst1q_f32(scales + (part + i) * stride, s[i]);
      vst1q_f32(biases + (part + i) * stride, vfmaq_f32(b[i], zero, s[i]));
    }
  }
}

void lines(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases, int64_t stride) {
  with_type(w.type, [&]<Float T> { lines_of_type<T>(w, n, n_outputs, g, scales, biases, stride); });
}

// Few rows. Form::bytes, of 4 and 8 bits: activations are two planes of bytes, 256 * high + low. Of 4 bits and 32
// inputs these are: high of the even inputs, of the odd ones, low of the even ones, of the odd ones, 16 bytes each; of
// 8 bits and 16 inputs: high, low. Form::words, of other bits and 16 inputs: the even ones, the odd ones, 16 bits each.
void arrange(const int16_t* codes, int bits, uint8_t* out) {
  const int step = bits == 4 ? 2 : 1, inputs = 16 * step;
  for (int64_t i = 0; i < BLOCK; ++i) {
    const int64_t base = 2 * (i / inputs * inputs), j = i % inputs;
    if (bits != 4 && bits != 8) {
      std::memcpy(out + base + 16 * (j % 2) + j / 2 * 2, codes + i, 2);
      continue;
    }
    uint8_t* high = out + base + 16 * (j % step) + j / step;
    high[0] = static_cast<uint8_t>((codes[i] + 128) >> 8);
    high[inputs] = static_cast<uint8_t>(codes[i]);
  }
}

void round_few(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  round_row<true>(x, w, out, row, [&](int64_t k, const int16_t* codes) { arrange(codes, w.bits, to + 2 * k); });
  // Codes of 8 bits are taken less 128 before they are multiplied.
  for (int64_t g = 0; w.bits == 8 && g < w.groups(); ++g) out.totals[row * out.group_stride + g] = 0;
}

// sum + products of 16 bits, eight of them in four sums.
int32x4_t multiply_words(int32x4_t sum, Pairs codes, const uint8_t* x) {
  const int16x8_t a = (int16x8_t)codes, b = vreinterpretq_s16_u8(vld1q_u8(x));
  return vmlal_high_s16(vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b)), a, b);
}

template <int BITS, Form FORM, int S, bool FULL>
void add_vector(const uint8_t* at, int64_t left, const uint8_t* const (&codes)[S], int64_t offset, Ints (&sums)[S]) {
  if constexpr (FORM == Form::words) {
    const Pairs both = pairs<BITS>(at, left), first = even<BITS>(both), second = odd<BITS>(both);
    for (int s = 0; s < S; ++s) {
      const uint8_t* x = codes[s] + offset;
      sums[s] = (Ints)multiply_words(multiply_words((int32x4_t)sums[s], first, x), second, x + 16);
    }
  } else {
    const uint8x16_t b = vld1q_u8(at);
    for (int s = 0; s < S; ++s) {
      const uint8_t* x = codes[s] + offset;
      int32x4_t sum = vdupq_n_s32(0);
      if constexpr (BITS == 4) {
        sum = vshlq_n_s32(dot(dot(sum, low_halves(b), x), high_halves(b), x + 16), 8);
        sum = dot(dot(sum, low_halves(b), x + 32), high_halves(b), x + 48);
      } else {
        const int8x16_t less = vreinterpretq_s8_u8(veorq_u8(b, vdupq_n_u8(128)));
        sum = dot(vshlq_n_s32(dot(sum, less, x), 8), less, x + 16);
      }
      sums[s] += (Ints)sum;
    }
  }
}

Ints add_quads(Ints a, Ints b, Ints c, Ints d) {
  return (Ints)vpaddq_s32(vpaddq_s32((int32x4_t)a, (int32x4_t)b), vpaddq_s32((int32x4_t)c, (int32x4_t)d));
}

template <int SPAN>
void gather(const Ints (&quads)[WIDTH / 4], Ints (&sums)[WIDTH / SPAN]) {
  sums[0] = quads[0];
}

void few(const Packed& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  if (w.bits == 4) return few_of<4, Form::bytes>(w, x, y, y_stride, n0, n1);
  if (w.bits == 8) return few_of<8, Form::bytes>(w, x, y, y_stride, n0, n1);
  with_bits(w.bits, [&]<int BITS> { few_of<BITS, Form::words>(w, x, y, y_stride, n0, n1); });
}

}  // namespace
}  // namespace kernels

#include "../../parts/many.h"

namespace kernels {
namespace {

// Many rows.

void add_products(Ints& sum, Ints activations, Ints codes) {
  sum = (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)codes, (int8x16_t)activations);
}

// 32 codes of an output from input k on.
template <int BITS>
void codes_in_order(const uint8_t* row, int64_t k, uint8_t* codes) {
  if constexpr (BITS == 4) {
    const uint8x16_t b = vld1q_u8(row + k / 2);
    return vst2q_u8(codes, uint8x16x2_t{{vandq_u8(b, vdupq_n_u8(15)), vshrq_n_u8(b, 4)}});
  }
  for (int i = 0; i < 32; i += 16) {
    const uint8_t* at = row + (k + i) * BITS / 8;
    if constexpr (BITS == 8)
      vst1q_u8(codes + i, vld1q_u8(at));
    else
      vst1q_u8(codes + i, (uint8x16_t)widened<BITS>(at, 2 * BITS));
  }
}

template <int BITS, bool ROTATED>
void unpack_codes(const Packed& w, int64_t n, int64_t n_outputs, int64_t k, uint8_t* out) {
  alignas(16) uint8_t codes[4][32];
  for (int64_t i = 0; i < 4; ++i)
    codes_in_order<BITS>(w.codes + (n + (i < n_outputs ? i : 0)) * w.row_bytes(), k, codes[i]);
  Bytes v[8];
  for (int part = 0; part < 2; ++part) {
    float32x4_t words[4];
    for (int i = 0; i < 4; ++i) words[i] = vreinterpretq_f32_u8(vld1q_u8(codes[i] + 16 * part));
    transpose(words);
    for (int i = 0; i < 4; ++i) v[4 * part + i] = (Bytes)words[i];
  }
  if constexpr (ROTATED)
    rotate_run<BITS>(v);
  else
    for (Bytes& some : v) some -= static_cast<uint8_t>(w.zero());
  put_run(v, out);
}

void round_many(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t *first = out.codes + row * out.stride, *second = first + plane_of(w);
  round_row<false>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
    for (int i = 0; i < BLOCK; ++i)
      if (out.points > 1)
        first[k + i] = static_cast<uint8_t>(codes[i]);
      else
        first[k + i] = static_cast<uint8_t>((codes[i] + 128) >> 8), second[k + i] = static_cast<uint8_t>(codes[i]);
  });
}

}  // namespace
}  // namespace kernels
