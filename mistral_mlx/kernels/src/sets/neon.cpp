// NEON with products of four bytes (SDOT); compiled a second time with those of 2x8 by 8x2 bytes (SMMLA, of i8mm) for
// many rows. See contract.h for the layout and the contract.
//
// Both take signed bytes. Codes of 2 to 6 bits are such; those of 8 bits are taken less 128, and 128 times the sum of
// the group's activations is added in integers.
#include <arm_neon.h>

#include "../parts/attention.h"
#include "../parts/scalars.h"
#include "../parts/search.h"
#include "../parts/tiles.h"

namespace kernels {
namespace {

constexpr int LANES = 4;
constexpr int BYTES = 16;
constexpr int OFFSET = 128;  // of codes of 8 bits
constexpr int WIDE = 16;     // outputs that packed_rows and dense_rows compute at a time

// 4 floats from element i on; those from `n` on are 0 and not read.
template <Float T>
float32x4_t load(const void* p, int64_t i, int64_t n) {
  constexpr int64_t SIZE = T == Float::f32 ? 4 : 2;
  const uint8_t* at = static_cast<const uint8_t*>(p) + i * SIZE;
  uint8_t copy[LANES * 4] = {};
  if (n < LANES) {
    std::memcpy(copy, at, n * SIZE);
    at = copy;
  }
  if constexpr (T == Float::f32) return vreinterpretq_f32_u8(vld1q_u8(at));
  const uint16x4_t half = vreinterpret_u16_u8(vld1_u8(at));
  if constexpr (T == Float::f16) return vcvt_f32_f16(vreinterpret_f16_u16(half));
  return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

int8x16_t low_halves(uint8x16_t b) { return vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15))); }
int8x16_t high_halves(uint8x16_t b) { return vreinterpretq_s8_u8(vshrq_n_u8(b, 4)); }
int8x16_t less_offset(uint8x16_t b) { return vreinterpretq_s8_u8(veorq_u8(b, vdupq_n_u8(OFFSET))); }

// acc + products of 16 bits, eight of them in four sums.
int32x4_t multiply_add(int32x4_t acc, Pairs codes, const int8_t* x) {
  const int16x8_t a = (int16x8_t)codes, b = vreinterpretq_s16_s8(vld1q_s8(x));
  return vmlal_high_s16(vmlal_s16(acc, vget_low_s16(a), vget_low_s16(b)), a, b);
}

// Sums of products of one group of R rows, each in four parts. A vector of codes never leaves its group.
template <int BITS, int R>
void dot_group(const uint8_t* at, int64_t row_bytes, const int8_t* x, int group, int32x4_t (&sums)[R]) {
  constexpr int CODES = BITS == 4 ? 2 * BYTES : BYTES;
  int32x4_t high[R] = {}, low[R] = {}, offset[2] = {};
  for (int k = 0; k < group; k += CODES, at += CODES * BITS / 8, x += 2 * CODES) {
    for (int r = 0; r < R; ++r) {
      if constexpr (BITS == 4) {
        const uint8x16_t b = vld1q_u8(at + r * row_bytes);
        const int8x16_t even = low_halves(b), odd = high_halves(b);
        high[r] = vdotq_s32(vdotq_s32(high[r], even, vld1q_s8(x)), odd, vld1q_s8(x + BYTES));
        low[r] = vdotq_s32(vdotq_s32(low[r], even, vld1q_s8(x + 2 * BYTES)), odd, vld1q_s8(x + 3 * BYTES));
      } else if constexpr (BITS == 8) {
        const int8x16_t codes = less_offset(vld1q_u8(at + r * row_bytes));
        high[r] = vdotq_s32(high[r], codes, vld1q_s8(x));
        low[r] = vdotq_s32(low[r], codes, vld1q_s8(x + BYTES));
      } else {
        const Pairs codes = pairs<BITS>(at + r * row_bytes, 2 * BITS);
        low[r] = multiply_add(multiply_add(low[r], even<BITS>(codes), x), odd<BITS>(codes), x + BYTES);
      }
    }
    if constexpr (BITS == 8)
      for (int i = 0; i < 2; ++i) offset[i] = vdotq_s32(offset[i], vdupq_n_s8(-OFFSET), vld1q_s8(x + i * BYTES));
  }
  for (int r = 0; r < R; ++r)
    sums[r] = vaddq_s32(vshlq_n_s32(vsubq_s32(high[r], offset[0]), 8), vsubq_s32(low[r], offset[1]));
}

