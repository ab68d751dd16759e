// Codes of 2, 3, 5 and 6 bits in registers, compiled once per set: as pairs, two codes in 16 bits, which a few rows
// multiply by activations of 16 bits, and as bytes for many rows. What lies behind the codes is not read.
#pragma once
#include <array>

#include "vectors.h"

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

typedef uint16_t Pairs __attribute__((vector_size(4 * WIDTH)));

// value(i) for every place of a vector.
template <typename T, typename Value>
constexpr auto constants(Value&& value) {
  std::array<T, 4 * WIDTH / sizeof(T)> made{};
  for (size_t i = 0; i < made.size(); ++i) made[i] = static_cast<T>(value(static_cast<int>(i)));
  return made;
}

// 16 codes are 2 BITS bytes. The codes 2 i and 2 i + 1 lie within two of these, as they begin on an even bit; other
// bits of the two bytes are of other codes, or of none.
template <int BITS>
constexpr int byte_of_pair(int i) {
  return i / 2 % 8 * 2 * BITS / 8 + i % 2;
}

#if defined(__AVX512F__)
template <typename T>
__m512i vector_of(const T& constants) {
  return _mm512_loadu_si512(constants.data());
}

template <int BITS>
__m512i bytes_of_pairs(const uint8_t* at, int64_t left) {
  static constexpr auto words = constants<uint16_t>([](int i) { return (i / 8 * BITS + i % 8) % 32; });
  static constexpr auto order = constants<uint8_t>(byte_of_pair<BITS>);
  const __m512i stream = _mm512_maskz_loadu_epi8((uint64_t{1} << (left < 8 * BITS ? left : 8 * BITS)) - 1, at);
  return _mm512_shuffle_epi8(_mm512_permutexvar_epi16(vector_of(words), stream), vector_of(order));
}
#elif defined(__AVX2__)
template <typename T>
__m256i vector_of(const T& constants) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(constants.data()));
}

template <int BITS>
__m256i bytes_of_pairs(const uint8_t* at, int64_t left) {
  static constexpr auto order = constants<uint8_t>(byte_of_pair<BITS>);
  uint8_t copy[2 * BITS + 16];
  if (left < 2 * BITS + 16) at = static_cast<const uint8_t*>(std::memcpy(copy, at, 4 * BITS));
  const auto load = [=](int offset) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + offset)); };
  return _mm256_shuffle_epi8(_mm256_set_m128i(load(2 * BITS), load(0)), vector_of(order));
}
#elif defined(__aarch64__)
template <int BITS>
uint8x16_t bytes_of_pairs(const uint8_t* at, int64_t) {
  static constexpr auto order = constants<uint8_t>(byte_of_pair<BITS>);
  uint64_t low = 0, high = 0;
  std::memcpy(&low, at, 2 * BITS < 8 ? 2 * BITS : 8);
  if constexpr (2 * BITS > 8) std::memcpy(&high, at + 8, 2 * BITS - 8);
  return vqtbl1q_u8(vcombine_u8(vcreate_u8(low), vcreate_u8(high)), vld1q_u8(order.data()));
}
#endif

// The next codes of a row, of which `left` bytes are left; a product moves a pair to the upper end of its 16 bits,
// whatever bit it began on.
template <int BITS>
Pairs pairs(const uint8_t* at, int64_t left) {
  static constexpr auto factors = constants<uint16_t>([](int i) { return 1 << (16 - 2 * BITS - i * 2 * BITS % 8); });
  Pairs factor;
  std::memcpy(&factor, factors.data(), sizeof factor);
  return (Pairs)bytes_of_pairs<BITS>(at, left) * factor;
}

template <int BITS>
Pairs even(Pairs pairs) {
  return pairs << BITS >> (16 - BITS);
}
template <int BITS>
Pairs odd(Pairs pairs) {
  return pairs >> (16 - BITS);
}

// As bytes, in order.
template <int BITS>
Pairs widened(const uint8_t* at, int64_t left) {
  const Pairs both = pairs<BITS>(at, left);
  return even<BITS>(both) | odd<BITS>(both) << 8;
}

}  // namespace
}  // namespace kernels
