// Transformer blocks as lazy MLX operations, see blocks.h.
#include "blocks.h"

#include <cstring>

#include <mlx/transforms.h>

#include "../run/panels.h"
#include "mapped.h"
#include "operation.h"
#include "ranks.h"

namespace kernels {
namespace {

// x is the shape of the rows that go on from the ring.
void require_ring(const mx::Shape& x, const mx::array& keys, const mx::array& values, const Block& block, int position,
                  const Layout& layout) {
  const auto [window, slots, sinks] = layout;
  require(x.size() == 3 && x[0] > 0 && x[1] > 0 && x[2] == inputs_of(block.q), "x must be [batch, tokens, dim]");
  require(keys.ndim() == 4 && keys.shape() == values.shape() && keys.dtype() == values.dtype() &&
              keys.shape(0) == x[0] && keys.shape(1) == block.kv_heads &&
              keys.shape(3) == row_elements(block.head_dim, cached_type(keys)),
          "keys and values do not fit together");
  require(sinks >= 0 && sinks <= (slots == 0 ? 0 : KEYS) && keys.shape(2) > sinks, "the sinks do not fit the slots");
  const int rows = keys.shape(2) - sinks;
  require(slots == 0 ? window == 0 : window > 0 && slots > window && slots % KEYS == 0 && rows <= slots,
          "the slots do not fit the window");
  require(position >= 0 && (position + x[1] <= rows || (slots > 0 && rows == slots)),
          "there is no slot for every token");
}

void wait_for(const std::vector<mx::array*>& arrays) {
  std::vector<mx::array> pending;
  for (const mx::array* array : arrays)
    if (!array->is_available()) pending.push_back(*array);
  if (!pending.empty()) mx::eval(pending);
}

// Gives an array that is there memory of its own, in order, if it shares it.
void make_own(mx::array& array) {
  if (is_held_once(array, 1) && array.flags().row_contiguous) return;
  const mx::array from = evaluated(whole(array));
  mx::array own = new_array(array.shape(), array.dtype());
  std::memcpy(own.data<char>(), from.data<char>(), own.nbytes());
  array.overwrite_descriptor(own);
}

void add_attention(Inputs& in, const std::vector<Weight>& weights, int dim, int n_kv) {
  const int n_q = weights[0].weight.shape(0), n_out[] = {n_q, n_kv, n_kv, dim};
  for (int i = 0; i < 4; ++i) {
    require(weights[i].weight.shape(0) == n_out[i], "the weights of a block do not fit together");
    in.add(weights[i], i == 3 ? n_q : dim);
  }
  require(n_q % n_kv == 0, "the heads are no multiple of those of the keys");
}

void add_mlp(Inputs& in, const std::vector<Weight>& weights, int dim) {
  const int hidden = weights[4].weight.shape(0), n_out[] = {hidden, hidden, dim};
  for (int i = 0; i < 3; ++i) {
    require(weights[4 + i].weight.shape(0) == n_out[i], "the weights of a block do not fit together");
    in.add(weights[4 + i], i == 2 ? hidden : dim);
  }
}

void add_mixture(Inputs& in, const std::vector<Weight>& weights, int dim, int used) {
  const int n = weights[4].weight.shape(0);
  require(used <= n, "a token cannot use more experts than there are");
  in.add(weights[4], dim);
  require(weights[5].weight.ndim() == 3, "weights of experts must be [experts, n_out, n_in]");
  const int hidden = weights[5].weight.shape(1), n_out[] = {hidden, hidden, dim};
  for (int i = 0; i < 3; ++i) {
    const mx::array& w = weights[5 + i].weight;
    require(w.ndim() == 3 && w.shape(0) == n && w.shape(1) == n_out[i], "the experts do not fit together");
    in.add_experts(weights[5 + i], i == 2 ? hidden : dim);
  }
}

// The weights and norms of a block, checked as they are added.
void add_block(Inputs& in, const BlockWeights& given, int dim) {
  const auto& [weights, norms] = std::tie(given.weights, given.norms);
  require(given.experts_used >= 0, "a token cannot use fewer than no experts");
  require(weights.size() == (given.experts_used > 0 ? 8 : 7) && norms.size() == 2 && norms[0] && norms[1],
          "a block has 7 weights, or 8 with a mixture of experts, and 2 norms");
  for (size_t i = 0; i < 5; ++i) require(weights[i].weight.ndim() == 2, "a weight must be [n_out, n_in]");
  add_attention(in, weights, dim, given.kv_heads * static_cast<int>(given.rotation.head_dim()));
  if (given.experts_used > 0)
    add_mixture(in, weights, dim, given.experts_used);
  else
    add_mlp(in, weights, dim);
  for (const NormWeight& norm : norms) in.add(*norm, dim);
}

void keep(std::vector<mx::array>& arrays, const Weight& w) {
  arrays.push_back(w.weight);
  if (w.scales) arrays.push_back(*w.scales);
  if (w.biases) arrays.push_back(*w.biases);
}

// Puts copies in the place of the matrices and returns their memory; of `originals`, which they were, the pages that
// are mapped from a file are let go.
std::shared_ptr<void> copied_in_place(const std::vector<Matrix*>& matrices, const std::vector<mx::array>& originals) {
  std::vector<Matrix> given;
  for (const Matrix* w : matrices) given.push_back(*w);
  const Copies copies = copied(given);
  for (size_t i = 0; i < matrices.size(); ++i) *matrices[i] = copies.matrices[i];
  for (const mx::array& array : originals) let_go(array);
  return copies.memory;
}

Mixture mixture_at(const Form* forms, const std::vector<mx::array>& in, size_t& at, int64_t dim, int used) {
  Mixture mixture{matrix_at(forms[0], in, at, dim), {}, used};
  const int64_t n = outputs_of(mixture.router);
  const Matrix gate = matrix_at(forms[1], in, at, dim), up = matrix_at(forms[2], in, at, dim),
               down = matrix_at(forms[3], in, at, outputs_of(gate) / n);
  const std::vector<Matrix> gates = experts_of(gate, n), ups = experts_of(up, n), downs = experts_of(down, n);
  for (int64_t e = 0; e < n; ++e) mixture.experts.push_back({gates[e], ups[e], downs[e]});
  return mixture;
}

// What add_block added, read back.
Block block_at(const Form* forms, const std::vector<mx::array>& in, size_t& at, int64_t dim,
               const BlockWeights& given) {
  Block b{};
  b.q = matrix_at(forms[0], in, at, dim);
  b.k = matrix_at(forms[1], in, at, dim);
  b.v = matrix_at(forms[2], in, at, dim);
  b.o = matrix_at(forms[3], in, at, outputs_of(b.q));
  if (given.experts_used > 0) {
    b.mixture = mixture_at(forms + 4, in, at, dim, given.experts_used);
  } else {
    b.mlp.gate = matrix_at(forms[4], in, at, dim);
    b.mlp.up = matrix_at(forms[5], in, at, dim);
    b.mlp.down = matrix_at(forms[6], in, at, outputs_of(b.mlp.gate));
  }
  b.attention_norm = norm_at(in, at, given.norms[0]->second);
  b.mlp_norm = norm_at(in, at, given.norms[1]->second);
  b.kv_heads = given.kv_heads;
  b.head_dim = given.rotation.head_dim();
  b.heads = outputs_of(b.q) / b.head_dim;
  b.rotation = given.rotation;
  b.query_scale = given.query_scale;
  b.scale = given.scale;
  if (given.rank) b.sum = sum_over_ranks;
  return b;
}

std::vector<Matrix*> matrices_of(Block& b) {
  std::vector<Matrix*> all{&b.q, &b.k, &b.v, &b.o};
  if (b.mixture) {
    all.push_back(&b.mixture->router);
    for (FeedForward& expert : b.mixture->experts) all.insert(all.end(), {&expert.gate, &expert.up, &expert.down});
  } else {
    all.insert(all.end(), {&b.mlp.gate, &b.mlp.up, &b.mlp.down});
  }
  return all;
}

Ring ring_in(mx::array& keys, mx::array& values, int position, const Layout& layout) {
  const auto [window, slots, sinks] = layout;
  return {keys.data<void>(), values.data<void>(), cached_type(keys), keys.shape(2), position, window, slots, sinks};
}

// Keys and values of a block that the operation writes into, and what must be copied there first.
struct Taken {
  Ring ring;
  const char *keys, *values;
  size_t nbytes;

