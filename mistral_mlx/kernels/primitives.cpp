// The kernels as lazy MLX operations, see primitives.h. What a task points to, MLX keeps until the task is done.
#include "primitives.h"

#include <cstring>
#include <functional>
#include <stdexcept>

#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "products.h"

namespace mx = mlx::core;

namespace kernels {
namespace {

Float float_type(const mx::array& a) {
  if (a.dtype() == mx::float32) return Float::f32;
  if (a.dtype() == mx::float16) return Float::f16;
  if (a.dtype() == mx::bfloat16) return Float::bf16;
  throw std::invalid_argument("weights and scales must be float32, float16 or bfloat16");
}

// A float32 input: its elements in row-major order, copied only where they do not lie so.
struct Floats {
  explicit Floats(const mx::array& a)
      : data(a.data<float>()), in_order(a.flags().row_contiguous), size(a.size()), shape(a.shape()), strides(a.strides()) {}

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

// An operation on the CPU whose first output has the shape and dtype given at construction.
class CpuPrimitive : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("the CPU kernels do not run on a GPU");
  }

 protected:
  mx::cpu::CommandEncoder& encoder() { return mx::cpu::get_command_encoder(stream()); }
};

void allocate(mx::array& out) { out.set_data(mx::allocator::malloc(out.nbytes())); }

class PackedProduct : public CpuPrimitive {
 public:
  PackedProduct(mx::Stream stream, int group, int bits) : CpuPrimitive(stream), group_(group), bits_(bits) {}
  const char* name() const override { return "PackedProduct"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& that = static_cast<const PackedProduct&>(other);
    return group_ == that.group_ && bits_ == that.bits_;
  }

  void eval_cpu(const std::vector<mx::array>& in, std::vector<mx::array>& out) override {
    allocate(out[0]);
    const int64_t n_in = in[0].shape(-1), rows = static_cast<int64_t>(in[0].size()) / n_in;
    const Packed weights{in[1].data<uint8_t>(), in[2].data<void>(), in[3].data<void>(), float_type(in[2]), bits_, group_,
                         in[1].shape(0), n_in};
    encoder().dispatch([=, x = Floats(in[0]), y = out[0].data<float>()] {
      std::vector<float> copy;
      multiply(weights, x.read(copy), rows, y);
    });
  }

 private:
  int group_, bits_;
};

class DenseProduct : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;
  const char* name() const override { return "DenseProduct"; }
  bool is_equivalent(const mx::Primitive&) const override { return true; }

  void eval_cpu(const std::vector<mx::array>& in, std::vector<mx::array>& out) override {
    allocate(out[0]);
    const int64_t n_in = in[0].shape(-1), rows = static_cast<int64_t>(in[0].size()) / n_in;
    const Dense weights{in[1].data<void>(), float_type(in[1]), in[1].shape(0), n_in};
    encoder().dispatch([=, x = Floats(in[0]), y = out[0].data<float>()] {
      std::vector<float> copy;
      multiply(weights, x.read(copy), rows, y);
    });
  }
};

class AttentionPrimitive : public CpuPrimitive {
 public:
  AttentionPrimitive(mx::Stream stream, float scale, int window) : CpuPrimitive(stream), scale_(scale), window_(window) {}
  const char* name() const override { return "Attention"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& that = static_cast<const AttentionPrimitive&>(other);
    return scale_ == that.scale_ && window_ == that.window_;
  }

  void eval_cpu(const std::vector<mx::array>& in, std::vector<mx::array>& out) override {
    allocate(out[0]);
    const mx::array &q = in[0], &k = in[1], &v = in[2];
    if (k.strides(3) != 1 || v.strides(3) != 1) throw std::invalid_argument("the elements of a key or value must lie in order");
    Attention a{nullptr, k.data<void>(), v.data<void>(), out[0].data<float>(), float_type(k), q.shape(0), q.shape(1), k.shape(1),
                q.shape(2), k.shape(2), q.shape(3), {}, {}, window_, scale_};
    for (int axis = 0; axis < 3; ++axis) a.k_strides[axis] = k.strides(axis), a.v_strides[axis] = v.strides(axis);
    encoder().dispatch([a, q = Floats(q)]() mutable {
      std::vector<float> copy;
      a.q = q.read(copy);
      attend_all(a);
    });
  }

 private:
  float scale_;
  int window_;
};

// A small step: `start` reads the inputs where they lie and returns what to run.
class Step : public CpuPrimitive {
 public:
  using Start = std::function<std::function<void()>(const std::vector<mx::array>& in, float* out)>;
  Step(mx::Stream stream, const char* name, Start start) : CpuPrimitive(stream), name_(name), start_(std::move(start)) {}
  const char* name() const override { return name_; }

  void eval_cpu(const std::vector<mx::array>& in, std::vector<mx::array>& out) override {
    allocate(out[0]);
    encoder().dispatch(start_(in, out[0].data<float>()));
  }

 private:
  const char* name_;
  Start start_;
};

mx::Stream cpu_stream() { return mx::default_stream(mx::Device(mx::Device::cpu)); }

// Row-major already, as weights are: an operation less for each of them.
mx::array whole(const mx::array& weight, mx::Stream stream) {
  return weight.is_available() && weight.flags().row_contiguous ? weight : mx::contiguous(weight, false, stream);
}

mx::array as_float(const mx::array& x, mx::Stream stream) { return x.dtype() == mx::float32 ? x : mx::astype(x, mx::float32, stream); }

