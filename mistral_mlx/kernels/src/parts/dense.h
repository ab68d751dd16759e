// Products with unquantized weights for any number of rows, in vectors of whatever width the including file is compiled
// for.
//
// Inputs lie along the lanes: an output has a vector of sums, whose lane k % WIDTH adds up the products of the inputs
// k. At the end the lanes are added up in a fixed order. So the order of additions depends on n_in alone, a row has the
// same bits alone and among others, and no weights are transposed.
//
// For a few rows the weights are read where they lie, once for all rows. For many rows, TILE outputs are copied to
// scratch first, in blocks of inputs, as float32 if they are to be multiplied so. The L1 cache holds what a block and
// a few rows of activations meet; the vectors of sums of DENSE_ROWS rows wait in scratch for the next block, as they
// are.
#pragma once
#include "tiles.h"

namespace kernels {
namespace {

constexpr int QUAD = 4;                                     // outputs abreast, whose lanes are added up together
constexpr int MOST_ROWS = WIDTH == 8 ? 3 : 6;               // rows abreast: QUAD times as many sums stay in registers
constexpr int64_t FEW_ROWS = 36;                            // that read the weights where they lie
constexpr int64_t BLOCK_BYTES = WIDTH == 16 ? 4096 : 2048;  // of a row: wide sums cost more to keep, so larger blocks
constexpr int64_t BLOCK_STRIDE = BLOCK_BYTES + 64;
static_assert(sizeof(Vector) <= 64 && DENSE_ROWS % MOST_ROWS == 0);

inline void fetch_to_l2(const char* at) { __builtin_prefetch(at, 0, 2); }  // which cannot fault
inline void fetch_to_l1(const char* at) { __builtin_prefetch(at, 0, 3); }

// Asks for weights that lie ahead of a vector. Asking for a line more than once was 5 to 20 % faster, perhaps because a
// busy memory drops requests. Short vectors ask for a line several times as it is.
template <int64_t VECTOR_BYTES>
void fetch_ahead(const char* at, int64_t row_bytes) {
  fetch_to_l2(at + 8 * row_bytes);
  if constexpr (VECTOR_BYTES >= 32) {
    fetch_to_l2(at + 4 * row_bytes);
    fetch_to_l1(at + 1024);
  }
}

// How weights and activations become products: weights of type T by float32.
template <Float T>
struct Floats {
  using X = float;
  using Block = Floats<Float::f32>;  // how weights of a block become products
  static constexpr int64_t STEP = WIDTH, SIZE = T == Float::f32 ? 4 : 2;
  static Vector weights(const char* row, int64_t k) { return load_vector<T>(row, k); }
  static void add(Vector& sum, Vector w, Vector x) { sum = multiply_add(w, x, sum); }
};

#if defined(__AVX512BF16__)
// Weights and activations of bfloat16: a lane adds up pairs of products. The instruction rounds to nearest even
// whatever the mode, and takes subnormal numbers for 0.
struct Dots {
  using X = uint16_t;
  using Block = Dots;
  static constexpr int64_t STEP = 2 * WIDTH, SIZE = 2;
  static Vector weights(const char* row, int64_t k) { return vector_at(row + 2 * k); }
  static void add(Vector& sum, Vector w, Vector x) {
    sum = (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
  }
};
#endif

template <typename Form>
const char* weights_at(const Dense& w, int64_t n, int64_t k) {
  return static_cast<const char*>(w.weights) + (n * w.n_in + k) * Form::SIZE;
}

// Weights [k, n) of a row, fewer than a vector, and zeros.
template <typename Form>
Vector last_weights(const char* row, int64_t k, int64_t n) {
  alignas(64) char copy[Form::STEP * Form::SIZE] = {};
  std::memcpy(copy, row + k * Form::SIZE, (n - k) * Form::SIZE);
  return Form::weights(copy, 0);
}

// Adds to sums the products of QUAD rows of weights and S rows of activations over n inputs, behind which activations
// are 0 up to a whole vector. IN_PLACE: weights in memory, behind which nothing is read; otherwise those of a block,
// behind which zeros lie. Every loop over the sums is unrolled, or they would not stay in registers.
template <typename Form, int S, bool IN_PLACE>
[[gnu::always_inline]] inline void add_products(const char* const (&rows)[QUAD], const typename Form::X* x,
                                                int64_t x_stride, int64_t n, const char* next,
                                                Vector (&sums)[S][QUAD]) {
  const auto step = [&](int64_t k, const auto& weights) {
    Vector in[S];
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) in[s] = vector_at(x + s * x_stride + k);
#pragma GCC unroll 8
    for (int r = 0; r < QUAD; ++r) {
      const Vector w = weights(r);
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s) Form::add(sums[s][r], w, in[s]);
    }
  };
  int64_t k = 0;
  for (; IN_PLACE ? k + Form::STEP <= n : k < n; k += Form::STEP) {
    if constexpr (IN_PLACE)
      for (int r = 0; r < QUAD; ++r) fetch_ahead<Form::STEP * Form::SIZE>(rows[r] + k * Form::SIZE, n * Form::SIZE);
    else
      fetch_to_l2(next + k * sizeof(*x));
    step(k, [&](int r) { return Form::weights(rows[r], k); });
  }
  if (IN_PLACE && k < n) step(k, [&](int r) { return last_weights<Form>(rows[r], k, n); });
}

// y[s * y_stride + i] for S rows and the first n_left of QUAD outputs.
template <int S>
[[gnu::always_inline]] inline void finish(const Vector (&sums)[S][QUAD], float* y, int64_t y_stride, int64_t n_left) {
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s, y += y_stride) {
    const Four four = sums_of(sums[s]);
    if (n_left >= QUAD)
      std::memcpy(y, &four, sizeof four);
    else
      for (int64_t i = 0; i < n_left; ++i) y[i] = four[i];
  }
}

