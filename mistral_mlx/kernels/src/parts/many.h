// Many rows: a block of TILE outputs is unpacked once and meets all rows while it is in the cache. A set defines how it
// multiplies, and the constants named here before it includes this file.
#pragma once
#include "spread.h"

namespace kernels {
namespace {

// CODE_BYTES: of a code of a block and of the activations that it meets; exact codes of one byte are two planes,
// 256 * first + second. START: codes of activations are stored plus this, as VNNI wants unsigned bytes.
// ROWS_ABREAST, VECTORS_ABREAST: rows, and vectors of outputs, whose sums stay in registers.
#ifdef __ARM_FEATURE_MATMUL_INT8
constexpr int64_t WORD = 8;  // bytes of an output that one step multiplies
#else
constexpr int64_t WORD = 4;
#endif
constexpr int64_t WORD_CODES = WORD / CODE_BYTES;
constexpr int64_t OUTPUTS = VECTORS_ABREAST * WIDTH;  // that are computed at a time
static_assert(TILE % OUTPUTS == 0);
constexpr int64_t DEPTH = 1024 / CODE_BYTES;  // inputs of a block: 32 KB of codes

struct Block {
  alignas(64) uint8_t codes[TILE * DEPTH * CODE_BYTES];  // signed, [inputs / WORD_CODES][TILE][WORD_CODES]
  alignas(64) int32_t starts[TILE * DEPTH / 32];         // [group][TILE]: -START times the sum of codes
  alignas(64) float scales[TILE * DEPTH / 32], biases[TILE * DEPTH / 32];  // [group][TILE]
};
static_assert(sizeof(Block) <= SCRATCH);

// sum += the products of a word of activations and a word of codes, lane by lane.
void add_products(Ints& sum, Ints activations, Ints codes);

// Vectors whose numbers differ in STEP alone become their sum and their difference.
template <int STEP>
void across(Bytes (&v)[RUN_BYTES]) {
#pragma GCC unroll 8
  for (int i = 0; i < RUN_BYTES; ++i)
    if ((i & STEP) == 0) {
      const Bytes a = v[i], b = v[i + STEP];
      v[i] = a + b, v[i + STEP] = a - b;
    }
}

// The same of bytes of a lane.
template <int STEP>
void within(Bytes (&v)[RUN_BYTES]) {
  const Bytes second = (Bytes)(Words{} + (STEP == 1 ? 0xff00ff00 : 0xffff0000));
#pragma GCC unroll 8
  for (Bytes& codes : v) {
    const Bytes other =
        STEP == 1 ? (Bytes)((Halves)codes >> 8 | (Halves)codes << 8) : (Bytes)((Words)codes >> 16 | (Words)codes << 16);
    codes = ((codes + other) & ~second) | ((other - codes) & second);
  }
}

// The transform of a run, see rotated_points, of codes in the order of input_of(). The zero codes gather in the first
// place of every transform.
template <int BITS>
[[gnu::always_inline]] inline void rotate_run(Bytes (&v)[RUN_BYTES]) {
  if constexpr (BITS != 6) across<1>(v);
  if constexpr (BITS != 2) across<2>(v);
  across<4>(v);
  if constexpr (BITS <= 3) within<1>(v);
  if constexpr (BITS == 4 || BITS == 2) within<2>(v);
  constexpr uint32_t FIRST = BITS == 2 ? 0xff : BITS == 3 ? 0xff00ff : BITS == 4 ? 0xffff : 0xffffffff;
  constexpr uint32_t ZERO = ((1 << (BITS - 1)) * rotated_points(BITS) & 0xff) * 0x01010101u;
  const Bytes zeros = (Bytes)(Words{} + (ZERO & FIRST));
  v[0] -= zeros;
  if constexpr (BITS == 2) v[2] -= zeros;
  if constexpr (BITS == 6) v[1] -= zeros;
}

// Stores a run.
inline void put_run(const Bytes (&v)[RUN_BYTES], uint8_t* out) {
#ifdef __ARM_FEATURE_MATMUL_INT8
  for (int i = 0; i < 8; i += 2, out += WORD * TILE) {
    const int32x4_t a = (int32x4_t)v[i], b = (int32x4_t)v[i + 1];
    vst1q_u8(out, vreinterpretq_u8_s32(vzip1q_s32(a, b)));
    vst1q_u8(out + 16, vreinterpretq_u8_s32(vzip2q_s32(a, b)));
  }
#else
  for (const Bytes& some : v) {
    if constexpr (CODE_BYTES == 1) {
      std::memcpy(out, &some, sizeof some), out += WORD * TILE;
    } else {  // words of 16 bits: inputs 0 and 2 of a lane, then 1 and 3
      typedef int16_t Signed __attribute__((vector_size(WIDTH * 4)));
      const Signed words = (Signed)some, even = words << 8 >> 8, odd = words >> 8;
      std::memcpy(out, &even, sizeof even), out += WORD * TILE;
      std::memcpy(out, &odd, sizeof odd), out += WORD * TILE;
    }
  }
#endif
}

// WIDTH outputs of a panel at `at`, groups [g0, g1), as outputs of a block from `first` on.
template <int BITS, bool ROTATED>
[[gnu::noinline]] void unpack(const Panels& w, const uint8_t* at, int64_t n_groups, Block* block, int64_t first) {
  constexpr int64_t RUN_WORDS = BITS * 4 * PANEL;
  const int64_t runs = w.group / RUN, code_bytes = w.code_bytes(), part = first % PANEL;
  const uint8_t* floats = at + code_bytes + part * float_bytes(w.type);
  const Bytes zero = Bytes{} + static_cast<uint8_t>(w.zero());
  const Vector zero_code = all(static_cast<float>(w.zero()));
  uint8_t* out = block->codes + WORD * first;
  for (int64_t g = 0; g < n_groups; ++g, at += w.group_bytes(), floats += w.group_bytes()) {
    Ints sums[2] = {};
    for (int64_t run = 0; run < runs; ++run, out += RUN * CODE_BYTES * TILE) {
      Bytes codes[RUN_BYTES];
      spread<BITS>(at + run * RUN_WORDS + part * 4, codes);
      if constexpr (ROTATED)
        rotate_run<BITS>(codes);
      else
        for (Bytes& some : codes) some -= zero;
      if constexpr (START != 0)
#pragma GCC unroll 8
        for (int i = 0; i < RUN_BYTES; ++i) add_products(sums[i % 2], Ints{} + 0x01010101, (Ints)codes[i]);
      put_run(codes, out);
    }
    const Ints start = (sums[0] + sums[1]) * -START;
    if constexpr (START != 0) std::memcpy(block->starts + g * TILE + first, &start, sizeof start);
    const Vector scale = floats_at(floats, w.type);
    put(block->scales + g * TILE + first, scale);
    put(block->biases + g * TILE + first,
        multiply_add(zero_code, scale, floats_at(floats + PANEL * float_bytes(w.type), w.type)));
  }
}

inline int64_t plane_of(const Panels& w) { return round_up(w.n_in, BLOCK); }

#ifdef __ARM_FEATURE_MATMUL_INT8
// SMMLA multiplies two rows by two outputs: a vector of sums has the two outputs of the first row, then those of the
// second one. A last row without a second one is multiplied twice.
template <int M, int PLANES>
void rows_times_block(const Block& block, int64_t first, const Panels& w, const Rounded& x, int64_t row, int64_t k0,
                      int64_t k1, float* y, int64_t y_stride, int64_t n_left) {
  constexpr int A = (M + 1) / 2, B = OUTPUTS / 2;
  const auto row_of = [=](int i) { return row + (i < M ? i : M - 1); };
  float32x4_t sum[A][B];
  for (int i = 0; i < A; ++i)
    for (int j = 0; j < B; ++j) {
      float start[4] = {};
      for (int l = 0; l < 4 && k0 > 0; ++l)
        if (2 * j + l % 2 < n_left) start[l] = y[row_of(2 * i + l / 2) * y_stride + 2 * j + l % 2];
      sum[i][j] = vld1q_f32(start);
    }
  const int64_t n_groups = (k1 - k0) / w.group;
  for (int64_t g = 0; g < n_groups; ++g) {
    int32x4_t acc[A][B] = {};
    for (int plane = 0; plane < PLANES; ++plane) {
      const uint8_t* at = block.codes + g * w.group * TILE + WORD * first;
      const uint8_t* code = x.codes + plane * plane_of(w) + k0 + g * w.group;
      if (plane > 0)
        for (auto& line : acc)
          for (int32x4_t& v : line) v = vshlq_n_s32(v, 8);
      for (int k = 0; k < w.group; k += WORD, at += WORD * TILE, code += WORD) {
        int8x16_t a[A];
        for (int i = 0; i < A; ++i)
          a[i] = vreinterpretq_s8_u8(
              vcombine_u8(vld1_u8(code + row_of(2 * i) * x.stride), vld1_u8(code + row_of(2 * i + 1) * x.stride)));
        for (int j = 0; j < B; ++j) {
          const int8x16_t b = vreinterpretq_s8_u8(vld1q_u8(at + 16 * j));
          for (int i = 0; i < A; ++i) acc[i][j] = vmmlaq_s32(acc[i][j], a[i], b);
        }
      }
    }
    const float *scales = block.scales + g * TILE + first, *biases = block.biases + g * TILE + first;
    for (int i = 0; i < A; ++i) {
      const int64_t one = row_of(2 * i) * x.group_stride + k0 / w.group + g,
                    two = row_of(2 * i + 1) * x.group_stride + k0 / w.group + g;
      const float32x4_t x_scale = vcombine_f32(vdup_n_f32(x.scales[one]), vdup_n_f32(x.scales[two])),
                        x_sum = vcombine_f32(vdup_n_f32(x.sums[one]), vdup_n_f32(x.sums[two]));
      for (int j = 0; j < B; ++j) {
        const float32x2_t scale = vld1_f32(scales + 2 * j), bias = vld1_f32(biases + 2 * j);
        sum[i][j] = vfmaq_f32(sum[i][j], vcvtq_f32_s32(acc[i][j]), vmulq_f32(vcombine_f32(scale, scale), x_scale));
        sum[i][j] = vfmaq_f32(sum[i][j], vcombine_f32(bias, bias), x_sum);
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int64_t n = 0; n < OUTPUTS && n < n_left; ++n)
      y[(row + m) * y_stride + n] = sum[m / 2][n / 2][m % 2 * 2 + n % 2];
}

#else
// Adds M rows times OUTPUTS outputs of the block, from `first` on, to y; k0 is where the block begins: y is set where
// that is 0. Every loop over the sums is unrolled, or they would not stay in registers.
template <int M, int PLANES>
void rows_times_block(const Block& block, int64_t first, const Panels& w, const Rounded& x, int64_t row, int64_t k0,
                      int64_t k1, float* y, int64_t y_stride, int64_t n_left) {
  constexpr int J = VECTORS_ABREAST;
  Vector sum[M][J];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j)
      sum[m][j] = k0 == 0 ? Vector{} : load_some(y + (row + m) * y_stride + j * WIDTH, n_left - j * WIDTH);
  const int64_t stride = x.stride, plane_stride = plane_of(w), n_groups = (k1 - k0) / w.group;
  const uint8_t *codes = x.codes + row * stride + k0 * CODE_BYTES, *at = block.codes + WORD * first;
  int64_t of_group = row * x.group_stride + k0 / w.group;
  for (int64_t g = 0; g < n_groups; ++g, ++of_group) {
    Ints acc[M][J];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j)
        acc[m][j] = START == 0 ? Ints{} : ints_at(block.starts + g * TILE + first + j * WIDTH);
#pragma GCC unroll 2
    for (int plane = 0; plane < PLANES; ++plane) {
      const uint8_t *code = codes + plane * plane_stride, *b = at;
      for (const uint8_t* end = code + w.group * CODE_BYTES; code < end; code += 4, b += 4 * TILE) {
        Ints words[J];
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) words[j] = ints_at(b + 4 * j * WIDTH);
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
          int32_t word;
          std::memcpy(&word, code + m * stride, 4);
          const Ints a = Ints{} + word;
#pragma GCC unroll 4
          for (int j = 0; j < J; ++j) add_products(acc[m][j], a, words[j]);
        }
      }
      if (plane + 1 < PLANES)
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
          for (int j = 0; j < J; ++j) acc[m][j] <<= 8;
    }
    codes += w.group * CODE_BYTES;
    at += w.group * CODE_BYTES * TILE;
    const float *scales = block.scales + g * TILE + first, *biases = block.biases + g * TILE + first;
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const Vector x_scale = all(x.scales[of_group + m * x.group_stride]);
      const Vector x_sum = all(x.sums[of_group + m * x.group_stride]);
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) {
        const Vector dot = __builtin_convertvector(acc[m][j], Vector);
        sum[m][j] = multiply_add(dot, vector_at(scales + j * WIDTH) * x_scale, sum[m][j]);
        sum[m][j] = multiply_add(vector_at(biases + j * WIDTH), x_sum, sum[m][j]);
      }
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) store(y + (row + m) * y_stride + j * WIDTH, n_left - j * WIDTH, sum[m][j]);
}

