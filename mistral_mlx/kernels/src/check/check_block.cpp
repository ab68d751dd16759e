// Whole models of two blocks, one with a mixture of experts, from their own weights and from copies, against token by
// token on the portable kernels; and packing against the steps of the codes.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

#include "../parts/scalars.h"
#include "../run/block.h"
#include "../run/panels.h"
#include "../run/pool.h"
#include "../run/quantize.h"
#include "check.h"

namespace kernels::check {
namespace {

constexpr int64_t DIM = 96, HIDDEN = 160, HEADS = 6, KV_HEADS = 2, HEAD_DIM = 20, VOCABULARY = 45, TOKENS = 150,
                  EXPERTS = 3;

// Weights of a model, packed ones of 4 bits and plain ones, and the same in copies.
class Weights {
 public:
  explicit Weights(bool copy) {
    for (const bool mixture : {false, true}) {
      Block& b = model.blocks.emplace_back();
      b.q = whole(packed(HEADS * HEAD_DIM, DIM), copy);
      b.k = whole(packed(KV_HEADS * HEAD_DIM, DIM), copy);
      b.v = whole(packed(KV_HEADS * HEAD_DIM, DIM), copy);
      b.o = whole(plain(DIM, HEADS * HEAD_DIM), copy);
      if (mixture) {
        b.mixture = Mixture{whole(packed(EXPERTS, DIM), copy), {}, 2};
        for (int i = 0; i < EXPERTS; ++i) b.mixture->experts.push_back(feed_forward(copy));
      } else {
        b.mlp = feed_forward(copy);
      }
      b.attention_norm = norm();
      b.mlp_norm = norm();
      b.heads = HEADS, b.kv_heads = KV_HEADS, b.head_dim = HEAD_DIM;
      b.rotation = {std::vector<double>(HEAD_DIM / 2, 0.3), 1};
      b.query_scale = {0.1, 40};
      b.scale = 0.2f;
    }
    model.norm = norm();
    model.head = whole(packed(VOCABULARY, DIM), copy);
  }

  Model model;

 private:
  const char* add(Data data) { return data_.emplace_back(std::move(data)).at(); }
  Norm norm() { return {add(Data::floats(Float::bf16, DIM)), Float::bf16, 1e-5f}; }
  Matrix packed(int64_t n_out, int64_t n_in) {
    const auto* codes = reinterpret_cast<const uint8_t*>(add(Data::bytes(n_out * n_in / 2)));
    const char* scales = add(Data::floats(Float::f16, n_out * n_in / 32));
    return Packed{codes, scales, add(Data::floats(Float::f16, n_out * n_in / 32)), Float::f16, 4, 32, n_out, n_in};
  }
  Matrix plain(int64_t n_out, int64_t n_in) {
    return Dense{add(Data::floats(Float::f16, n_out * n_in)), Float::f16, n_out, n_in};
  }
  FeedForward feed_forward(bool copy) {
    Matrix gate = whole(packed(HIDDEN, DIM), copy), up = whole(packed(HIDDEN, DIM), copy);
    return {gate, up, whole(packed(DIM, HIDDEN), copy)};
  }
  Matrix whole(const Matrix& matrix, bool copy) {
    if (!copy) return matrix;
    const Copies copies = copied({matrix});
    memory_.push_back(copies.memory);
    return copies.matrices[0];
  }

  std::vector<Data> data_;
  std::vector<std::shared_ptr<void>> memory_;
};

// Keys and values of a text: a ring with sinks for the first block, none for the second.
class Rings {
 public:
  explicit Rings(Float type) : type_(type) {
    const int64_t row = row_elements(HEAD_DIM, type) * float_bytes(type);
    for (int i = 0; i < 4; ++i) rings_[i].assign(KV_HEADS * (i < 2 ? SINKS + SLOTS : TOKENS) * row, 0);
  }
  // What goes on from them in each block.
  Sequence sequence(int block, int64_t position, int64_t n) {
    char *keys = rings_[2 * block].data(), *values = rings_[2 * block + 1].data();
    if (block == 0) return {{keys, values, type_, SINKS + SLOTS, position, WINDOW, SLOTS, SINKS}, 1, n};
    return {{keys, values, type_, TOKENS, position, 0, 0, 0}, 1, n};
  }

