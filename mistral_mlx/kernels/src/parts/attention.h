// Attention in vectors of whatever width the including file is compiled for. Everything is `static`, see scalars.h.
//
// One call serves the query heads of one key head for a few positions. Keys and values pass in tiles of KEYS positions,
// which begin at multiples of KEYS; a row keeps its largest score, its sum of weights and its weighted values, and
// rescales them when a larger score comes (Milakov and Gimelshein, 2018): no scores beyond a tile are ever stored.
//
// A row gives the same bits whatever other rows and positions share its call. A score is summed over the elements of
// the head in order, weighted values over the keys of the tile in order. A few rows (`Few`) read keys and values where
// they lie; for many (`Many`) these are widened to float32 once, the keys as columns. Codes of q8 are widened alike,
// and their scales multiply scores and weights.
#pragma once
#include <cmath>

#include "turn.h"

namespace kernels {

constexpr int ABREAST = WIDTH == 16 ? 4 : 2;  // rows that share a load: 4 * ABREAST sums stay in registers
constexpr int FEW = 4;                        // rows that are computed without a tile in float32

static inline Vector all_of(float x) { return x - Vector{}; }  // a sum with 0 would lose the sign of -0

// out[r][0 .. V * WIDTH) (+)= sum over i in [first, last) of factors[r][i] * line(i, v), for R rows.
template <int R, int V, typename Line>
static inline void sum_lines(const float* factors, int64_t factor_stride, int64_t first, int64_t last, Line&& line,
                             float* out, int64_t out_stride, bool add) {
  Vector sums[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sums[r][v] = add ? vector_at(out + r * out_stride + v * WIDTH) : Vector{};
  for (int64_t i = first; i < last; ++i) {
    Vector lines[V];
    for (int v = 0; v < V; ++v) lines[v] = line(i, v);
    for (int r = 0; r < R; ++r) {
      const Vector factor = all_of(factors[r * factor_stride + i]);
      for (int v = 0; v < V; ++v) sums[r][v] = multiply_add(factor, lines[v], sums[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) put(out + r * out_stride + v * WIDTH, sums[r][v]);
}

// The same of a table in float32, over its whole width.
template <int R>
static inline void sum_table(const float* factors, int64_t factor_stride, const float* table, int64_t table_stride,
                             int64_t first, int64_t last, float* out, int64_t out_stride, int64_t width, bool add) {
  int64_t d = 0;
  const auto line = [&](int64_t i, int v) { return vector_at(table + i * table_stride + d + v * WIDTH); };
  for (; d + 4 * WIDTH <= width; d += 4 * WIDTH)
    sum_lines<R, 4>(factors, factor_stride, first, last, line, out + d, out_stride, add);
  for (; d < width; d += WIDTH) sum_lines<R, 1>(factors, factor_stride, first, last, line, out + d, out_stride, add);
}

// R rows of queries meet the keys of a tile where they lie.
template <Float T, int R>
static inline void score_few(const Tile& keys, const float* q, int64_t width, float (*scores)[KEYS]) {
  for (int64_t j = keys.first / WIDTH * WIDTH; j < keys.last; j += WIDTH) {
    Vector sums[R] = {};
    for (int64_t d = 0; d < width; d += WIDTH) {
      Vector columns[WIDTH];
      columns_at<T>(keys, j, d, columns);
#pragma GCC unroll 16  // or the columns would go through memory
      for (int i = 0; i < WIDTH; ++i)
        for (int r = 0; r < R; ++r) sums[r] = multiply_add(all_of(q[r * width + d + i]), columns[i], sums[r]);
    }
    for (int r = 0; r < R; ++r) put(scores[r] + j, sums[r]);
  }
}

// R rows of weights meet the values of a tile where they lie.
template <Float T, int R>
static inline void sum_few(const Tile& values, const float (*weights)[KEYS], int64_t width, float* out) {
  constexpr int V = WIDTH == 16 ? 4 : 2;
  int64_t d = 0;
  const auto whole = [&](int64_t j, int v) { return load_vector<T>(values.data, j * values.stride + d + v * WIDTH); };
  const auto part = [&](int64_t j, int) { return elements<T>(values, j, d); };
  for (; d + V * WIDTH <= values.head_dim; d += V * WIDTH)
    sum_lines<R, V>(weights[0], KEYS, values.first, values.last, whole, out + d, width, true);
  for (; d < width; d += WIDTH)
    sum_lines<R, 1>(weights[0], KEYS, values.first, values.last, part, out + d, width, true);
}

// What a row has seen so far.
struct Seen {
  float largest, sum;
};

// The scales of a tile, where its type has some.
template <Float T>
struct Scales {
  alignas(64) float of[KEYS];

  explicit Scales(const Tile& tile) { scales_at(tile, of); }
  void multiply(float (*rows)[KEYS], int n) const {
    for (int r = 0; r < n; ++r)
      for (int64_t j = 0; j < KEYS; j += WIDTH) put(rows[r] + j, vector_at(rows[r] + j) * vector_at(of + j));
  }
};
template <Float T>
  requires(T != Float::q8)
struct Scales<T> {
  explicit Scales(const Tile&) {}
  void multiply(float (*)[KEYS], int) const {}
};

// Turns the scores of a row into weights, of which those outside [first, last) are 0; rescales what it has so far.
static inline void weigh(float* scores, float scale, int64_t first, int64_t last, int64_t width, float* out,
                         Seen* seen) {
  if (first >= last || first >= KEYS || last <= 0) {  // the row sees nothing of this tile
    for (int64_t j = 0; j < KEYS; ++j) scores[j] = 0.0f;
    return;
  }
  for (int64_t j = 0; j < first; ++j) scores[j] = -INFINITY;
  for (int64_t j = last; j < KEYS; ++j) scores[j] = -INFINITY;
  Vector largest = all_of(-INFINITY);
  for (int64_t j = 0; j < KEYS; j += WIDTH) {
    const Vector score = vector_at(scores + j) * scale;
    put(scores + j, score);
    largest = larger(score, largest);
  }
  const float most = largest_of(largest);
  if (most > seen->largest) {
    const float shrink = std::exp(seen->largest - most);
    for (int64_t d = 0; d < width; d += WIDTH) put(out + d, vector_at(out + d) * shrink);
    seen->sum *= shrink;
    seen->largest = most;
  }
  Vector sum = {};
  for (int64_t j = 0; j < KEYS; j += WIDTH) {
    const Vector e = exp_of(vector_at(scores + j) - seen->largest);
    put(scores + j, e);
    sum += e;
  }
  seen->sum += sum_of(sum);
}

namespace {

constexpr int64_t SINKS = -1;  // in place of the position at which a tile begins

// The rows of a call, head by head, and what they have seen so far.
struct Queries {
  const Attention& a;
  int64_t position, n_positions, rows, width;
  float *q, *out;  // [rows, width]
  Seen* seen;

  int64_t position_of(int64_t row) const { return a.position + position + row % n_positions; }
  int64_t first_key(int64_t p) const { return a.window > 0 && p - a.window + 1 > a.first ? p - a.window + 1 : a.first; }
  // The sinks that the query at p no longer has in its window.
  int64_t sinks_of(int64_t p) const { return first_key(p) < a.sinks ? first_key(p) : a.sinks; }
  void weigh_rows(float (*scores)[KEYS], int64_t row, int64_t n, int64_t tile) const {
    for (int64_t r = row; r < row + n; ++r) {
      const int64_t p = position_of(r), first = tile == SINKS ? 0 : first_key(p) - tile,
                    end = tile == SINKS ? sinks_of(p) : p + 1 - tile;
      weigh(scores[r - row], a.scale, first, end < KEYS ? end : KEYS, width, out + r * width, &seen[r]);
    }
  }
};

}  // namespace

template <Float T, int R>
static void meet_few(const Queries& rows, const Tile& keys, const Tile& values, int64_t tile) {
  alignas(64) float scores[R][KEYS];
  score_few<T, R>(keys, rows.q, rows.width, scores);
  Scales<T>(keys).multiply(scores, R);
  rows.weigh_rows(scores, 0, R, tile);
  Scales<T>(values).multiply(scores, R);
  sum_few<T, R>(values, scores, rows.width, rows.out);
}

template <Float T>
static void meet_many(const Queries& rows, const Tile& keys, const Tile& values, int64_t tile, float* columns) {
  const int64_t width = rows.width;
  float* lines = columns + KEYS * width;  // the values, [KEYS, width]
  for (int64_t j = 0; j < KEYS; j += WIDTH)
    for (int64_t d = 0; d < width; d += WIDTH) {
      Vector turned[WIDTH];
      columns_at<T>(keys, j, d, turned);
      for (int i = 0; i < WIDTH; ++i) put(columns + (d + i) * KEYS + j, turned[i]);
    }
  for (int64_t j = values.first; j < values.last; ++j)
    for (int64_t d = 0; d < width; d += WIDTH) put(lines + j * width + d, elements<T>(values, j, d));
  const Scales<T> key_scales(keys), value_scales(values);
  const auto meet = [&]<int R>(int64_t row) {
    alignas(64) float scores[R][KEYS];
    sum_table<R>(rows.q + row * width, width, columns, KEYS, 0, width, scores[0], KEYS, KEYS, false);
    key_scales.multiply(scores, R);
    rows.weigh_rows(scores, row, R, tile);
    value_scales.multiply(scores, R);
    sum_table<R>(scores[0], KEYS, lines, width, values.first, values.last, rows.out + row * width, width, width, true);
  };
  int64_t row = 0;
  for (; row + ABREAST <= rows.rows; row += ABREAST) meet.template operator()<ABREAST>(row);
  for (; row < rows.rows; ++row) meet.template operator()<1>(row);
}

template <Float T>
static void meet_tile(const Queries& rows, const Tile& keys, const Tile& values, int64_t tile, float* scratch) {
  static_assert(FEW == 4);
  if (rows.rows == 1) return meet_few<T, 1>(rows, keys, values, tile);
  if (rows.rows == 2) return meet_few<T, 2>(rows, keys, values, tile);
  if (rows.rows == 3) return meet_few<T, 3>(rows, keys, values, tile);
  if (rows.rows == 4) return meet_few<T, 4>(rows, keys, values, tile);
  meet_many<T>(rows, keys, values, tile, scratch);
}

// The rows [first, last) of a tile, which begins at position `tile` or holds the sinks.
static inline Tile tile_of(const Attention& a, const void* data, const int64_t (&strides)[3], int64_t batch,
                           int64_t kv_head, int64_t tile, int64_t first, int64_t last) {
  const int64_t row = tile == SINKS ? 0 : a.sinks + (a.slots > 0 ? tile % a.slots : tile - a.first);
  const int64_t at = batch * strides[0] + kv_head * strides[1] + row * strides[2];
  return {static_cast<const char*>(data) + at * float_bytes(a.type), strides[2], first, last, a.head_dim};
}

static void attend(const Attention& a, int64_t batch, int64_t kv_head, int64_t position, int64_t n_positions,
                   float* scratch) {
  const int64_t repeats = a.heads / a.kv_heads, width = padded_head(a.head_dim), n_rows = repeats * n_positions;
  float* q = scratch + 2 * KEYS * width;
  float* out = q + n_rows * width;
  const Queries rows{a, position, n_positions, n_rows, width, q, out, reinterpret_cast<Seen*>(out + n_rows * width)};
  for (int64_t row = 0; row < n_rows; ++row) {
    const float* from = a.q + batch * a.q_strides[0] + (kv_head * repeats + row / n_positions) * a.q_strides[1] +
                        (position + row % n_positions) * a.q_strides[2];
    for (int64_t d = 0; d < width; ++d)
      q[row * width + d] = d < a.head_dim ? from[d] : 0.0f, out[row * width + d] = 0.0f;
    rows.seen[row] = {-INFINITY, 0.0f};
  }
  const int64_t begin = rows.first_key(a.position + position), end = a.position + position + n_positions;
  const auto meet = [&](int64_t tile, int64_t first, int64_t last) {
    const Tile keys = tile_of(a, a.k, a.k_strides, batch, kv_head, tile, first, last),
               values = tile_of(a, a.v, a.v_strides, batch, kv_head, tile, first, last);
    if (a.type == Float::f32) meet_tile<Float::f32>(rows, keys, values, tile, scratch);
    if (a.type == Float::f16) meet_tile<Float::f16>(rows, keys, values, tile, scratch);
    if (a.type == Float::bf16) meet_tile<Float::bf16>(rows, keys, values, tile, scratch);
    if (a.type == Float::q8) meet_tile<Float::q8>(rows, keys, values, tile, scratch);
  };
  if (const int64_t sinks = rows.sinks_of(a.position + position + n_positions - 1); sinks > 0) meet(SINKS, 0, sinks);
  for (int64_t tile = begin / KEYS * KEYS; tile < end; tile += KEYS)
    meet(tile, begin > tile ? begin - tile : 0, end - tile < KEYS ? end - tile : KEYS);
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t head = kv_head * repeats + row / n_positions, p = position + row % n_positions;
    float* to = a.out + batch * a.out_stride + (p * a.heads + head) * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; ++d) to[d] = out[row * width + d] / rows.seen[row].sum;
  }
}

}  // namespace kernels