#endif

using RowsTimesBlock = void (*)(const Block&, int64_t, const Panels&, const Rounded&, int64_t, int64_t, int64_t, float*,
                                int64_t, int64_t);
template <int PLANES, size_t... I>
RowsTimesBlock times_block(int64_t rows, std::index_sequence<I...>) {
  static constexpr RowsTimesBlock FUNCTIONS[] = {rows_times_block<I + 1, PLANES>...};
  return FUNCTIONS[rows - 1];
}

// Asks for `bytes` of weights into the L2 cache.
inline void prefetch(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

template <int BITS, bool ROTATED>
void blocks(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, Block* block) {
  constexpr int PLANES = ROTATED || CODE_BYTES == 2 ? 1 : 2;
  for (int64_t n = n0; n < n1; n += TILE)
    for (int64_t k = 0; k < w.n_in; k += DEPTH) {
      const int64_t k1 = k + DEPTH < w.n_in ? k + DEPTH : w.n_in, n_groups = (k1 - k) / w.group;
      for (int64_t first = 0; first < TILE && n + first < n1; first += WIDTH) {
        const uint8_t* at = w.data + (n + first) / PANEL * w.bytes() + k / w.group * w.group_bytes();
        unpack<BITS, ROTATED>(w, at, n_groups, block, first);
        if (k1 < w.n_in && first % PANEL == 0) prefetch(at + n_groups * w.group_bytes(), n_groups * w.group_bytes());
      }
      for (int64_t first = 0; first < TILE && n + first < n1; first += OUTPUTS)
        for (int64_t row = 0, left = x.rows; left > 0;) {  // as evenly as it goes: 13 rows are 5 + 4 + 4
          const int64_t passes = (left + ROWS_ABREAST - 1) / ROWS_ABREAST, rows = (left + passes - 1) / passes;
          times_block<PLANES>(rows, std::make_index_sequence<ROWS_ABREAST>())(*block, first, w, x, row, k, k1,
                                                                              y + n + first, y_stride, n1 - n - first);
          row += rows, left -= rows;
        }
    }
}

void many(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void* scratch) {
  with_bits(w.bits, [&]<int BITS> {
    if constexpr (rotated_points(BITS) > 1 && CODE_BYTES == 1)
      if (x.points > 1) return blocks<BITS, true>(w, x, y, y_stride, n0, n1, static_cast<Block*>(scratch));
    blocks<BITS, false>(w, x, y, y_stride, n0, n1, static_cast<Block*>(scratch));
  });
}

// Puts 16 codes in the order and form in which rows_times_block meets them: words of 16 bits, one plane of bytes, or
// two planes, the second one at `second`.
template <int BITS>
void arrange_many(const int16_t* codes, bool planes, uint8_t* first, uint8_t* second) {
  Eight c[2];
  std::memcpy(c, codes, sizeof c);
  if constexpr (CODE_BYTES == 2) {
    put_shuffled<Crossed<BITS, 0>>(c, first), put_shuffled<Crossed<BITS, 1>>(c, first + 16);
  } else if (planes) {
    for (Eight& some : c) some = START == 0 ? (some + 128) ^ 128 : some ^ 0x8000;
    put_shuffled<OneByte<BITS, 1>>(c, first), put_shuffled<OneByte<BITS, 0>>(c, second);
  } else {
    for (Eight& some : c) some ^= START;
    put_shuffled<OneByte<BITS, 0>>(c, first);
  }
}

void round_many(const float* x, const Panels& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  with_bits(w.bits, [&]<int BITS> {
    round_row<CODE_BYTES == 2>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
      for (int64_t i = 0; i < BLOCK; i += 16)
        arrange_many<BITS>(codes + i, out.points == 1, to + (k + i) * CODE_BYTES, to + plane_of(w) + k + i);
    });
  });
}

}  // namespace
}  // namespace kernels