 private:
  static constexpr int64_t WINDOW = 50, SLOTS = 128, SINKS = 5;
  Float type_;
  std::vector<char> rings_[4];
};

// The logits of all tokens, `step` of them at a time.
std::vector<float> logits(const Model& model, Float type, const std::vector<float>& x, int64_t step) {
  Rings rings(type);
  std::vector<float> out(TOKENS * VOCABULARY);
  for (int64_t t = 0; t < TOKENS; t += step) {
    const int64_t n = std::min(step, TOKENS - t);
    run_model(model, {{rings.sequence(0, t, n)}, {rings.sequence(1, t, n)}}, x.data() + t * DIM, true,
              &out[t * VOCABULARY]);
  }
  return out;
}

// The same for a text that shares each pass with two others, which are `behind` tokens behind each other.
bool shares(const Model& model, Float type, const std::vector<float>& x, const std::vector<float>& alone, int64_t step,
            int64_t behind) {
  Rings rings[] = {Rings(type), Rings(type), Rings(type)};
  bool same = true;
  for (int64_t t = 0; t < TOKENS + 2 * behind; t += step) {
    std::vector<Sequences> blocks(2);
    std::vector<float> rows, expected;
    for (int i = 0; i < 3; ++i) {
      const int64_t first = std::max<int64_t>(t - i * behind, 0), end = std::min(t + step - i * behind, TOKENS);
      if (first >= end) continue;
      for (int block = 0; block < 2; ++block) blocks[block].push_back(rings[i].sequence(block, first, end - first));
      rows.insert(rows.end(), x.begin() + first * DIM, x.begin() + end * DIM);
      expected.insert(expected.end(), alone.begin() + first * VOCABULARY, alone.begin() + end * VOCABULARY);
    }
    std::vector<float> out(expected.size());
    run_model(model, blocks, rows.data(), true, out.data());
    same = same && std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) == 0;
  }
  return same;
}

// Whether what is unpacked lies within half a step of the weights, and a search does not make the error larger.
bool packs(int bits, int group) {
  constexpr int64_t N_OUT = 21;
  const int64_t n_in = 3 * group, n = N_OUT * n_in, lines = N_OUT * 3;
  const Data weights = Data::floats(Float::bf16, n);
  double errors[2];
  for (const bool search : {false, true}) {
    std::vector<uint8_t> codes(n * bits / 8);
    std::vector<float> scales(lines), biases(lines);
    const Loss loss =
        quantize({weights.at(), Float::bf16},
                 {codes.data(), scales.data(), biases.data(), Float::f32, bits, group, N_OUT, n_in}, search);
    double error = 0, limit = 0;
    const Packed w{codes.data(), scales.data(), biases.data(), Float::f32, bits, group, N_OUT, n_in};
    std::vector<float> row(n_in);
    for (int64_t i = 0; i < N_OUT; ++i) {
      unpack_row(w, i, row.data());
      for (int64_t k = 0; k < n_in; ++k) {
        const double difference = row[k] - weights[i * n_in + k], scale = scales[i * 3 + k / group];
        error += difference * difference, limit += scale * scale;
      }
    }
    errors[search] = loss.error;
    if (!loss.finite || error > limit || std::fabs(error - loss.error) > 1e-3 * error + 1e-12) return false;
  }
  return errors[1] <= errors[0] * (1 + 1e-6);
}

// Whether all ways through a model give the same bits, with keys and values of that type.
bool same_bits(Float type, const std::vector<float>& x) {
  bool same = true;
  std::vector<float> first;
  for (const bool copy : {false, true}) {
    restart();  // the same weights
    const Weights weights(copy);
    for (const auto& [step, threads] : {std::pair{1, 1}, {3, 2}, {9, 5}, {40, 3}, {150, 4}}) {
      set_threads(threads);
      const std::vector<float> result = logits(weights.model, type, x, step);
      if (first.empty()) first = result;
      same = same && std::memcmp(first.data(), result.data(), first.size() * sizeof(float)) == 0;
    }
    same = same && shares(weights.model, type, x, first, 1, 7) && shares(weights.model, type, x, first, 30, 31);
  }
  return same;
}

}  // namespace

bool blocks() {
  const std::vector<float> x = normal(TOKENS * DIM);
  bool right = true;
  for (const std::string& set : sets()) {
    select(set);
    bool same = true;
    for (const Float type : {Float::f16, Float::q8}) same = same_bits(type, x) && same;
    std::printf("blocks       %-12s %s\n", set.c_str(),
                same ? "the same bits in steps of any size, with and without copies and other texts" : "other bits");
    right = right && same;
  }
  return right;
}

bool packing() {
  bool right = true;
  for (const std::string& set : sets()) {
    select(set);
    for (const int bits : {2, 3, 4, 5, 6, 8})
      for (const int group : {32, 64, 128}) right = packs(bits, group) && right;
  }
  std::printf("packing      %s\n", right ? "within half a step, and no worse with a search" : "wrong");
  return right;
}

}  // namespace kernels::check
