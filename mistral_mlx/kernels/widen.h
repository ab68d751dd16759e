// Codes of 2, 3, 5 and 6 bits as bytes, in vectors of whatever width the including file is compiled for.
#pragma once
#include "vectors.h"

namespace kernels {
namespace {

constexpr int WORDS = WIDTH / 2;
typedef uint64_t Words __attribute__((vector_size(WORDS * 8)));

// Moves every second run of RUN bits up, so that two runs that lay together fill a field of FIELD bits each.
template <int RUN, int FIELD>
Words spread(Words words) {
  uint64_t low = 0;
  for (int at = 0; at < 64; at += 2 * FIELD) low |= ((uint64_t{1} << RUN) - 1) << at;
  return (words & low) | (words & low << RUN) << (FIELD - RUN);
}

// Eight codes are BITS bytes; they become a word of bytes in three steps, which drop what stands above them.
template <int BITS>
void widen_codes(const uint8_t* codes, int64_t n, uint8_t* out) {
  const uint8_t* end = codes + n * BITS / 8;
  const auto write = [&](int count) {
    Words words = {};
    for (int i = 0; i < WORDS; ++i) {
      uint64_t word = 0;
      if (count == WORDS) std::memcpy(&word, codes + i * BITS, 8);
      if (count < WORDS && i < count) std::memcpy(&word, codes + i * BITS, BITS);
      words[i] = word;
    }
    words = spread<BITS, 8>(spread<2 * BITS, 16>(spread<4 * BITS, 32>(words)));
    std::memcpy(out, &words, 8 * count);
  };
  for (; end - codes >= (WORDS - 1) * BITS + 8; codes += WORDS * BITS, out += 8 * WORDS) write(WORDS);
  for (; codes < end; codes += BITS, out += 8) write(1);
}

// See Kernels.
void widen(const Packed& w, int64_t n0, int64_t n1, uint8_t* out) {
  const auto widen = w.bits == 2 ? widen_codes<2> : w.bits == 3 ? widen_codes<3> : w.bits == 5 ? widen_codes<5> : widen_codes<6>;
  widen(w.codes + n0 * w.row_bytes(), (n1 - n0) * w.n_in, out);
}

}  // namespace
}  // namespace kernels
