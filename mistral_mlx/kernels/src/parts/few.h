// A few rows: outputs abreast whose rows of weights are one stretch of memory, in vectors of whatever width the
// including file is compiled for. The sums of a group of these outputs are gathered in the lanes of one vector, so that
// floats are added in the order of contract.h. A set defines the functions declared here.
#pragma once
#include "rounding.h"
#include "tiles.h"

namespace kernels {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t Halves __attribute__((vector_size(WIDTH * 4)));

// How weights meet the activations of few rows: as words of 16 bits, or as bytes, where the set has a faster way.
enum class Form { words, bytes };

template <int BITS>
constexpr int CODES = BITS == 4 ? 8 * WIDTH : 4 * WIDTH;  // that a vector of weights holds, or is spread over

// How the inputs of a group fall into vectors of weights.
template <int BITS, int GROUP>
struct Cut {
  static constexpr int VECTORS = GROUP > CODES<BITS> ? GROUP / CODES<BITS> : 1;           // of a group
  static constexpr int SPAN = GROUP < CODES<BITS> ? WIDTH * GROUP / CODES<BITS> : WIDTH;  // lanes of a group
  static constexpr int GROUPS = WIDTH / SPAN;                                             // that are summed up together
  static constexpr int BYTES = CODES<BITS> * VECTORS * BITS / 8;                          // of a row, for these groups
};

// sums[s] += the weights at `at`, of which `left` bytes are left, times the activations of row s at codes[s] + offset.
// FULL: a whole vector is left.
template <int BITS, Form FORM, int S, bool FULL>
void add_vector(const uint8_t* at, int64_t left, const uint8_t* const (&codes)[S], int64_t offset, Ints (&sums)[S]);

// Quad i of the result holds the sums of quad i of each of the four.
Ints add_quads(Ints a, Ints b, Ints c, Ints d);

// From the quads of WIDTH outputs, four of them in each vector, one vector of sums for each SPAN lanes.
template <int SPAN>
void gather(const Ints (&quads)[WIDTH / 4], Ints (&sums)[WIDTH / SPAN]);

// Scales and biases, the latter plus zero * scale, of WIDTH outputs and 16 groups, [16][stride] each. What lies behind
// the groups of a row or behind n_outputs is 0.
void lines(const Packed& w, int64_t n, int64_t n_outputs, int64_t g, float* scales, float* biases, int64_t stride);

// Asks for weights ahead of their use, line by line, in the order in which they will be used: `segment` bytes of each
// of WIDTH rows. The requests are spread over all that is done in the meantime, or the memory would wait in between.
struct Ahead {
  void begin(const uint8_t* from, int64_t bytes_of_row, int64_t bytes, int64_t n_rows) {
    row = from, row_bytes = bytes_of_row, segment = bytes, rows = n_rows, at = 0;
  }
  template <int64_t BYTES>
  void ask() {
    if (BYTES % 64 == 0 && segment == row_bytes) {  // the rows are one stretch: in a straight line
#pragma GCC unroll 16
      for (int64_t i = 0; i < BYTES; i += 64) __builtin_prefetch(row + at + i, 0, 2);
      at += BYTES;
      return;
    }
    for (due += BYTES; due > 0 && rows > 0; due -= 64) {
      __builtin_prefetch(row + at, 0, 2);
      if ((at += 64) >= segment) row += row_bytes, at = 0, --rows;
    }
  }
  const uint8_t* row = nullptr;
  int64_t row_bytes = 0, segment = 0, rows = 0, at = 0, due = 0;
};

// Four outputs of S rows, steps [step, end) of GROUPS groups each: quads [step][s][QUADS], of which this is one.
template <int BITS, Form FORM, int GROUP, int S, bool FULL>
void four_outputs(const uint8_t* const (&rows)[4], int64_t left, const uint8_t* const (&codes)[S], int64_t step,
                  int64_t end, Ahead& ahead, Ints* quads) {
  constexpr int VECTORS = Cut<BITS, GROUP>::VECTORS, VECTOR_BYTES = CODES<BITS> * BITS / 8;
  for (; step < end; ++step) {
    ahead.ask<2 * VECTORS * VECTOR_BYTES>();
    Ints v[4][S];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r)
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) v[r][s] = Ints{};
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; ++i) {
      const int64_t vector = step * VECTORS + i, byte = vector * VECTOR_BYTES;
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r)
        add_vector<BITS, FORM, S, FULL>(rows[r] + byte, left - byte, codes, vector * 2 * CODES<BITS>, v[r]);
    }
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) quads[(step * S + s) * (WIDTH / 4)] = add_quads(v[0][s], v[1][s], v[2][s], v[3][s]);
  }
}

