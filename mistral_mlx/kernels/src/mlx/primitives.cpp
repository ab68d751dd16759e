// The kernels as lazy MLX operations, see primitives.h. What a task points to, MLX keeps until the task is done.
#include "primitives.h"

#include <cstring>
#include <functional>
#include <stdexcept>

#include <mlx/backend/cpu/encoder.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>
#include "../run/attend.h"
#include "../run/block.h"
#include "../run/steps.h"

namespace mx = mlx::core;

namespace kernels {
namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

Float float_type(const mx::array& a) {
  if (a.dtype() == mx::float32) return Float::f32;
  if (a.dtype() == mx::float16) return Float::f16;
  if (a.dtype() == mx::bfloat16) return Float::bf16;
  throw std::invalid_argument("weights, scales, keys and values must be float32, float16 or bfloat16");
}

// A float32 input: its elements in row-major order, copied only where they do not lie so.
struct Floats {
  explicit Floats(const mx::array& a)
      : data(a.data<float>()),
        in_order(a.flags().row_contiguous),
        size(a.size()),
        shape(a.shape()),
        strides(a.strides()) {}

  const float* read(std::vector<float>& copy) const {
    if (in_order) return data;
    copy.resize(size);
    for (size_t i = 0; i < size; ++i) {
      int64_t at = 0;
      size_t rest = i;
      for (int axis = static_cast<int>(shape.size()) - 1; axis >= 0; --axis) {
        at += static_cast<int64_t>(rest % shape[axis]) * strides[axis];
        rest /= shape[axis];
      }
      copy[i] = data[at];
    }
    return copy.data();
  }

  const float* data;
  bool in_order;
  size_t size;
  mx::Shape shape;
  mx::Strides strides;
};

// An operation on the CPU: `start` looks at where the inputs and outputs lie and returns what to run.
class Operation : public mx::Primitive {
 public:
  using Arrays = std::vector<mx::array>;
  using Start = std::function<std::function<void()>(const Arrays& in, Arrays& out)>;
  Operation(mx::Stream stream, const char* name, Start start)
      : Primitive(stream), name_(name), start_(std::move(start)) {}
  const char* name() const override { return name_; }

  void eval_cpu(const Arrays& in, Arrays& out) override {
    mx::cpu::get_command_encoder(stream()).dispatch(start_(in, out));
  }
  void eval_gpu(const Arrays&, Arrays&) override { throw std::runtime_error("the CPU kernels do not run on a GPU"); }

 private:
  const char* name_;
  Start start_;
};

float* allocate(mx::array& out) {
  out.set_data(mx::allocator::malloc(out.nbytes()));
  return out.data<float>();
}

mx::Stream cpu_stream() { return mx::default_stream(mx::Device(mx::Device::cpu)); }

std::shared_ptr<mx::Primitive> operation(const char* name, Operation::Start start) {
  return std::make_shared<Operation>(cpu_stream(), name, std::move(start));
}

// Row-major already, as weights are: an operation less for each of them.
mx::array whole(const mx::array& weight) {
  return weight.is_available() && weight.flags().row_contiguous ? weight : mx::contiguous(weight, false, cpu_stream());
}

mx::array as_float(const mx::array& x) {
  return x.dtype() == mx::float32 ? x : mx::astype(x, mx::float32, cpu_stream());
}

struct Form {            // of a weight: what is known of it beside its arrays
  int bits, group_size;  // 0 bits: plain
};

// The arrays of an operation, each weight checked as it is added.
struct Inputs {
  explicit Inputs(const mx::array& x) : arrays{as_float(x)} {}

