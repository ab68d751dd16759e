// Attention in vectors of whatever width the including file is compiled for. Everything is `static`, see scalars.h.
//
// One call serves the query heads of one key head for a few positions. Keys and values pass in tiles of KEYS, turned
// into float32 once for all of those rows; a row keeps its largest score, its sum of weights and its weighted values,
// and rescales them when a larger score comes (Milakov and Gimelshein, 2018): no scores beyond a tile are ever stored.
// Many rows meet the keys of a tile as columns; for a few, turning the tile would cost more than it saves.
#pragma once
#include <cmath>

#include "vectors.h"

namespace kernels {

constexpr int ABREAST = WIDTH == 16 ? 4 : 2;  // rows that share a load: 4 * ABREAST sums stay in registers
constexpr int64_t MANY_ROWS = 8;

// n rows of head_dim elements as float32 rows of `width`, zeros behind; rows up to KEYS are cleared.
template <Float T>
static inline void widen_tile(const void* from, int64_t stride, int64_t n, int64_t head_dim, int64_t width, float* to) {
  for (int64_t j = 0; j < KEYS; ++j, to += width) {
    const int64_t filled = j < n ? head_dim : 0;
    int64_t d = 0;
    for (; d + WIDTH <= filled; d += WIDTH) put(to + d, load_vector<T>(from, j * stride + d));
    for (; d < filled; ++d) to[d] = load_float(from, T, j * stride + d);
    for (; d < width; ++d) to[d] = 0.0f;
  }
}

static inline void widen_tile(const void* from, Float type, int64_t at, int64_t stride, int64_t n, int64_t head_dim,
                              int64_t width, float* to) {
  from = static_cast<const char*>(from) + at * float_bytes(type);
  if (type == Float::f32) return widen_tile<Float::f32>(from, stride, n, head_dim, width, to);
  if (type == Float::f16) return widen_tile<Float::f16>(from, stride, n, head_dim, width, to);
  widen_tile<Float::bf16>(from, stride, n, head_dim, width, to);
}

static inline void turn_tile(const float* rows, int64_t width, float* columns) {
  for (int64_t d0 = 0; d0 < width; d0 += 16)  // a few cache lines at a time
    for (int64_t j = 0; j < KEYS; ++j)
      for (int64_t d = d0; d < d0 + 16; ++d) columns[d * KEYS + j] = rows[j * width + d];
}

// out[r][0 .. V * WIDTH) (+)= sum over i of factors[r][i] * table[i][0 .. V * WIDTH), for R rows.
template <int R, int V>
static inline void sum_rows(const float* factors, int64_t factor_stride, const float* table, int64_t table_stride,
                            int64_t n, float* out, int64_t out_stride, bool add) {
  Vector sums[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sums[r][v] = add ? vector_at(out + r * out_stride + v * WIDTH) : Vector{};
  for (int64_t i = 0; i < n; ++i, table += table_stride) {
    Vector line[V];
    for (int v = 0; v < V; ++v) line[v] = vector_at(table + v * WIDTH);
    for (int r = 0; r < R; ++r) {
      const Vector factor = Vector{} + factors[r * factor_stride + i];
      for (int v = 0; v < V; ++v) sums[r][v] = multiply_add(factor, line[v], sums[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) put(out + r * out_stride + v * WIDTH, sums[r][v]);
}

template <int R>
static inline void sum_rows(const float* factors, int64_t factor_stride, const float* table, int64_t table_stride,
                            int64_t n, float* out, int64_t out_stride, int64_t width, bool add) {
  int64_t d = 0;
  for (; d + 4 * WIDTH <= width; d += 4 * WIDTH)
    sum_rows<R, 4>(factors, factor_stride, table + d, table_stride, n, out + d, out_stride, add);
  for (; d < width; d += WIDTH)
    sum_rows<R, 1>(factors, factor_stride, table + d, table_stride, n, out + d, out_stride, add);
}

// The scores of one row against keys that lie as rows.
static inline void scores_of(const float* q, const float* keys, int64_t width, float* scores) {
  for (int64_t j = 0; j < KEYS; ++j, keys += width) {
    Vector sum = {};
    for (int64_t d = 0; d < width; d += WIDTH) sum = multiply_add(vector_at(q + d), vector_at(keys + d), sum);
    scores[j] = sum_of(sum);
  }
}

// What a row has seen so far.
struct Seen {
  float largest, sum;
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
  float most = -INFINITY;
  for (int64_t j = 0; j < KEYS; j += WIDTH) put(scores + j, vector_at(scores + j) * scale);
  for (int64_t j = first > 0 ? first : 0; j < last; ++j) most = scores[j] > most ? scores[j] : most;
  if (most > seen->largest) {
    const float shrink = std::exp(seen->largest - most);
    for (int64_t d = 0; d < width; ++d) out[d] *= shrink;
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

static void attend(const Attention& a, int64_t batch, int64_t kv_head, int64_t position, int64_t n_positions,
                   float* scratch) {
  const int64_t repeats = a.heads / a.kv_heads, width = padded_head(a.head_dim), rows = repeats * n_positions;
  float* keys = scratch;                    // [KEYS, width]
  float* values = keys + KEYS * width;      // [KEYS, width]
  float* columns = values + KEYS * width;   // [width, KEYS]
  float* queries = columns + KEYS * width;  // [rows, width]
  float* out = queries + rows * width;      // [rows, width]
  Seen* seen = reinterpret_cast<Seen*>(out + rows * width);
  alignas(64) float weights[ABREAST][KEYS];
  const int64_t before = a.keys - a.queries;
  for (int64_t row = 0; row < rows; ++row) {
    const float* q = a.q + batch * a.q_strides[0] + (kv_head * repeats + row / n_positions) * a.q_strides[1] +
                     (position + row % n_positions) * a.q_strides[2];
    for (int64_t d = 0; d < width; ++d)
      queries[row * width + d] = d < a.head_dim ? q[d] : 0.0f, out[row * width + d] = 0.0f;
    seen[row] = {-INFINITY, 0.0f};
  }
  const auto first_key = [&](int64_t p) {
    return a.window > 0 && before + p >= a.window ? before + p - a.window + 1 : 0;
  };
  const bool many = rows >= MANY_ROWS;
  for (int64_t tile = first_key(position) / KEYS * KEYS; tile < before + position + n_positions; tile += KEYS) {
    const int64_t n = a.keys - tile < KEYS ? a.keys - tile : KEYS;
    const int64_t k_at = batch * a.k_strides[0] + kv_head * a.k_strides[1] + tile * a.k_strides[2];
    const int64_t v_at = batch * a.v_strides[0] + kv_head * a.v_strides[1] + tile * a.v_strides[2];
    widen_tile(a.k, a.type, k_at, a.k_strides[2], n, a.head_dim, width, keys);
    widen_tile(a.v, a.type, v_at, a.v_strides[2], n, a.head_dim, width, values);
    if (many) turn_tile(keys, width, columns);
    for (int64_t row = 0; row < rows; row += ABREAST) {
      const int64_t abreast = rows - row < ABREAST ? rows - row : ABREAST;
      const float* q = queries + row * width;
      if (many && abreast == ABREAST)
        sum_rows<ABREAST>(q, width, columns, KEYS, width, weights[0], KEYS, KEYS, false);
      else
        for (int64_t r = 0; r < abreast; ++r) scores_of(q + r * width, keys, width, weights[r]);
      for (int64_t r = 0; r < abreast; ++r) {
        const int64_t p = position + (row + r) % n_positions, end = before + p + 1 - tile;
        weigh(weights[r], a.scale, first_key(p) - tile, end < n ? end : n, width, out + (row + r) * width,
              &seen[row + r]);
      }
      float* o = out + row * width;
      if (abreast == ABREAST)
        sum_rows<ABREAST>(weights[0], KEYS, values, width, n, o, width, width, true);
      else
        for (int64_t r = 0; r < abreast; ++r)
          sum_rows<1>(weights[r], KEYS, values, width, n, o + r * width, width, width, true);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = kv_head * repeats + row / n_positions, p = position + row % n_positions;
    float* to = a.out + ((batch * a.queries + p) * a.heads + head) * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; ++d) to[d] = out[row * width + d] / seen[row].sum;
  }
}

}  // namespace kernels
