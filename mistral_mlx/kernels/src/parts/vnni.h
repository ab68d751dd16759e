// What few.h and many.h ask of a set, where it has an instruction that adds four products of bytes to each lane. A set
// defines add_dot() before it includes this file.
#pragma once
#include "few.h"

namespace kernels {
namespace {

// sum += four products of an unsigned and a signed byte, in each lane.
void add_dot(Ints& sum, Bytes unsigned_bytes, Ints signed_bytes);

template <int BITS, int S>
void add_run(const Bytes (&codes)[RUN_BYTES], const uint8_t* const (&x)[S], SumsOf<BITS> (&sums)[S]) {
#pragma GCC unroll 8
  for (int v = 0; v < RUN_BYTES; ++v)
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      add_dot(sums[s].high[v % PARTS_OF<BITS>], codes[v], all_words(x[s] + 8 * v));
      add_dot(sums[s].low[v % PARTS_OF<BITS>], codes[v], all_words(x[s] + 8 * v + 4));
    }
}

void add_products(Ints& sum, Ints activations, Ints codes) { add_dot(sum, (Bytes)activations, codes); }

}  // namespace
}  // namespace kernels