mx::array product(const mx::array& x, int n_out, std::shared_ptr<mx::Primitive> primitive, std::vector<mx::array> inputs) {
  mx::Shape shape = x.shape();
  shape.back() = n_out;
  if (x.size() == 0 || n_out == 0) return mx::zeros(shape, mx::float32, primitive->stream());
  return mx::array(std::move(shape), mx::float32, std::move(primitive), std::move(inputs));
}

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

}  // namespace

mx::array quantized_matmul(const mx::array& x, const mx::array& weight, const mx::array& scales, const mx::array& biases,
                           int group_size, int bits) {
  require(group_size == 32 || group_size == 64 || group_size == 128, "group_size must be 32, 64 or 128");
  require((bits >= 2 && bits <= 6) || bits == 8, "bits must be 2, 3, 4, 5, 6 or 8");
  require(x.ndim() > 0 && weight.ndim() == 2 && weight.dtype() == mx::uint32, "weight must be uint32 [n_out, words]");
  const int64_t n_in = x.shape(-1);
  require(n_in > 0 && n_in % group_size == 0 && int64_t{weight.shape(1)} * 32 == n_in * bits, "x and weight do not fit together");
  require(scales.ndim() == 2 && scales.shape(0) == weight.shape(0) && scales.shape(1) == n_in / group_size,
          "weight and scales do not fit together");
  require(scales.shape() == biases.shape() && scales.dtype() == biases.dtype(), "scales and biases do not fit together");
  float_type(scales);
  const mx::Stream stream = cpu_stream();
  return product(x, weight.shape(0), std::make_shared<PackedProduct>(stream, group_size, bits),
                 {as_float(x, stream), whole(weight, stream), whole(scales, stream), whole(biases, stream)});
}

mx::array matmul(const mx::array& x, const mx::array& weight) {
  require(x.ndim() > 0 && weight.ndim() == 2 && x.shape(-1) == weight.shape(1) && x.shape(-1) > 0, "x and weight do not fit together");
  float_type(weight);
  const mx::Stream stream = cpu_stream();
  return product(x, weight.shape(0), std::make_shared<DenseProduct>(stream), {as_float(x, stream), whole(weight, stream)});
}

mx::array attention(const mx::array& q, const mx::array& k, const mx::array& v, float scale, int window) {
  require(q.ndim() == 4 && k.ndim() == 4 && k.shape() == v.shape() && k.dtype() == v.dtype(), "q, k and v do not fit together");
  require(q.shape(0) == k.shape(0) && q.shape(3) == k.shape(3) && k.shape(1) > 0 && q.shape(1) % k.shape(1) == 0 &&
              k.shape(2) >= q.shape(2) && q.size() > 0 && window >= 0,
          "q, k and v do not fit together");
  float_type(k);
  const mx::Stream stream = cpu_stream();
  return mx::array(q.shape(), mx::float32, std::make_shared<AttentionPrimitive>(stream, scale, window), {as_float(q, stream), k, v});
}

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  require(x.ndim() > 0 && weight.ndim() == 1 && x.shape(-1) == weight.shape(0) && x.size() > 0, "x and weight do not fit together");
  float_type(weight);
  const mx::Stream stream = cpu_stream();
  const auto start = [eps](const std::vector<mx::array>& in, float* out) {
    const int64_t dim = in[1].size(), rows = static_cast<int64_t>(in[0].size()) / dim;
    return [=, x = Floats(in[0]), weight = in[1].data<void>(), type = float_type(in[1])] {
      std::vector<float> copy;
      rms_norm(x.read(copy), weight, type, eps, rows, dim, out);
    };
  };
  return mx::array(x.shape(), mx::float32, std::make_shared<Step>(stream, "RmsNorm", start), {as_float(x, stream), whole(weight, stream)});
}

mx::array rope(const mx::array& x, double base, int offset) {
  require(x.ndim() == 4 && x.shape(3) % 2 == 0 && x.size() > 0, "x must be [batch, heads, n, head_dim], head_dim even");
  const mx::Stream stream = cpu_stream();
  const auto start = [=](const std::vector<mx::array>& in, float* out) {
    const mx::array& a = in[0];
    return [=, x = Floats(a), batch = a.shape(0), heads = a.shape(1), n = a.shape(2), head_dim = a.shape(3)] {
      if (x.strides[3] == 1) return rotate(x.data, {x.strides[0], x.strides[1], x.strides[2]}, batch, heads, n, head_dim, base, offset, out);
      std::vector<float> copy;
      const int64_t row = int64_t{n} * head_dim;
      rotate(x.read(copy), {heads * row, row, head_dim}, batch, heads, n, head_dim, base, offset, out);
    };
  };
  return mx::array(x.shape(), mx::float32, std::make_shared<Step>(stream, "Rope", start), {as_float(x, stream)});
}

mx::array silu_times(const mx::array& gate, const mx::array& up) {
  require(gate.shape() == up.shape() && gate.size() > 0, "gate and up do not fit together");
  const mx::Stream stream = cpu_stream();
  const auto start = [](const std::vector<mx::array>& in, float* out) {
    return [=, gate = Floats(in[0]), up = Floats(in[1])] {
      std::vector<float> first, second;
      silu_times(gate.read(first), up.read(second), static_cast<int64_t>(gate.size), out);
    };
  };
  return mx::array(gate.shape(), mx::float32, std::make_shared<Step>(stream, "SiluTimes", start), {as_float(gate, stream), as_float(up, stream)});
}

}  // namespace kernels