// WIDTH outputs of S rows. While a part of it is computed, the next part is asked for.
template <int BITS, Form FORM, int GROUP, int S>
[[gnu::noinline]] void panel(const Packed& w, const Rounded& x, int64_t row, float* y, int64_t y_stride, int64_t n,
                             int64_t n_outputs) {
  using C = Cut<BITS, GROUP>;
  constexpr int64_t TOGETHER = 64 / S, STEPS = TOGETHER / C::GROUPS, QUADS = WIDTH / 4;  // groups, and steps for them
  constexpr int64_t BYTES = STEPS * C::BYTES;                                            // of a row, for these steps
  const int64_t groups = w.groups(), row_bytes = w.row_bytes();
  const uint8_t* at = w.codes + n * row_bytes;
  Ahead ahead;
  Vector sum[S];
  const uint8_t* codes[S];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) sum[s] = Vector{}, codes[s] = x.codes + (row + s) * x.stride;
  alignas(64) float scales[TOGETHER * WIDTH], biases[TOGETHER * WIDTH];
  Ints quads[STEPS * S * QUADS];
  int64_t left = row_bytes;
  for (int64_t g0 = 0; g0 < groups; g0 += TOGETHER) {
    if (left > BYTES)
      ahead.begin(at + BYTES, row_bytes, left - BYTES < BYTES ? left - BYTES : BYTES, WIDTH);
    else  // the outputs behind these
      ahead.begin(at - (row_bytes - left) + WIDTH * row_bytes, row_bytes, row_bytes < BYTES ? row_bytes : BYTES,
                  n_outputs - WIDTH < WIDTH ? n_outputs - WIDTH : WIDTH);
    for (int64_t g = 0; g < TOGETHER && g0 + g < groups; g += 16) {
      const int64_t at_line = ((n + WIDTH) * groups + WIDTH * (g0 + g)) * float_bytes(w.type);
      for (int64_t i = 0; i < 16 * WIDTH * float_bytes(w.type); i += 64) {
        __builtin_prefetch(static_cast<const char*>(w.scales) + at_line + i, 0, 2);
        __builtin_prefetch(static_cast<const char*>(w.biases) + at_line + i, 0, 2);
      }
      ahead.ask<WIDTH * 16 * GROUP * BITS / 8 / 4>();
      lines(w, n, n_outputs, g0 + g, scales + g * WIDTH, biases + g * WIDTH, WIDTH);
    }
    const int64_t steps = left < BYTES ? (left + C::BYTES - 1) / C::BYTES : STEPS;
    // A last step may reach into the next row, where activations are 0, but not behind the matrix.
    const bool inside = at + (WIDTH - 1) * row_bytes + steps * C::BYTES <= w.codes + w.n_out * row_bytes;
    const int64_t full = inside || left >= BYTES ? steps : left / C::BYTES;
    for (int q = 0; q < QUADS; ++q) {
      const uint8_t* rows[4];
      for (int r = 0; r < 4; ++r) rows[r] = at + (4 * q + r < n_outputs ? 4 * q + r : 0) * row_bytes;
      four_outputs<BITS, FORM, GROUP, S, true>(rows, left, codes, 0, full, ahead, quads + q);
      four_outputs<BITS, FORM, GROUP, S, false>(rows, left, codes, full, steps, ahead, quads + q);
    }
    at += BYTES, left -= BYTES;
    for (int64_t step = 0; step < steps; ++step) {
      ahead.ask<WIDTH * C::BYTES / 4>();
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) {
        Ints sums[C::GROUPS];
        gather<C::SPAN>(reinterpret_cast<const Ints(&)[QUADS]>(quads[(step * S + s) * QUADS]), sums);
#pragma GCC unroll 4
        for (int i = 0; i < C::GROUPS; ++i) {
          const int64_t g = step * C::GROUPS + i, of_group = (row + s) * x.group_stride + g0 + g;
          const Vector dot = __builtin_convertvector(sums[i] - x.totals[of_group], Vector);
          sum[s] = multiply_add(dot, vector_at(scales + g * WIDTH) * all(x.scales[of_group]), sum[s]);
          sum[s] = multiply_add(vector_at(biases + g * WIDTH), all(x.sums[of_group]), sum[s]);
        }
      }
    }
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) codes[s] += STEPS * C::VECTORS * 2 * CODES<BITS>;
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) store(y + (row + s) * y_stride, n_outputs, sum[s]);
}

template <int BITS, Form FORM, int GROUP>
void panels(const Packed& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; n += WIDTH)
    for (int64_t row = 0; row < x.rows;) {
      const int64_t left = x.rows - row, n_outputs = n1 - n;
      if (left >= 4)
        panel<BITS, FORM, GROUP, 4>(w, x, row, y + n, y_stride, n, n_outputs), row += 4;
      else if (left >= 2)
        panel<BITS, FORM, GROUP, 2>(w, x, row, y + n, y_stride, n, n_outputs), row += 2;
      else
        panel<BITS, FORM, GROUP, 1>(w, x, row, y + n, y_stride, n, n_outputs), row += 1;
    }
}

template <int BITS, Form FORM>
void few_of(const Packed& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1) {
  if (w.group == 32) return panels<BITS, FORM, 32>(w, x, y, y_stride, n0, n1);
  if (w.group == 64) return panels<BITS, FORM, 64>(w, x, y, y_stride, n0, n1);
  panels<BITS, FORM, 128>(w, x, y, y_stride, n0, n1);
}

}  // namespace
}  // namespace kernels