template <int BITS, Float T, int R>
void few(const Packed& w, const Fine& x, float* y, int64_t n) {
  const int64_t groups = w.groups(), row_bytes = w.row_bytes(), group_bytes = w.group * BITS / 8;
  float32x4_t acc[R] = {}, bias[R] = {};
  float scales[R][LANES];
  for (int64_t g = 0; g < groups; g += LANES) {
    const float32x4_t x_scales = vld1q_f32(x.scales + g), x_sums = vld1q_f32(x.sums + g);
    for (int r = 0; r < R; ++r) {
      vst1q_f32(scales[r], vmulq_f32(load<T>(w.scales, (n + r) * groups + g, groups - g), x_scales));
      bias[r] = vfmaq_f32(bias[r], load<T>(w.biases, (n + r) * groups + g, groups - g), x_sums);
    }
    for (int64_t i = 0; i < LANES && g + i < groups; ++i) {
      int32x4_t sums[R];
      dot_group<BITS>(w.codes + n * row_bytes + (g + i) * group_bytes, row_bytes, x.planes + 2 * (g + i) * w.group,
                      w.group, sums);
      for (int r = 0; r < R; ++r) acc[r] = vfmaq_n_f32(acc[r], vcvtq_f32_s32(sums[r]), scales[r][i]);
    }
  }
  for (int r = 0; r < R; ++r) y[n + r] = vaddvq_f32(vaddq_f32(acc[r], bias[r]));
}

