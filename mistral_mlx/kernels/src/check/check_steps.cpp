// Attention and the small steps against plain float64.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "../parts/scalars.h"
#include "../run/attend.h"
#include "../run/steps.h"
#include "check.h"

namespace kernels::check {
namespace {

struct Shape {
  int64_t batch, heads, kv_heads, head_dim;
};

// Keys or values: [batch, kv_heads, keys, head_dim] in order, a part of a longer cache, or with keys before heads.
// (The last is a ring of SLOTS, in which the first of more keys were overwritten.)
enum class Order { plain, cache, keys_first, ring };
constexpr int64_t SLOTS = 128;
constexpr Float CACHED[] = {Float::f32, Float::f16, Float::bf16, Float::q8};  // types of keys and values

void set_strides(Order order, const Shape& s, Float type, int64_t keys, int64_t (&strides)[3]) {
  const int64_t room = order == Order::cache ? keys + 3 : keys, row = row_elements(s.head_dim, type);
  strides[0] = s.kv_heads * room * row;
  strides[1] = order == Order::keys_first ? row : room * row;
  strides[2] = order == Order::keys_first ? s.kv_heads * row : row;
}

// Elements from the first to the last that is read.
int64_t extent(const Shape& s, Float type, int64_t keys, const int64_t (&strides)[3]) {
  return (s.batch - 1) * strides[0] + (s.kv_heads - 1) * strides[1] + (keys - 1) * strides[2] +
         row_elements(s.head_dim, type);
}

Data random_rows(const Shape& s, Float type, int64_t keys, const int64_t (&strides)[3]) {
  const int64_t n = extent(s, type, keys, strides);
  return type == Float::q8 ? Data::codes(n / row_elements(s.head_dim, type), s.head_dim) : Data::floats(type, n);
}

double scale_of(const Data& data, int64_t row, const Attention& a) {
  return a.type == Float::q8 ? load_float(data.at() + row + a.head_dim, Float::f32, 0) : 1.0;
}

// One query at `q` against the keys in `rows` of a head that begins at elements k_at and v_at.
void attend_exactly(const Attention& a, const Data& k, const Data& v, int64_t k_at, int64_t v_at,
                    const std::vector<int64_t>& rows, const float* q, double* out) {
  std::vector<double> weights;
  double largest = -INFINITY, sum = 0;
  for (const int64_t row : rows) {
    const int64_t at = k_at + row * a.k_strides[2];
    double score = 0;
    for (int64_t d = 0; d < a.head_dim; ++d) score += q[d] * k[at + d];
    weights.push_back(score * scale_of(k, at, a) * a.scale);
    largest = std::max(largest, weights.back());
  }
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t at = v_at + rows[i] * a.v_strides[2];
    for (int64_t d = 0; d < a.head_dim; ++d) out[d] += weights[i] / sum * scale_of(v, at, a) * v[at + d];
  }
}

// Where the keys lie that the query at `position` sees.
std::vector<int64_t> rows_seen(const Attention& a, int64_t position) {
  const int64_t first = a.window > 0 ? std::max(a.first, position - a.window + 1) : a.first;
  std::vector<int64_t> rows;
  for (int64_t j = 0; j < std::min(a.sinks, first); ++j) rows.push_back(j);
  for (int64_t j = first; j <= position; ++j) rows.push_back(a.sinks + (a.slots > 0 ? j % a.slots : j - a.first));
  return rows;
}

std::vector<double> attention_of(const Attention& a, const Data& k, const Data& v) {
  std::vector<double> out(a.batch * a.heads * a.queries * a.head_dim);
  for (int64_t row = 0; row < a.batch * a.heads * a.queries; ++row) {
    const int64_t position = a.position + row % a.queries, head = row / a.queries % a.heads / (a.heads / a.kv_heads);
    const int64_t b = row / a.queries / a.heads;
    attend_exactly(a, k, v, b * a.k_strides[0] + head * a.k_strides[1], b * a.v_strides[0] + head * a.v_strides[1],
                   rows_seen(a, position), a.q + row * a.head_dim,
                   &out[((b * a.queries + row % a.queries) * a.heads + row / a.queries % a.heads) * a.head_dim]);
  }
  return out;
}

// Each query of `all` alone, into the same places of the result.
void attend_one_by_one(const Attention& all) {
  for (int64_t b = 0; b < all.batch; ++b)
    for (int64_t i = 0; i < all.queries; ++i) {
      Attention a = all;
      a.batch = a.queries = 1, a.position += i;
      a.q += b * a.q_strides[0] + i * a.q_strides[2];
      a.k = static_cast<const char*>(a.k) + b * a.k_strides[0] * float_bytes(a.type);
      a.v = static_cast<const char*>(a.v) + b * a.v_strides[0] * float_bytes(a.type);
      a.out += (b * all.queries + i) * a.heads * a.head_dim;
      attend_all({a});
    }
}

// The first key stands at position `first`, the first query at keys - queries behind it. Rows of sinks come before.
void attend_and_compare(Comparison* comparison, const Shape& s, Float type, Order order, int64_t queries, int64_t keys,
                        int64_t first, int64_t window, int64_t sinks = 0) {
  const std::vector<float> q = normal(s.batch * s.heads * queries * s.head_dim);
  Attention a{};
  a.q = q.data(), a.type = type, a.scale = 0.3f, a.window = window;
  a.batch = s.batch, a.heads = s.heads, a.kv_heads = s.kv_heads, a.queries = queries, a.head_dim = s.head_dim;
  a.out_stride = queries * s.heads * s.head_dim;
  a.position = first + keys - queries, a.first = order == Order::ring ? 0 : first;
  a.slots = order == Order::ring ? SLOTS : 0, a.sinks = sinks;
  const int64_t room = sinks + (order == Order::ring ? SLOTS : keys);
  a.q_strides[0] = s.heads * queries * s.head_dim, a.q_strides[1] = queries * s.head_dim, a.q_strides[2] = s.head_dim;
  set_strides(order, s, type, room, a.k_strides);
  set_strides(order == Order::keys_first ? Order::cache : order, s, type, room, a.v_strides);
  const Data k = random_rows(s, type, room, a.k_strides), v = random_rows(s, type, room, a.v_strides);
  a.k = k.at(), a.v = v.at();
  std::vector<float> together(s.batch * s.heads * queries * s.head_dim);
  comparison->run(attention_of(a, k, v), [&](float* out) {
    a.out = together.data();
    attend_all({a});
    a.out = out;
    attend_one_by_one(a);
    // Other bits are no result at all.
    if (std::memcmp(out, together.data(), together.size() * sizeof(float)) != 0) out[0] = NAN;
  });
}

void norms(Comparison* comparison, int64_t rows, int64_t dim, Float type) {
  const std::vector<float> x = normal(rows * dim);
  const Data weight = Data::floats(type, dim);
  std::vector<double> expected(rows * dim);
  for (int64_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += std::pow(x[row * dim + i], 2.0);
    for (int64_t i = 0; i < dim; ++i)
      expected[row * dim + i] = x[row * dim + i] / std::sqrt(sum / dim + 1e-5) * weight[i];
  }
  comparison->run(expected, [&](float* out) { rms_norm(x.data(), {weight.at(), type, 1e-5f}, rows, dim, out); });
}

// x lies as [batch, n, heads, head_dim], as a projection leaves it.
void rotations(Comparison* comparison, int64_t n, int64_t head_dim, int64_t offset, double factor,
               const QueryScale& scale) {
  constexpr int64_t BATCH = 2, HEADS = 3;
  const int64_t strides[] = {n * HEADS * head_dim, head_dim, HEADS * head_dim}, half = head_dim / 2;
  const std::vector<float> x = normal(BATCH * strides[0]);
  Rotation rotation{{}, factor};
  for (int64_t i = 0; i < half; ++i) rotation.frequencies.push_back(std::pow(1e4, -2.0 * i / head_dim));
  std::vector<double> expected(x.size());
  for (int64_t row = 0; row < BATCH * HEADS * n; ++row)
    for (int64_t i = 0; i < half; ++i) {
      const int64_t at = row / n / HEADS * strides[0] + row / n % HEADS * strides[1] + row % n * strides[2] + i;
      const double angle = (offset + row % n) / std::pow(1e4, 2.0 * i / head_dim);
      const double length =
          factor * (1 + scale.beta * std::log(1 + std::floor(1.0 * (offset + row % n) / scale.original)));
      const double cosine = length * std::cos(angle), sine = length * std::sin(angle);
      expected[row * head_dim + i] = x[at] * cosine - x[at + half] * sine;
      expected[row * head_dim + i + half] = x[at] * sine + x[at + half] * cosine;
    }
  const int64_t in_order[] = {strides[0], n * head_dim, head_dim};
  comparison->run(expected, [&](float* out) {
    std::vector<int64_t> positions(n);
    std::iota(positions.begin(), positions.end(), offset);
    rotate(x.data(), strides, BATCH, HEADS, positions, rotation, scale, out, in_order);
  });
}

void gates(Comparison* comparison, int64_t n) {
  const std::vector<float> gate = normal(n), up = normal(n);
  std::vector<double> expected(n);
  for (int64_t i = 0; i < n; ++i)
    expected[i] = static_cast<double>(gate[i]) * up[i] / (1 + std::exp(-static_cast<double>(gate[i])));
  comparison->run(expected, [&](float* out) {
    std::copy(gate.begin(), gate.end(), out);
    active().silu_times(out, up.data(), n);
  });
}

}  // namespace