  void add(const Weight& w, int64_t n_in) {
    require(w.weight.ndim() == 2 && w.weight.size() > 0, "a weight must be [n_out, n_in], and not empty");
    arrays.push_back(whole(w.weight));
    forms.push_back(w.scales ? Form{w.bits, w.group_size} : Form{0, 0});
    if (!w.scales) {
      float_type(w.weight);
      return require(w.weight.shape(1) == n_in, "x and weight do not fit together");
    }
    require(w.group_size == 32 || w.group_size == 64 || w.group_size == 128, "group_size must be 32, 64 or 128");
    require((w.bits >= 2 && w.bits <= 6) || w.bits == 8, "bits must be 2, 3, 4, 5, 6 or 8");
    require(w.weight.dtype() == mx::uint32, "a packed weight must be uint32");
    require(n_in % w.group_size == 0 && int64_t{w.weight.shape(1)} * 32 == n_in * w.bits,
            "x and weight do not fit together");
    require(
        w.scales->ndim() == 2 && w.scales->shape(0) == w.weight.shape(0) && w.scales->shape(1) == n_in / w.group_size,
        "weight and scales do not fit together");
    require(w.biases && w.scales->shape() == w.biases->shape() && w.scales->dtype() == w.biases->dtype(),
            "scales and biases do not fit together");
    float_type(*w.scales);
    arrays.insert(arrays.end(), {whole(*w.scales), whole(*w.biases)});
  }

  void add(const std::pair<mx::array, float>& norm, int64_t n_in) {
    require(norm.first.ndim() == 1 && norm.first.shape(0) == n_in, "x and norm do not fit together");
    float_type(norm.first);
    arrays.push_back(whole(norm.first));
  }

  std::vector<mx::array> arrays;
  std::vector<Form> forms;
};

// What was added, read back in the same order; `at` moves on.
Matrix matrix_at(const Form& form, const std::vector<mx::array>& in, size_t& at, int64_t n_in) {
  const mx::array* w = &in[at];
  at += form.bits ? 3 : 1;
  if (form.bits == 0) return Dense{w->data<void>(), float_type(*w), w->shape(0), n_in};
  return Packed{w[0].data<uint8_t>(),
                w[1].data<void>(),
                w[2].data<void>(),
                float_type(w[1]),
                form.bits,
                form.group_size,
                w[0].shape(0),
                n_in};
}

Norm norm_at(const std::vector<mx::array>& in, size_t& at, float eps) {
  const mx::array& weight = in[at++];
  return {weight.data<void>(), float_type(weight), eps};
}

// Lets `out` take over the memory of `in` if only the operation holds it, once for each of its outputs; else gives
// `out` memory of its own and returns what is to be copied into it. MLX's own question, is_donatable, is never true of
// an operation with several outputs; an array is a shared pointer and nothing else.
const char* take(const mx::array& in, mx::array& out, size_t n_outputs) {
  static_assert(sizeof(mx::array) == sizeof(std::shared_ptr<void>));
  const long holders = reinterpret_cast<const std::shared_ptr<void>*>(&in)->use_count();
  const auto& data = in.data_shared_ptr();
  if (holders == static_cast<long>(n_outputs) && data.use_count() == 1 && data->is_owned()) {
    out.copy_shared_buffer(in);
    return nullptr;
  }
  out.set_data(mx::allocator::malloc(out.nbytes()));
  return in.data<char>();
}

}  // namespace

std::vector<mx::array> products(const mx::array& x, const std::vector<Weight>& weights, const NormWeight& norm,
                                Products::Then then, const std::optional<mx::array>& residual) {
  require(x.ndim() > 0 && x.size() > 0 && !weights.empty(), "x must not be empty");
  require(weights.size() == (then == Products::ADD      ? 1
                             : then == Products::SWIGLU ? 2
                                                        : weights.size()),
          "too many or too few weights");
  const int64_t n_in = x.shape(-1);
  Inputs in(x);
  std::vector<mx::Shape> shapes;
  for (const Weight& w : weights) {
    in.add(w, n_in);
    shapes.push_back(x.shape());
    shapes.back().back() = w.weight.shape(0);
  }
  if (then == Products::SWIGLU) {
    require(shapes[0] == shapes[1], "gate and up do not fit together");
    shapes.pop_back();
  }
  if (norm) in.add(*norm, n_in);
  require((then == Products::ADD) == residual.has_value() && (!residual || residual->shape() == shapes[0]),
          "the residual does not fit");
  if (residual) in.arrays.push_back(as_float(*residual));
  const auto start = [=, forms = in.forms, has_norm = norm.has_value(), eps = norm ? norm->second : 0.0f](
                         const Operation::Arrays& in, Operation::Arrays& out) {
    Products p{{}, nullptr, static_cast<int64_t>(in[0].size()) / n_in, {}, then, nullptr, {}};
    size_t at = 1;
    for (const Form& form : forms) p.weights.push_back(matrix_at(form, in, at, n_in));
    if (has_norm) p.norm = norm_at(in, at, eps);
    for (mx::array& y : out) p.y.push_back(allocate(y));
    return [p = std::move(p), x = Floats(in[0]), residual = Floats(in.back())]() mutable {
      std::vector<float> first, second;
      p.x = x.read(first);
      if (p.then == Products::ADD) p.residual = residual.read(second);
      compute(p);
    };
  };
  return mx::array::make_arrays(shapes, std::vector<mx::Dtype>(shapes.size(), mx::float32),
                                operation("Products", start), in.arrays);
}

