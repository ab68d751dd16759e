// Transformer blocks as lazy MLX operations, see blocks.h.
#include "blocks.h"

#include <cstring>

#include <mlx/transforms.h>

#include "operation.h"

namespace kernels {
namespace {

void require_ring(const mx::array& x, const mx::array& keys, const mx::array& values, int head_dim, int position,
                  int window, int slots) {
  require(x.ndim() == 3 && x.size() > 0, "x must be [batch, tokens, dim]");
  require(keys.ndim() == 4 && keys.shape() == values.shape() && keys.dtype() == values.dtype() &&
              keys.shape(0) == x.shape(0) && keys.shape(3) == head_dim,
          "keys and values do not fit together");
  require(slots == 0 ? window == 0 : window > 0 && slots > window && slots % KEYS == 0 && keys.shape(2) <= slots,
          "the slots do not fit the window");
  require(position >= 0 && (position + x.shape(1) <= keys.shape(2) || (slots > 0 && keys.shape(2) == slots)),
          "there is no slot for every token");
  float_type(keys);
}

// The weights and norms of a block, checked as they are added.
void add_block(Inputs& in, const std::vector<Weight>& weights, const std::vector<NormWeight>& norms, int dim,
               int n_kv) {
  require(weights.size() == 7 && norms.size() == 2 && norms[0] && norms[1], "a block has 7 weights and 2 norms");
  const int n_q = weights[0].weight.shape(0), hidden = weights[4].weight.shape(0);
  const int n_out[] = {n_q, n_kv, n_kv, dim, hidden, hidden, dim}, n_in[] = {dim, dim, dim, n_q, dim, dim, hidden};
  for (int i = 0; i < 7; ++i) {
    require(weights[i].weight.ndim() == 2 && weights[i].weight.shape(0) == n_out[i],
            "the weights of a block do not fit together");
    in.add(weights[i], n_in[i]);
  }
  require(n_q % n_kv == 0, "the heads are no multiple of those of the keys");
  for (const NormWeight& norm : norms) in.add(*norm, dim);
}

// What add_block added, read back.
Block block_at(const Form* forms, const std::vector<mx::array>& in, size_t& at, const float (&eps)[2], int64_t dim,
               int64_t kv_heads, const Rotation& rotation, float scale) {
  const int64_t size = rotation.head_dim();
  std::vector<Matrix> w;
  for (int i = 0; i < 7; ++i)
    w.push_back(matrix_at(forms[i], in, at, i == 3 ? outputs_of(w[0]) : i == 6 ? outputs_of(w[4]) : dim));
  const Norm attention_norm = norm_at(in, at, eps[0]), mlp_norm = norm_at(in, at, eps[1]);
  return {attention_norm,          mlp_norm, w[0], w[1],     w[2], w[3], w[4], w[5], w[6],
          outputs_of(w[0]) / size, kv_heads, size, rotation, scale};
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
            size_t n_outputs, int position, int window, int slots) {
  const char* copied[2] = {take(keys, new_keys, n_outputs), take(values, new_values, n_outputs)};
  const Ring ring{
      new_keys.data<void>(), new_values.data<void>(), float_type(new_keys), new_keys.shape(2), position, window, slots};
  return {ring, copied[0], copied[1], new_keys.nbytes()};
}

}  // namespace

std::vector<mx::array> run_block(const mx::array& x, const mx::array& keys, const mx::array& values,
                                 const std::vector<Weight>& weights, const std::vector<NormWeight>& norms,
                                 const Rotation& rotation, int position, int window, int slots, float scale) {
  require_ring(x, keys, values, static_cast<int>(rotation.head_dim()), position, window, slots);
  Inputs in(x);
  add_block(in, weights, norms, x.shape(2), keys.shape(1) * keys.shape(3));
  in.arrays.insert(in.arrays.end(), {whole(keys), whole(values)});
  const auto start = [=, forms = in.forms, kv_heads = keys.shape(1), eps = norms[0]->second,
                      mlp_eps = norms[1]->second](const Operation::Arrays& in, Operation::Arrays& out) {
    size_t at = 1;
    const Block block = block_at(forms.data(), in, at, {eps, mlp_eps}, in[0].shape(2), kv_heads, rotation, scale);
    const Taken ring = taken(in[at], in[at + 1], out[1], out[2], out.size(), position, window, slots);
    return [=, x = Floats(in[0]), batch = in[0].shape(0), tokens = in[0].shape(1), y = allocate(out[0])] {
      ring.copy();
      std::vector<float> copy;
      run_block(block, ring.ring, x.read(copy), batch, tokens, y);
    };
  };
  return mx::array::make_arrays({x.shape(), keys.shape(), values.shape()}, {mx::float32, keys.dtype(), values.dtype()},
                                operation("Block", start), in.arrays);
}

struct ReadyModel::State {
  std::vector<mx::array> originals;  // it was made of these,
  std::vector<mx::array> arrays;     // and reads these: the same, or copies that are whole
  Model model;
};

ReadyModel::ReadyModel(const std::vector<BlockWeights>& blocks, const NormWeight& norm, const Weight& head) {
  require(!blocks.empty() && norm, "a model has blocks and a norm");
  auto state = std::make_shared<State>();
  const auto given = [&](const Weight& w) {
    state->originals.push_back(w.weight);
    if (w.scales) state->originals.push_back(*w.scales);
    if (w.biases) state->originals.push_back(*w.biases);
  };
  const int dim = norm->first.size();
  Inputs in(norm->first);  // in place of x, which is given later
  for (const BlockWeights& block : blocks) {
    add_block(in, block.weights, block.norms, dim, block.kv_heads * static_cast<int>(block.rotation.head_dim()));
    for (const Weight& weight : block.weights) given(weight);
    for (const NormWeight& weight : block.norms) state->originals.push_back(weight->first);
  }
  in.add(*norm, dim);
  in.add(head, dim);
  state->originals.push_back(norm->first);
  given(head);
  mx::eval(in.arrays);
  size_t at = 1, form = 0;
  for (const BlockWeights& b : blocks) {
    state->model.blocks.push_back(block_at(&in.forms[form], in.arrays, at, {b.norms[0]->second, b.norms[1]->second},
                                           dim, b.kv_heads, b.rotation, b.scale));
    form += 7;
  }
  state->model.norm = norm_at(in.arrays, at, norm->second);
  state->model.head = matrix_at(in.forms[form], in.arrays, at, dim);
  state->arrays = std::move(in.arrays);
  state_ = std::move(state);
}

bool ReadyModel::holds(const std::vector<const mx::array*>& arrays) const {
  if (arrays.size() != state_->originals.size()) return false;
  for (size_t i = 0; i < arrays.size(); ++i)
    if (arrays[i]->id() != state_->originals[i].id()) return false;
  return true;
}

std::vector<mx::array> ReadyModel::run(const mx::array& x, const std::vector<mx::array>& keys,
                                       const std::vector<mx::array>& values, int position,
                                       const std::vector<int>& windows, const std::vector<int>& slots,
                                       bool head) const {
  const size_t n = state_->model.blocks.size();
  require(keys.size() == n && values.size() == n && windows.size() == n && slots.size() == n,
          "every block needs keys, values, a window and slots");
  require(x.ndim() == 3 && x.shape(2) == inputs_of(state_->model.head), "x must be [batch, tokens, dim]");
  std::vector<mx::array> in{as_float(x)};
  std::vector<mx::Shape> shapes{x.shape()};
  std::vector<mx::Dtype> dtypes{mx::float32};
  if (head) shapes[0].back() = static_cast<int>(outputs_of(state_->model.head));
  for (const auto* rings : {&keys, &values})
    for (size_t i = 0; i < n; ++i) {
      const Block& block = state_->model.blocks[i];
      require_ring(x, keys[i], values[i], static_cast<int>(block.head_dim), position, windows[i], slots[i]);
      require(keys[i].shape(1) == block.kv_heads, "keys and values do not fit together");
      in.push_back(whole((*rings)[i]));
      shapes.push_back((*rings)[i].shape());
      dtypes.push_back((*rings)[i].dtype());
    }
  const auto start = [=, state = state_](const Operation::Arrays& in, Operation::Arrays& out) {
    std::vector<Taken> rings;
    for (size_t i = 0; i < n; ++i)
      rings.push_back(
          taken(in[1 + i], in[1 + n + i], out[1 + i], out[1 + n + i], out.size(), position, windows[i], slots[i]));
    return [=, x = Floats(in[0]), batch = in[0].shape(0), tokens = in[0].shape(1), y = allocate(out[0])] {
      std::vector<Ring> ready;
      for (const Taken& ring : rings) ring.copy(), ready.push_back(ring.ring);
      std::vector<float> copy;
      run_model(state->model, ready, x.read(copy), batch, tokens, head, y);
    };
  };
  return mx::array::make_arrays(shapes, dtypes, operation("Model", start), in);
}

}  // namespace kernels
