// A block of TILE outputs, unpacked for many rows. A set defines the constants named here before it includes this file.
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

}  // namespace
}  // namespace kernels