mx::array attention(const mx::array& q, const mx::array& k, const mx::array& v, float scale, int window, int position,
                    bool ring) {
  require(q.ndim() == 4 && k.ndim() == 4 && k.shape() == v.shape() && k.dtype() == v.dtype(),
          "q, k and v do not fit together");
  require(q.shape(0) == k.shape(0) && q.shape(3) == k.shape(3) && k.shape(1) > 0 && q.shape(1) % k.shape(1) == 0 &&
              k.shape(2) >= q.shape(2) && q.size() > 0 && window >= 0,
          "q, k and v do not fit together");
  const int last = position + q.shape(2) - 1;  // the positions of the first and of the last query
  require(ring ? position >= 0 && window > 0 && k.shape(2) % KEYS == 0 && q.shape(2) <= k.shape(2) - window + 1
               : last >= k.shape(2) - 1,
          "the position does not fit the keys");
  float_type(k);
  const auto start = [=](const Operation::Arrays& in, Operation::Arrays& out) {
    const mx::array &q = in[0], &k = in[1], &v = in[2];
    require(q.strides(3) == 1 && k.strides(3) == 1 && v.strides(3) == 1,
            "the elements of a query, key or value must lie in order");
    Attention a{q.data<float>(),
                k.data<void>(),
                v.data<void>(),
                allocate(out[0]),
                float_type(k),
                q.shape(0),
                q.shape(1),
                k.shape(1),
                q.shape(2),
                q.shape(3),
                position,
                ring ? 0 : last + 1 - k.shape(2),
                ring ? k.shape(2) : 0,
                {},
                {},
                {},
                window,
                scale};
    for (int axis = 0; axis < 3; ++axis)
      a.q_strides[axis] = q.strides(axis), a.k_strides[axis] = k.strides(axis), a.v_strides[axis] = v.strides(axis);
    return [a] { attend_all(a); };
  };
  return mx::array({q.shape(0), q.shape(2), q.shape(1) * q.shape(3)}, mx::float32, operation("Attention", start),
                   {as_float(q), k, v});
}