  void copy() const {
    if (keys != nullptr) std::memcpy(ring.keys, keys, nbytes);
    if (values != nullptr) std::memcpy(ring.values, values, nbytes);
  }
};

Taken taken(const mx::array& keys, const mx::array& values, mx::array& new_keys, mx::array& new_values,
            size_t n_outputs, int position, const Layout& layout) {
  const char* copied[2] = {take(keys, new_keys, n_outputs), take(values, new_values, n_outputs)};
  return {ring_in(new_keys, new_values, position, layout), copied[0], copied[1], new_keys.nbytes()};
}

}  // namespace

bool Ready::holds(const std::vector<const mx::array*>& arrays) const {
  if (arrays.size() != originals_.size()) return false;
  for (size_t i = 0; i < arrays.size(); ++i)
    if (arrays[i]->id() != originals_[i].id()) return false;
  return true;
}

struct ReadyBlock::State {
  std::vector<mx::array> arrays;  // what the block reads, unless it was copied
  std::shared_ptr<void> copies;
  Block block;
};

ReadyBlock::ReadyBlock(const BlockWeights& given, bool copy) {
  const int dim = given.norms.empty() || !given.norms[0] ? 0 : given.norms[0]->first.size();
  auto state = std::make_shared<State>();
  Inputs in(mx::array(0.0f));  // in place of x, which is given later
  add_block(in, given, dim);
  for (const Weight& weight : given.weights) keep(originals_, weight);
  for (const NormWeight& norm : given.norms) originals_.push_back(norm->first);
  mx::eval(in.arrays);
  size_t at = 1;
  state->block = block_at(in.forms.data(), in.arrays, at, dim, given);
  if (copy) {
    state->copies = copied_in_place(matrices_of(state->block), originals_);
    in.arrays.erase(in.arrays.begin(), in.arrays.end() - given.norms.size());  // all but the norms was copied
  }
  state->arrays = std::move(in.arrays);
  state_ = std::move(state);
}

std::vector<mx::array> ReadyBlock::run(const mx::array& x, const mx::array& keys, const mx::array& values, int position,
                                       const Layout& layout) const {
  const Block& block = state_->block;
  require_ring(x.shape(), keys, values, block, position, layout);
  const auto start = [=, state = state_](const Operation::Arrays& in, Operation::Arrays& out) {
    const Taken ring = taken(in[1], in[2], out[1], out[2], out.size(), position, layout);
    return [=, x = Floats(in[0]), batch = in[0].shape(0), tokens = in[0].shape(1), y = allocate(out[0])] {
      ring.copy();
      std::vector<float> copy;
      run_block(state->block, {{ring.ring, batch, tokens}}, x.read(copy), y);
    };
  };
  return mx::array::make_arrays({x.shape(), keys.shape(), values.shape()}, {mx::float32, keys.dtype(), values.dtype()},
                                operation("Block", start), {as_float(x), whole(keys), whole(values)});
}

struct ReadyModel::State {
  std::vector<std::shared_ptr<const ReadyBlock::State>> blocks;
  std::vector<mx::array> arrays;
  std::shared_ptr<void> copies;
  Model model;
};

ReadyModel::ReadyModel(const std::vector<const ReadyBlock*>& blocks, const NormWeight& norm,
                       const std::optional<Weight>& head, bool copy) {
  require(norm.has_value() == head.has_value() && (norm || !blocks.empty()),
          "a part of a model has blocks, or a norm and a head");
  auto state = std::make_shared<State>();
  for (const ReadyBlock* block : blocks) {
    originals_.insert(originals_.end(), block->originals_.begin(), block->originals_.end());
    state->blocks.push_back(block->state_);
    state->model.blocks.push_back(block->state_->block);
  }
  if (norm) {
    const int dim = norm->first.size();
    Inputs in(mx::array(0.0f));
    in.add(*norm, dim);
    in.add(*head, dim);
    std::vector<mx::array> given;
    keep(given, *head);
    originals_.push_back(norm->first);
    originals_.insert(originals_.end(), given.begin(), given.end());
    mx::eval(in.arrays);
    size_t at = 1;
    state->model.norm = norm_at(in.arrays, at, norm->second);
    state->model.head = matrix_at(in.forms[0], in.arrays, at, dim);
    if (copy) state->copies = copied_in_place({&*state->model.head}, given);
    state->arrays = std::move(in.arrays);
  }
  state_ = std::move(state);
}

mx::array ReadyModel::run(const mx::array& x, const std::vector<Text>& texts, const std::vector<Layout>& layouts,
                          bool head) const {
  const Model& model = state_->model;
  const size_t n = model.blocks.size();
  require(layouts.size() == n, "every block needs a layout");
  require(head ? model.head.has_value() : n > 0, "there is no head, or nothing else");
  require(x.ndim() == 3 && !texts.empty() && (x.shape(0) == 1 || texts.size() == 1), "the rows of x do not fit");
  int rows = 0;
  for (const Text& text : texts) {
    require(text.keys.size() == n && text.values.size() == n, "every block needs keys and values");
    for (size_t i = 0; i < n; ++i) {
      mx::Shape shape{x.shape(0), text.tokens, x.shape(2)};
      require_ring(shape, *text.keys[i], *text.values[i], model.blocks[i], text.position, layouts[i]);
    }
    rows += text.tokens;
  }
  require(rows == x.shape(1), "the texts have other tokens than x");
  const mx::array input = evaluated(as_float(x));
  std::vector<Sequences> blocks(n);
  for (const Text& text : texts) {
    wait_for(text.keys);
    wait_for(text.values);
    for (size_t i = 0; i < n; ++i) {
      mx::array &keys = *text.keys[i], &values = *text.values[i];
      make_own(keys);
      make_own(values);
      blocks[i].push_back({ring_in(keys, values, text.position, layouts[i]), x.shape(0), text.tokens});
    }
  }
  mx::Shape shape = x.shape();
  if (head) shape.back() = static_cast<int>(outputs_of(*model.head));
  mx::array y = new_array(shape, mx::float32);
  std::vector<float> copy;
  const float* begin = Floats(input).read(copy);
  if (n > 0)
    run_model(model, blocks, begin, head, y.data<float>());
  else
    compute({{*model.head}, begin, x.shape(0) * x.shape(1), model.norm, Products::EACH, nullptr, {y.data<float>()}});
  return y;
}

}  // namespace kernels
