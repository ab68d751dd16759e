// Codes of a panel as bytes, a word of four codes in each lane, in vectors of whatever width the including file is
// compiled for; and the order of inputs that comes of it.
#pragma once
#include <array>

#include "rounding.h"
#include "tiles.h"

namespace kernels {
namespace {

// Calls use<BITS>().
template <typename Use>
void with_bits(int bits, Use&& use) {
  if (bits == 2) return use.template operator()<2>();
  if (bits == 3) return use.template operator()<3>();
  if (bits == 4) return use.template operator()<4>();
  if (bits == 5) return use.template operator()<5>();
  if (bits == 6) return use.template operator()<6>();
  use.template operator()<8>();
}

typedef uint8_t Bytes __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t Halves __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t Words __attribute__((vector_size(WIDTH * 4)));

constexpr int RUN_BYTES = RUN / 4;  // vectors of bytes that a run becomes

// The input, within a run, whose code is byte `byte` of a lane of vector `vector`.
template <int BITS>
constexpr int input_of(int vector, int byte) {
  constexpr int APART = BITS == 4 ? 2 : BITS == 2 ? 4 : 1;  // the codes of bytes side by side in a word
  return 4 * (vector / APART * APART) + vector % APART + APART * byte;
}

// The codes of a run, [BITS words][PANEL], of WIDTH outputs. Of 4 bits without MOVED, every second vector has its codes
// in the upper halves of its bytes.
template <int BITS, bool MOVED = true>
[[gnu::always_inline]] inline void spread(const uint8_t* run, Bytes (&codes)[RUN_BYTES]) {
  const auto word = [=](int i) { return (Words)ints_at(run + i * 4 * PANEL); };
#pragma GCC unroll 8
  for (int v = 0; v < RUN_BYTES; ++v) {
    if constexpr (BITS == 8) {
      codes[v] = (Bytes)word(v);
    } else if constexpr (BITS == 4 || BITS == 2) {
      constexpr int APART = 8 / BITS;
      constexpr uint32_t LOW = BITS == 4 ? 0x0f0f0f0f : 0x03030303;
      codes[v] = MOVED || v % APART == 0 ? (Bytes)(word(v / APART) >> v % APART * BITS & LOW)
                                         : (Bytes)(word(v / APART) & LOW << BITS);
    } else {  // four codes side by side, perhaps in two words, are pulled apart
      constexpr uint32_t LOW = (1 << BITS) - 1;
      const int bit = v * 4 * BITS, first = bit / 32, shift = bit % 32;
      Words four = word(first) >> shift;
      if (shift + 4 * BITS > 32) four |= word(first + 1) << (32 - shift);
      codes[v] = (Bytes)((four & LOW) | (four << (8 - BITS) & LOW << 8) | (four << 2 * (8 - BITS) & LOW << 16) |
                         (four << 3 * (8 - BITS) & LOW << 24));
    }
  }
}

// The word at p in each lane.
inline Ints all_words(const uint8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return Ints{} + word;
}

// The scales or biases of WIDTH outputs.
inline Vector floats_at(const uint8_t* p, Float type) {
  if (type == Float::bf16) return load_vector<Float::bf16>(p, 0);
  return type == Float::f16 ? load_vector<Float::f16>(p, 0) : vector_at(p);
}

// Codes of activations in another order.

typedef uint8_t Sixteen __attribute__((vector_size(16)));
typedef uint16_t Eight __attribute__((vector_size(16)));

// Byte i of the result is byte order(i) of the 32 at `from`.
template <typename Order, size_t... I>
Sixteen shuffled(const Eight (&from)[2], std::index_sequence<I...>) {
  return __builtin_shufflevector((Sixteen)from[0], (Sixteen)from[1], Order::at(I)...);
}
template <typename Order>
void put_shuffled(const Eight (&from)[2], uint8_t* to) {
  const Sixteen bytes = shuffled<Order>(from, std::make_index_sequence<16>());
  std::memcpy(to, &bytes, sizeof bytes);
}

// 16 inputs from vector 4 * PART on: of each, the byte BYTE of its 16 bits.
template <int BITS, int BYTE>
struct OneByte {
  static constexpr int at(int i) { return 2 * input_of<BITS>(i / 4, i % 4) + BYTE; }
};
// Vectors 2 * PART and 2 * PART + 1: of each the four high bytes, then the four low ones.
template <int BITS, int PART>
struct HighLow {
  static constexpr int at(int i) { return 2 * input_of<BITS>(2 * PART + i / 8, i % 4) + (i % 8 < 4); }
};
// Vectors 2 * PART and 2 * PART + 1: of each inputs 0 and 2 of its lane, then 1 and 3, 16 bits each.
template <int BITS, int PART>
struct Crossed {
  static constexpr int at(int i) {
    const int half = i / 2 % 4;
    return 2 * input_of<BITS>(2 * PART + i / 8, half % 2 * 2 + half / 2) + i % 2;
  }
};

}  // namespace
}  // namespace kernels