// One vector of the tile that packed_rows computes: OUTPUTS outputs of ROWS rows, the rows one after the other.
#ifdef __ARM_FEATURE_MATMUL_INT8
constexpr int ROWS = 2, OUTPUTS = 2;
int32x4_t multiply(int32x4_t acc, int8x16_t codes, int8x16_t x) { return vmmlaq_s32(acc, x, codes); }
int8x16_t inputs(const int8_t* first, const int8_t* last) { return vcombine_s8(vld1_s8(first), vld1_s8(last)); }
int32x4_t by_row(int32_t first, int32_t last) { return vcombine_s32(vdup_n_s32(first), vdup_n_s32(last)); }
float32x4_t by_row(float first, float last) { return vcombine_f32(vdup_n_f32(first), vdup_n_f32(last)); }
float32x4_t by_output(const float* p) { return vcombine_f32(vld1_f32(p), vld1_f32(p)); }
// Outputs 4j to 4j + 3 of row m.
template <int A, int B>
float32x4_t four_of(const float32x4_t (&tile)[A][B], int m, int j) {
  const float32x4_t v0 = tile[m / 2][2 * j], v1 = tile[m / 2][2 * j + 1];
  return m % 2 == 0 ? vcombine_f32(vget_low_f32(v0), vget_low_f32(v1))
                    : vcombine_f32(vget_high_f32(v0), vget_high_f32(v1));
}
#else
constexpr int ROWS = 1, OUTPUTS = 4;
int32x4_t multiply(int32x4_t acc, int8x16_t codes, int8x16_t x) { return vdotq_s32(acc, codes, x); }
int8x16_t inputs(const int8_t* first, const int8_t*) {
  int32_t four;
  std::memcpy(&four, first, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
int32x4_t by_row(int32_t first, int32_t) { return vdupq_n_s32(first); }
float32x4_t by_row(float first, float) { return vdupq_n_f32(first); }
float32x4_t by_output(const float* p) { return vld1q_f32(p); }
template <int A, int B>
float32x4_t four_of(const float32x4_t (&tile)[A][B], int m, int j) {
  return tile[m][j];
}
#endif
constexpr int STEP = BYTES / OUTPUTS;  // inputs that it takes at a time

// 32 codes of one output from input k on.
template <int BITS>
void unpack_codes(const uint8_t* row, int64_t k, int8_t* codes) {
  if constexpr (BITS == 4) {
    const uint8x16_t b = vld1q_u8(row + k / 2);
    return vst2q_s8(codes, int8x16x2_t{{low_halves(b), high_halves(b)}});
  }
  for (int i = 0; i < 32; i += BYTES) {
    const uint8_t* at = row + (k + i) * BITS / 8;
    if constexpr (BITS == 8)
      vst1q_s8(codes + i, less_offset(vld1q_u8(at)));
    else
      vst1q_s8(codes + i, (int8x16_t)widened<BITS>(at, 2 * BITS));
  }
}

// The codes of a block lie as [DEPTH / STEP][TILE][STEP].
template <int BITS>
void unpack_bits(const Packed& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, Block* block) {
  for (int64_t i = 0; i < TILE; ++i) {
    const int64_t n = n0 + i;
    for (int64_t k = k0; k < k1; k += 32) {
      int8_t codes[32] = {};
      if (n < n1) unpack_codes<BITS>(w.codes + n * w.row_bytes(), k, codes);
      for (int j = 0; j < 32; j += STEP) std::memcpy(block->codes + (k - k0 + j) * TILE + i * STEP, codes + j, STEP);
    }
    unpack_lines(w, n, n1, k0, k1, i, block);
  }
}

void unpack(const Packed& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, Block* block) {
  with_bits(w.bits, [&]<int BITS> { unpack_bits<BITS>(w, n0, n1, k0, k1, block); });
}

// What less_offset took from the products with these activations.
int32_t taken(const int8_t* x, int group) {
  int32x4_t sum = vdupq_n_s32(0);
  for (int k = 0; k < group; k += BYTES) sum = vdotq_s32(sum, vld1q_s8(x + k), vdupq_n_s8(1));
  return OFFSET * vaddvq_s32(sum);
}

// M rows times 16 outputs of the block, from `half` on. Of the last two rows one may lie behind x.rows, see ROW_BLOCK.
template <int M>
void many(const Block& block, int64_t half, const Packed& w, const Rows& x, int64_t row, int64_t k0, int64_t k1,
          float* y, int64_t y_stride, int64_t n_left) {
  constexpr int A = M / ROWS, B = WIDE / OUTPUTS;
  float32x4_t tile[A][B] = {};
  const int64_t stride = x.planes * x.stride, last = ROWS - 1, n_groups = (k1 - k0) / w.group;
  for (int64_t g = 0; g < n_groups; ++g) {
    int32x4_t acc[A][B] = {};
    for (int plane = 0; plane < x.planes; ++plane) {
      const int8_t* at = reinterpret_cast<const int8_t*>(block.codes) + g * w.group * TILE + half * STEP;
      const int8_t* code = x.codes + row * stride + plane * x.stride + k0 + g * w.group;
      for (int i = 0; i < A; ++i) {
        const int8_t* first = code + i * ROWS * stride;
        const int32x4_t start =
            w.bits != 8 ? vdupq_n_s32(0) : by_row(taken(first, w.group), taken(first + last * stride, w.group));
        for (int j = 0; j < B; ++j) acc[i][j] = vaddq_s32(vshlq_n_s32(acc[i][j], 8), start);
      }
      for (int k = 0; k < w.group; k += STEP, at += STEP * TILE, code += STEP) {
        int8x16_t a[A];
        for (int i = 0; i < A; ++i) a[i] = inputs(code + i * ROWS * stride, code + (i * ROWS + last) * stride);
        for (int j = 0; j < B; ++j) {
          const int8x16_t b = vld1q_s8(at + j * BYTES);
          for (int i = 0; i < A; ++i) acc[i][j] = multiply(acc[i][j], b, a[i]);
        }
      }
    }
    const float *scales = block.scales + g * TILE + half, *biases = block.biases + g * TILE + half;
    for (int i = 0; i < A; ++i) {
      const int64_t first = (row + i * ROWS) * x.group_stride + k0 / w.group + g,
                    second = first + last * x.group_stride;
      const float32x4_t x_scale = by_row(x.scales[first], x.scales[second]),
                        x_sum = by_row(x.sums[first], x.sums[second]);
      for (int j = 0; j < B; ++j) {
        const float32x4_t factor = vmulq_f32(by_output(scales + j * OUTPUTS), x_scale);
        tile[i][j] = vfmaq_f32(tile[i][j], vcvtq_f32_s32(acc[i][j]), factor);
        tile[i][j] = vfmaq_f32(tile[i][j], by_output(biases + j * OUTPUTS), x_sum);
      }
    }
  }
  for (int m = 0; m < M && row + m < x.rows; ++m)
    for (int j = 0; j * LANES < WIDE && j * LANES < n_left; ++j)
      store(y + (row + m) * y_stride + j * LANES, n_left - j * LANES, k0 > 0, (Vector)four_of(tile, m, j));
}

void multiply(const Block& block, const Packed& w, const Rows& x, int64_t k0, int64_t k1, float* y, int64_t y_stride,
              int64_t n_left) {
  for (int64_t half = 0; half < TILE && half < n_left; half += WIDE)
    abreast<4, ROWS>(0, x.rows, [&]<int M>(int64_t row) {
      many<M>(block, half, w, x, row, k0, k1, y + half, y_stride, n_left - half);
    });
}

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
extern constinit const Kernels neon_i8mm{
    "neon-i8mm", round_in_planes<BYTES>, round_one_of_many, packed_row<4>, packed_rows, dense_row, dense_rows, attend,
    improve};
#else
extern constinit const Kernels neon{"neon-dotprod",
                                    round_in_planes<BYTES>,
                                    round_one_of_many,
                                    packed_row<4>,
                                    packed_rows,
                                    dense_row,
                                    dense_rows,
                                    attend,
                                    improve};
#endif

}  // namespace kernels
