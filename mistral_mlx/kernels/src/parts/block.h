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

// The weights of the next block. They are asked for a few lines at a time while this one is multiplied: all at once
// would fill the queue to the memory, and the processor would wait for it.
struct Upcoming {
  const uint8_t* panels[TILE / PANEL];
  int64_t panel = TILE / PANEL, line = 0, lines = 0, step = 0;  // the next line; lines of a panel; how many at a time

  // Called after each group of a block.
  void ask() {
    for (int64_t i = 0; i < step && panel < TILE / PANEL; ++i) {
      __builtin_prefetch(panels[panel] + line * 64, 0, 2);
      if (++line == lines) line = 0, ++panel;
    }
  }
};

struct Block {
  Upcoming upcoming;
  alignas(64) uint8_t codes[TILE * DEPTH * CODE_BYTES];  // signed, [inputs / WORD_CODES][TILE][WORD_CODES]
  alignas(64) int32_t starts[TILE * DEPTH / 32];         // [group][TILE]: -START times the sum of codes
  alignas(64) float scales[TILE * DEPTH / 32], biases[TILE * DEPTH / 32];  // [group][TILE]
};
static_assert(sizeof(Block) <= SCRATCH);

// sum += the products of a word of activations and a word of codes, lane by lane.
void add_products(Ints& sum, Ints activations, Ints codes);

// Keeps a vector as it is: the compiler would rather add up a - b + c from a and c again than use a - b.
inline void keep(Bytes& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__AVX2__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

// Vectors whose numbers differ in STEP alone become their sum and their difference.
template <int STEP>
[[gnu::always_inline]] inline void across(Bytes (&v)[RUN_BYTES]) {
#pragma GCC unroll 8
  for (int i = 0; i < RUN_BYTES; ++i)
    if ((i & STEP) == 0) {
      const Bytes a = v[i], b = v[i + STEP];
      v[i] = a + b, v[i + STEP] = a - b;
      keep(v[i]), keep(v[i + STEP]);
    }
}

template <int STEP, size_t... I>
Bytes second_bytes_of(Bytes a, Bytes b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (I & STEP ? I + sizeof...(I) : I)...);
}

// The same of bytes of a lane.
template <int STEP>
[[gnu::always_inline]] inline void within(Bytes (&v)[RUN_BYTES]) {
#pragma GCC unroll 8
  for (Bytes& codes : v) {
    const Bytes other =
        STEP == 1 ? (Bytes)((Halves)codes >> 8 | (Halves)codes << 8) : (Bytes)((Words)codes >> 16 | (Words)codes << 16);
    codes = second_bytes_of<STEP>(codes + other, other - codes, std::make_index_sequence<sizeof(Bytes)>());
  }
}

// Bytes of the vectors of a run, in the order of input_of(), that are the first inputs of its transforms; see
// rotated_points.
template <int BITS>
constexpr uint32_t first_inputs(int vector) {
  if (BITS == 2) return vector == 0 || vector == 2 ? 0xff : 0;
  if (BITS == 6) return vector < 2 ? 0xffffffff : 0;
  return vector > 0 ? 0 : BITS == 3 ? 0xff00ff : BITS == 4 ? 0xffff : 0xffffffff;
}

// The transforms of a run. The zero codes gather in the first place of each.
template <int BITS>
[[gnu::always_inline]] inline void rotate_run(Bytes (&v)[RUN_BYTES]) {
  if constexpr (BITS != 6) across<1>(v);
  if constexpr (BITS != 2) across<2>(v);
  across<4>(v);
  if constexpr (BITS <= 3) within<1>(v);
  if constexpr (BITS == 4 || BITS == 2) within<2>(v);
  constexpr uint32_t ZERO = ((1 << (BITS - 1)) * rotated_points(BITS) & 0xff) * 0x01010101u;
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i)
    if (first_inputs<BITS>(i) != 0) v[i] -= (Bytes)(Words{} + (ZERO & first_inputs<BITS>(i)));
}

// sum += the codes of a run, or of its first inputs: what a transform gives sums up to its first input, times its
// points.
template <int BITS, bool FIRST>
[[gnu::always_inline]] inline void add_codes(Ints& sum, const Bytes (&v)[RUN_BYTES]) {
#pragma GCC unroll 8
  for (int i = 0; i < RUN_BYTES; ++i)
    if (const uint32_t bytes = FIRST ? first_inputs<BITS>(i) : 0xffffffff; bytes != 0)
      add_products(sum, Ints{} + static_cast<int32_t>(bytes & 0x01010101), (Ints)v[i]);
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
    Ints sum = {};
    for (int64_t run = 0; run < runs; ++run, out += RUN * CODE_BYTES * TILE) {
      Bytes codes[RUN_BYTES];
      spread<BITS>(at + run * RUN_WORDS + part * 4, codes);
      if constexpr (!ROTATED)
        for (Bytes& some : codes) some -= zero;
      if constexpr (START != 0) add_codes<BITS, ROTATED>(sum, codes);
      if constexpr (ROTATED) rotate_run<BITS>(codes);
      put_run(codes, out);
    }
    const Ints start = (ROTATED ? sum * rotated_points(BITS) - w.group * w.zero() : sum) * -START;
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