// Calls use<S>(row) for `n` rows from 0 on, S of them at a time, as evenly as can be.
template <typename Use>
void rows_abreast(int64_t n, Use&& use) {
  const int64_t parts = (n + MOST_ROWS - 1) / MOST_ROWS;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t row = n * i / parts, count = n * (i + 1) / parts - row;
    [&]<int... S>(std::integer_sequence<int, S...>) {
      ((count == S + 1 ? use.template operator()<S + 1>(row) : void()), ...);
    }(std::make_integer_sequence<int, MOST_ROWS>());
  }
}

// S rows by the outputs [n, n + QUAD); those from n1 on are computed as the last one is, and not stored.
template <typename Form, int S>
[[gnu::noinline]] void multiply_in_place(const Dense& w, const typename Form::X* x, int64_t x_stride, int64_t n,
                                         int64_t n1, float* y, int64_t y_stride) {
  const char* rows[QUAD];
  for (int64_t r = 0; r < QUAD; ++r) rows[r] = weights_at<Form>(w, n + r < n1 ? n + r : n1 - 1, 0);
  Vector sums[S][QUAD] = {};
  add_products<Form, S, true>(rows, x, x_stride, w.n_in, nullptr, sums);
  finish(sums, y, y_stride, n1 - n);
}

// Outputs [n0, n1), at most TILE, and inputs [k0, k1), at most a row of a block.
struct Range {
  int64_t n0, n1, k0, k1;
};

// A block: a range as rows of BLOCK_STRIDE bytes, zeros behind them up to a whole vector and a whole quad.
template <typename Form>
void copy_block(const Dense& w, const Range& range, char* block) {
  for (int64_t n = range.n0; n < range.n1; ++n, block += BLOCK_STRIDE) {
    const char* from = weights_at<Form>(w, n, range.k0);
    const int64_t size = range.k1 - range.k0;
    float* to = reinterpret_cast<float*>(block);
    int64_t k = 0;
    for (; k + Form::STEP <= size; k += Form::STEP, to += WIDTH) put(to, Form::weights(from, k));
    if (k < size) put(to, last_weights<Form>(from, k, size));
  }
  std::memset(block, 0, (round_up(range.n1 - range.n0, QUAD) - (range.n1 - range.n0)) * BLOCK_STRIDE);
}

// S rows by QUAD outputs of a block; unless it is the first or the last block of a row, sums come from and go to
// `waiting`.
template <typename Form, int S>
[[gnu::noinline]] void multiply_quad(const char* block, const typename Form::X* x, int64_t x_stride, const Dense& w,
                                     const Range& range, const char* next, float* waiting, float* y, int64_t y_stride,
                                     int64_t n_left) {
  const char* const rows[QUAD] = {block, block + BLOCK_STRIDE, block + 2 * BLOCK_STRIDE, block + 3 * BLOCK_STRIDE};
  Vector sums[S][QUAD];
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s)
#pragma GCC unroll 8
    for (int r = 0; r < QUAD; ++r) sums[s][r] = range.k0 == 0 ? Vector{} : vector_at(waiting + (s * QUAD + r) * WIDTH);
  add_products<Form, S, false>(rows, x, x_stride, range.k1 - range.k0, next, sums);
  if (range.k1 == w.n_in) return finish(sums, y, y_stride, n_left);