bool attention() {
  constexpr int64_t LENGTHS[][2] = {{1, 1}, {1, 131}, {2, 65}, {37, 37}, {67, 150}};  // queries, keys
  Comparison comparison("attention", 4e-6);
  for (const Shape& s : {Shape{2, 6, 2, 20}, Shape{1, 3, 3, 64}, Shape{1, 4, 1, 5}})
    for (const auto& [queries, keys] : LENGTHS)
      for (const int64_t window : {0, 1, 5, 64, 100})
        for (int i = 0; i < 4; ++i)
          attend_and_compare(&comparison, s, CACHED[i], static_cast<Order>(i % 3), queries, keys, i * 41, window,
                             window > 0 ? i * 3 : 0);
  for (const Float type : CACHED)
    for (const int64_t window : {1, 5, 64})
      for (const int64_t queries : {1, 29})
        for (const int64_t sinks : {0, 4, 64})
          attend_and_compare(&comparison, {2, 8, 2, 128}, type, Order::ring, queries, SLOTS, 300, window, sinks);
  return comparison.report();
}

bool small_steps() {
  Comparison comparison("small steps", 1e-6);
  for (const Float type : TYPES)
    for (const int64_t dim : {1, 15, 77, 576})
      for (const int64_t rows : {1, 3, 90}) norms(&comparison, rows, dim, type);
  for (const int64_t n : {1, 5, 70})
    for (const int64_t head_dim : {2, 20, 64})
      for (const int64_t offset : {0, 4000})
        rotations(&comparison, n, head_dim, offset, offset == 0 ? 1 : 1.25, {offset == 0 ? 0 : 0.1, 16});
  for (const int64_t n : {1, 511, 513, 12345}) gates(&comparison, n);
  return comparison.report();
}

}  // namespace kernels::check
