// What the operations of primitives.cpp and blocks.cpp share: their inputs, checked and read back, and where their
// results lie. What a task points to, MLX keeps until the task is done.
#pragma once
#include <functional>
#include <memory>
#include <stdexcept>

#include <mlx/backend/cpu/encoder.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>
#include "primitives.h"

namespace kernels {

namespace mx = mlx::core;

inline void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

inline Float float_type(const mx::array& a) {
  if (a.dtype() == mx::float32) return Float::f32;
  if (a.dtype() == mx::float16) return Float::f16;
  if (a.dtype() == mx::bfloat16) return Float::bf16;
  throw std::invalid_argument("weights, scales, keys and values must be float32, float16 or bfloat16");
}

inline Float cached_type(const mx::array& a) { return a.dtype() == mx::int8 ? Float::q8 : float_type(a); }

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

inline float* allocate(mx::array& out) {
  out.set_data(mx::allocator::malloc(out.nbytes()));
  return out.data<float>();
}

inline mx::Stream cpu_stream() { return mx::default_stream(mx::Device(mx::Device::cpu)); }

inline std::shared_ptr<mx::Primitive> operation(const char* name, Operation::Start start) {
  return std::make_shared<Operation>(cpu_stream(), name, std::move(start));
}

// Row-major already, as weights are: an operation less for each of them.
inline mx::array whole(const mx::array& weight) {
  return weight.is_available() && weight.flags().row_contiguous ? weight : mx::contiguous(weight, false, cpu_stream());
}

// An array that is there, with memory that nothing was written to yet.
inline mx::array new_array(const mx::Shape& shape, mx::Dtype dtype) {
  size_t nbytes = mx::size_of(dtype);
  for (const int n : shape) nbytes *= n;
  return mx::array(mx::allocator::malloc(nbytes), shape, dtype);
}

inline mx::array evaluated(mx::array array) {
  if (!array.is_available()) array.eval();
  return array;
}

inline mx::array as_float(const mx::array& x) {
  return x.dtype() == mx::float32 ? x : mx::astype(x, mx::float32, cpu_stream());
}

struct Form {            // of a weight: what is known of it beside its arrays
  int bits, group_size;  // 0 bits: plain
};

// The arrays of an operation, each weight checked as it is added.
struct Inputs {
  explicit Inputs(const mx::array& x) : arrays{as_float(x)} {}

  void add(const Weight& w, int64_t n_in) {
    require(w.weight.ndim() == 2, "a weight must be [n_out, n_in]");
    add_lines(w, n_in);
  }

  // A weight of each expert, [experts, n_out, n_in], whose rows are read back as those of one weight.
  void add_experts(const Weight& w, int64_t n_in) {
    require(w.weight.ndim() == 3, "weights of experts must be [experts, n_out, n_in]");
    add_lines(w, n_in);
  }

  void add(const std::pair<mx::array, float>& norm, int64_t n_in) {
    require(norm.first.ndim() == 1 && norm.first.shape(0) == n_in, "x and norm do not fit together");
    float_type(norm.first);
    arrays.push_back(whole(norm.first));
  }

  std::vector<mx::array> arrays;
  std::vector<Form> forms;

 private:
  void add_lines(const Weight& w, int64_t n_in) {
    require(w.weight.size() > 0, "a weight must not be empty");
    arrays.push_back(whole(w.weight));
    forms.push_back(w.scales ? Form{w.bits, w.group_size} : Form{0, 0});
    if (!w.scales) {
      float_type(w.weight);
      return require(w.weight.shape(-1) == n_in, "x and weight do not fit together");
    }
    require(w.group_size == 32 || w.group_size == 64 || w.group_size == 128, "group_size must be 32, 64 or 128");
    require((w.bits >= 2 && w.bits <= 6) || w.bits == 8, "bits must be 2, 3, 4, 5, 6 or 8");
    require(w.weight.dtype() == mx::uint32, "a packed weight must be uint32");
    require(n_in % w.group_size == 0 && int64_t{w.weight.shape(-1)} * 32 == n_in * w.bits,
            "x and weight do not fit together");
    mx::Shape groups = w.weight.shape();
    groups.back() = static_cast<int>(n_in / w.group_size);
    require(w.scales->shape() == groups, "weight and scales do not fit together");
    require(w.biases && w.scales->shape() == w.biases->shape() && w.scales->dtype() == w.biases->dtype(),
            "scales and biases do not fit together");
    float_type(*w.scales);
    arrays.insert(arrays.end(), {whole(*w.scales), whole(*w.biases)});
  }
};

inline int64_t rows_of(const mx::array& a) { return static_cast<int64_t>(a.size()) / a.shape(-1); }

// What was added, read back in the same order; `at` moves on.
inline Matrix matrix_at(const Form& form, const std::vector<mx::array>& in, size_t& at, int64_t n_in) {
  const mx::array* w = &in[at];
  at += form.bits ? 3 : 1;
  if (form.bits == 0) return Dense{w->data<void>(), float_type(*w), rows_of(*w), n_in};
  return Packed{w[0].data<uint8_t>(),
                w[1].data<void>(),
                w[2].data<void>(),
                float_type(w[1]),
                form.bits,
                form.group_size,
                rows_of(w[0]),
                n_in};
}

// The weights of n experts that were added together, one after the other.
inline std::vector<Matrix> experts_of(const Matrix& all, int64_t n) {
  std::vector<Matrix> experts;
  for (int64_t e = 0; e < n; ++e) {
    Matrix one = all;
    if (Packed* w = std::get_if<Packed>(&one)) {
      w->n_out /= n;
      const int64_t row = e * w->n_out, line = row * w->groups() * float_bytes(w->type);
      w->codes += row * w->row_bytes();
      w->scales = static_cast<const char*>(w->scales) + line;
      w->biases = static_cast<const char*>(w->biases) + line;
    } else {
      Dense& dense = std::get<Dense>(one);
      dense.n_out /= n;
      dense.weights = static_cast<const char*>(dense.weights) + e * dense.n_out * dense.n_in * float_bytes(dense.type);
    }
    experts.push_back(one);
  }
  return experts;
}

inline Norm norm_at(const std::vector<mx::array>& in, size_t& at, float eps) {
  const mx::array& weight = in[at++];
  return {weight.data<void>(), float_type(weight), eps};
}

// Whether its n holders alone refer to an array and to its memory. MLX's own question, is_donatable, is never true of
// an operation with several outputs; an array is a shared pointer and nothing else.
inline bool is_held_once(const mx::array& array, size_t n) {
  static_assert(sizeof(mx::array) == sizeof(std::shared_ptr<void>));
  const long holders = reinterpret_cast<const std::shared_ptr<void>*>(&array)->use_count();
  const auto& data = array.data_shared_ptr();
  return holders == static_cast<long>(n) && data.use_count() == 1 && data->is_owned();
}

// Lets `out` take over the memory of `in` if only the operation holds it, once for each of its outputs; else gives
// `out` memory of its own and returns what is to be copied into it.
inline const char* take(const mx::array& in, mx::array& out, size_t n_outputs) {
  if (is_held_once(in, n_outputs)) {
    out.copy_shared_buffer(in);
    return nullptr;
  }
  out.set_data(mx::allocator::malloc(out.nbytes()));
  return in.data<char>();
}

}  // namespace kernels