std::vector<mx::array> run_block(const mx::array& x, const mx::array& keys, const mx::array& values,
                                 const std::vector<Weight>& weights, const std::vector<NormWeight>& norms,
                                 const Rotation& rotation, int position, int window, int slots, float scale) {
  require(x.ndim() == 3 && x.size() > 0, "x must be [batch, tokens, dim]");
  require(keys.ndim() == 4 && keys.shape() == values.shape() && keys.dtype() == values.dtype() &&
              keys.shape(0) == x.shape(0) && keys.shape(3) == rotation.head_dim(),
          "keys and values do not fit together");
  require(slots == 0 ? window == 0 : window > 0 && slots > window && slots % KEYS == 0 && keys.shape(2) <= slots,
          "the slots do not fit the window");
  require(position >= 0 && (position + x.shape(1) <= keys.shape(2) || (slots > 0 && keys.shape(2) == slots)),
          "there is no slot for every token");
  require(weights.size() == 7 && norms.size() == 2 && norms[0] && norms[1], "a block has 7 weights and 2 norms");
  float_type(keys);
  Inputs in(x);
  const int dim = x.shape(2), n_q = weights[0].weight.shape(0), n_kv = keys.shape(1) * keys.shape(3),
            hidden = weights[4].weight.shape(0);
  const int n_out[] = {n_q, n_kv, n_kv, dim, hidden, hidden, dim}, n_in[] = {dim, dim, dim, n_q, dim, dim, hidden};
  for (int i = 0; i < 7; ++i) {
    require(weights[i].weight.ndim() == 2 && weights[i].weight.shape(0) == n_out[i],
            "the weights of a block do not fit together");
    in.add(weights[i], n_in[i]);
  }
  require(n_q % n_kv == 0, "the heads are no multiple of those of the keys");
  for (const NormWeight& norm : norms) in.add(*norm, dim);
  in.arrays.insert(in.arrays.end(), {whole(keys), whole(values)});
  const auto start = [=, forms = in.forms, kv_heads = int64_t{keys.shape(1)}, size = int64_t{keys.shape(3)},
                      eps = norms[0]->second,
                      mlp_eps = norms[1]->second](const Operation::Arrays& in, Operation::Arrays& out) {
    size_t at = 1;
    std::vector<Matrix> w;
    for (int i = 0; i < 7; ++i) w.push_back(matrix_at(forms[i], in, at, n_in[i]));
    const Norm attention_norm = norm_at(in, at, eps), mlp_norm = norm_at(in, at, mlp_eps);
    const Block block{attention_norm, mlp_norm, w[0],       w[1],     w[2], w[3],     w[4],
                      w[5],           w[6],     n_q / size, kv_heads, size, rotation, scale};
    float* y = allocate(out[0]);
    const char* copied[2] = {take(in[at], out[1], out.size()), take(in[at + 1], out[2], out.size())};
    const Ring ring{
        out[1].data<void>(), out[2].data<void>(), float_type(out[1]), out[1].shape(2), position, window, slots};
    return [=, x = Floats(in[0]), batch = int64_t{in[0].shape(0)}, tokens = int64_t{in[0].shape(1)},
            nbytes = out[1].nbytes()] {
      if (copied[0] != nullptr) std::memcpy(ring.keys, copied[0], nbytes);
      if (copied[1] != nullptr) std::memcpy(ring.values, copied[1], nbytes);
      std::vector<float> copy;
      run_block(block, ring, x.read(copy), batch, tokens, y);
    };
  };
  return mx::array::make_arrays({x.shape(), keys.shape(), values.shape()}, {mx::float32, keys.dtype(), values.dtype()},
                                operation("Block", start), in.arrays);
}

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  require(x.ndim() > 0 && weight.ndim() == 1 && x.shape(-1) == weight.shape(0) && x.size() > 0,
          "x and weight do not fit together");
  float_type(weight);
  const auto start = [eps](const Operation::Arrays& in, Operation::Arrays& out) {
    const int64_t dim = in[1].size(), rows = static_cast<int64_t>(in[0].size()) / dim;
    return [=, x = Floats(in[0]), norm = Norm{in[1].data<void>(), float_type(in[1]), eps}, y = allocate(out[0])] {
      std::vector<float> copy;
      rms_norm(x.read(copy), norm, rows, dim, y);
    };
  };
  return mx::array(x.shape(), mx::float32, operation("RmsNorm", start), {as_float(x), whole(weight)});
}

mx::array rope(const mx::array& x, const Rotation& rotation, int offset) {
  require(x.ndim() == 4 && x.shape(3) == rotation.head_dim() && x.size() > 0,
          "x must be [batch, heads, n, 2 * frequencies]");
  const auto start = [=](const Operation::Arrays& in, Operation::Arrays& out) {
    const mx::array& a = in[0];
    require(a.strides(3) == 1, "the elements of a head must lie in order");
    return [=, x = a.data<float>(), batch = int64_t{a.shape(0)}, heads = int64_t{a.shape(1)}, n = int64_t{a.shape(2)},
            size = int64_t{a.shape(3)}, y = allocate(out[0]), s0 = a.strides(0), s1 = a.strides(1), s2 = a.strides(2)] {
      rotate(x, {s0, s1, s2}, batch, heads, n, rotation, offset, y, {heads * n * size, n * size, size});
    };
  };
  return mx::array(x.shape(), mx::float32, operation("Rope", start), {as_float(x)});
}

}  // namespace kernels