#pragma GCC unroll 8
  for (int s = 0; s < S; ++s)
#pragma GCC unroll 8
    for (int r = 0; r < QUAD; ++r) put(waiting + (s * QUAD + r) * WIDTH, sums[s][r]);
}

// Rows [row0, row1), at most DENSE_ROWS, by a block.
template <typename Form>
void multiply_block(const Dense& w, const DenseRows& x, int64_t row0, int64_t row1, const Range& range,
                    const char* block, float* waiting, float* y, int64_t y_stride) {
  using X = typename Form::X;
  const X* first = static_cast<const X*>(x.x) + row0 * x.stride;
  rows_abreast(row1 - row0, [&]<int S>(int64_t row) {
    const X* rows = first + row * x.stride + range.k0;
    const X* next = row0 + row + S < row1 ? rows + S * x.stride : first + range.k1;
    for (int64_t n = range.n0; n < range.n1; n += QUAD) {
      const int64_t i = n - range.n0;
      multiply_quad<typename Form::Block, S>(block + i * BLOCK_STRIDE, rows, x.stride, w, range,
                                             reinterpret_cast<const char*>(next + i / QUAD % S * x.stride),
                                             waiting + (row * TILE + i * S) * WIDTH, y + (row0 + row) * y_stride + n,
                                             y_stride, range.n1 - n);
    }
  });
}

// A few rows.
template <typename Form>
void in_place(const Dense& w, const DenseRows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; n += QUAD)
    rows_abreast(x.rows, [&]<int S>(int64_t row) {
      const auto* rows = static_cast<const typename Form::X*>(x.x) + row * x.stride;
      multiply_in_place<Form, S>(w, rows, x.stride, n, n1, y + row * y_stride + n, y_stride);
    });
}

// All rows by outputs [n0, n1), at most TILE.
template <typename Form>
void in_blocks(const Dense& w, const DenseRows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, char* scratch) {
  constexpr int64_t BLOCK_INPUTS = BLOCK_BYTES / sizeof(typename Form::X);
  float* waiting = reinterpret_cast<float*>(scratch);           // [DENSE_ROWS, TILE, WIDTH]
  char* blocks = scratch + DENSE_ROWS * TILE * sizeof(Vector);  // [blocks, TILE, BLOCK_STRIDE] bytes
  const auto block_of = [&](int64_t k) { return blocks + k / BLOCK_INPUTS * TILE * BLOCK_STRIDE; };
  const auto last = [&](int64_t k) { return k + BLOCK_INPUTS < w.n_in ? k + BLOCK_INPUTS : w.n_in; };
  for (int64_t k = 0; k < w.n_in; k += BLOCK_INPUTS) copy_block<Form>(w, {n0, n1, k, last(k)}, block_of(k));
  for (int64_t row = 0; row < x.rows; row += DENSE_ROWS)
    for (int64_t k = 0; k < w.n_in; k += BLOCK_INPUTS)
      multiply_block<Form>(w, x, row, row + DENSE_ROWS < x.rows ? row + DENSE_ROWS : x.rows, {n0, n1, k, last(k)},
                           block_of(k), waiting, y, y_stride);
}

template <typename Form>
void dense_of(const Dense& w, const DenseRows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, char* scratch) {
  if (x.rows <= FEW_ROWS) return in_place<Form>(w, x, y, y_stride, n0, n1);
  for (int64_t n = n0; n < n1; n += TILE) in_blocks<Form>(w, x, y, y_stride, n, n + TILE < n1 ? n + TILE : n1, scratch);
}

// See Kernels.
void dense(const Dense& w, const DenseRows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void* scratch) {
  char* memory = static_cast<char*>(scratch);
#if defined(__AVX512BF16__)
  if (x.type == Float::bf16) return dense_of<Dots>(w, x, y, y_stride, n0, n1, memory);
#endif
  with_type(w.type, [&]<Float T> { dense_of<Floats<T>>(w, x, y, y_stride, n0, n1, memory); });
}

}  // namespace
}  // namespace kernels
