// A few rows: each panel of weights is read once for all of them, as one stretch of memory. Its codes become bytes in
// registers and meet activations that are turned back, whole numbers of up to 16 bits. A set defines how bytes are
// multiplied: the functions declared here.
#pragma once
#include "spread.h"

namespace kernels {
namespace {

// How codes of activations meet those of weights: as two planes of signed bytes, 256 * high + low, or, where the set
// cannot multiply bytes as large as the weights', as words of 16 bits.
template <int BITS>
constexpr bool AS_WORDS = BITS > LARGEST_BITS_AS_BYTES;

// A run of activations takes 8 bytes for each of its vectors of weights: four high and four low bytes, or four words,
// those of inputs 0 and 2 of a lane before those of 1 and 3.
constexpr int64_t RUN_CODES = 2 * RUN;

// Sums over products, 256 * high + low; of two parts the second one is 16 times as large as it should be.
template <int PARTS>
struct ByteSums {
  Ints high[PARTS], low[PARTS];

  Ints total() const {
    const Ints first = (high[0] << 8) + low[0];
    if constexpr (PARTS == 1) return first;
    return first + (((high[PARTS - 1] << 8) + low[PARTS - 1]) >> 4);
  }
};

template <int BITS>
using SumsOf = ByteSums<PARTS_OF<BITS>>;

// sums[s] += a run of weights times that of row s at x[s].
template <int BITS, int S>
void add_run(const Bytes (&codes)[RUN_BYTES], const uint8_t* const (&x)[S], SumsOf<BITS> (&sums)[S]);

// Asks for the line that comes this far behind the one in use, early into the L2 and then into the L1 cache: contiguous
// lines the hardware asks for itself, but not across pages, and not soon enough.
constexpr int64_t AHEAD_L1 = 1024, AHEAD_L2 = 16384;
inline void ask(const uint8_t* line) {
  __builtin_prefetch(line + AHEAD_L1, 0, 3);
  __builtin_prefetch(line + AHEAD_L2, 0, 2);
}

// All outputs of a panel for S rows from `row` on.
template <int BITS, int S>
[[gnu::noinline]] void times_panel(const Panels& w, const uint8_t* at, const Rounded& x, int64_t row, float* y,
                                   int64_t y_stride, int64_t n_outputs) {
  constexpr int V = PANEL / WIDTH, RUN_WORDS = BITS * 4 * PANEL;  // bytes of a run of weights
  const int64_t groups = w.groups(), runs = w.group / RUN, code_bytes = w.code_bytes(), lines = w.group_bytes();
  const int64_t bias_at = code_bytes + PANEL * float_bytes(w.type), part = WIDTH * float_bytes(w.type);
  const Vector zero = all(static_cast<float>(w.zero()));
  const uint8_t* codes[S];
  Vector sum[S][V];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    codes[s] = x.codes + (row + s) * x.stride;
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) sum[s][j] = Vector{};
  }
  for (int64_t g = 0; g < groups; ++g, at += lines) {
    for (int64_t line = 0; line < lines; line += 64) ask(at + line);
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
      SumsOf<BITS> sums[S] = {};
      const uint8_t* run_codes[S];
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) run_codes[s] = codes[s];
      for (int64_t run = 0; run < runs; ++run) {
        Bytes bytes[RUN_BYTES];
        spread<BITS, PARTS_OF<BITS> == 1>(at + run * RUN_WORDS + j * 4 * WIDTH, bytes);
        add_run<BITS, S>(bytes, run_codes, sums);
#pragma GCC unroll 4
        for (int s = 0; s < S; ++s) run_codes[s] += RUN_CODES;
      }
      const Vector scale = floats_at(at + code_bytes + j * part, w.type);
      const Vector bias = multiply_add(zero, scale, floats_at(at + bias_at + j * part, w.type));
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) {
        const int64_t of_group = (row + s) * x.group_stride + g;
        const Ints total = sums[s].total() - x.totals[of_group];
        sum[s][j] = multiply_add(__builtin_convertvector(total, Vector), scale * all(x.scales[of_group]), sum[s][j]);
        sum[s][j] = multiply_add(bias, all(x.sums[of_group]), sum[s][j]);
      }
    }
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) codes[s] += runs * RUN_CODES;
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) store(y + (row + s) * y_stride + j * WIDTH, n_outputs - j * WIDTH, sum[s][j]);
}

template <int BITS>
void few_of(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; n += PANEL) {
    const uint8_t* panel = w.data + n / PANEL * w.bytes();
    for (int64_t row = 0; row < x.rows;) {
      const int64_t left = x.rows - row;
      if (left >= 4)
        times_panel<BITS, 4>(w, panel, x, row, y + n, y_stride, n1 - n), row += 4;
      else if (left >= 2)
        times_panel<BITS, 2>(w, panel, x, row, y + n, y_stride, n1 - n), row += 2;
      else
        times_panel<BITS, 1>(w, panel, x, row, y + n, y_stride, n1 - n), row += 1;
    }
  }
}

void few(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  with_bits(w.bits, [&]<int BITS> { few_of<BITS>(w, x, y, y_stride, n0, n1); });
}

// Puts 16 codes in the order and form in which add_run meets them.
template <int BITS>
void arrange_few(const int16_t* codes, uint8_t* to) {
  Eight c[2];
  std::memcpy(c, codes, sizeof c);
  if constexpr (AS_WORDS<BITS>) {
    put_shuffled<Crossed<BITS, 0>>(c, to), put_shuffled<Crossed<BITS, 1>>(c, to + 16);
  } else {
    for (Eight& some : c) some = (some + 128) ^ 128;  // the high byte takes what the low one lacks as a signed number
    put_shuffled<HighLow<BITS, 0>>(c, to), put_shuffled<HighLow<BITS, 1>>(c, to + 16);
  }
}

void round_few(const float* x, const Panels& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  with_bits(w.bits, [&]<int BITS> {
    round_row<true>(x, w, out, row, [&](int64_t k, const int16_t* codes) {
      for (int64_t i = 0; i < BLOCK; i += 16) arrange_few<BITS>(codes + i, to + 2 * (k + i));
    });
  });
  for (int64_t g = 0; SIGNED_BYTES && w.bits == 8 && g < w.groups(); ++g)  // such weights are taken less 128
    out.totals[row * out.group_stride + g] = 0;
}

}  // namespace
}  // namespace kernels
