// The kernels as lazy MLX operations, see primitives.h.
#include "primitives.h"

#include <numeric>

#include <mlx/transforms.h>

#include "../run/attend.h"
#include "../run/panels.h"
#include "operation.h"

namespace kernels {

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
                    bool ring, int sinks) {
  require(q.ndim() == 4 && k.ndim() == 4 && k.shape() == v.shape() && k.dtype() == v.dtype(),
          "q, k and v do not fit together");
  const Float type = cached_type(k);
  const int n_keys = k.shape(2) - sinks;
  require(q.shape(0) == k.shape(0) && k.shape(3) == row_elements(q.shape(3), type) && k.shape(1) > 0 &&
              q.shape(1) % k.shape(1) == 0 && n_keys >= q.shape(2) && q.size() > 0 && window >= 0,
          "q, k and v do not fit together");
  require(sinks >= 0 && sinks <= (window > 0 ? KEYS : 0), "the sinks do not fit the window");
  const int last = position + q.shape(2) - 1;  // the positions of the first and of the last query
  require(ring ? position >= 0 && window > 0 && n_keys % KEYS == 0 && q.shape(2) <= n_keys - window + 1
               : last >= n_keys - 1,
          "the position does not fit the keys");
  const auto start = [=](const Operation::Arrays& in, Operation::Arrays& out) {
    const mx::array &q = in[0], &k = in[1], &v = in[2];
    require(q.strides(3) == 1 && k.strides(3) == 1 && v.strides(3) == 1,
            "the elements of a query, key or value must lie in order");
    Attention a{q.data<float>(),
                k.data<void>(),
                v.data<void>(),
                allocate(out[0]),
                type,
                q.shape(0),
                q.shape(1),
                k.shape(1),
                q.shape(2),
                q.shape(3),
                position,
                ring ? 0 : last + 1 - n_keys,
                ring ? n_keys : 0,
                {},
                {},
                {},
                int64_t{q.shape(1)} * q.shape(2) * q.shape(3),
                window,
                scale,
                sinks};
    for (int axis = 0; axis < 3; ++axis)
      a.q_strides[axis] = q.strides(axis), a.k_strides[axis] = k.strides(axis), a.v_strides[axis] = v.strides(axis);
    return [a] { attend_all({a}); };
  };
  return mx::array({q.shape(0), q.shape(2), q.shape(1) * q.shape(3)}, mx::float32, operation("Attention", start),
                   {as_float(q), k, v});
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

mx::array rope(const mx::array& x, const Rotation& rotation, const QueryScale& scale, int offset) {
  require(x.ndim() == 4 && x.shape(3) == rotation.head_dim() && x.size() > 0,
          "x must be [batch, heads, n, 2 * frequencies]");
  const auto start = [=](const Operation::Arrays& in, Operation::Arrays& out) {
    const mx::array& a = in[0];
    require(a.strides(3) == 1, "the elements of a head must lie in order");
    return [=, x = a.data<float>(), batch = int64_t{a.shape(0)}, heads = int64_t{a.shape(1)}, n = int64_t{a.shape(2)},
            size = int64_t{a.shape(3)}, y = allocate(out[0]), s0 = a.strides(0), s1 = a.strides(1), s2 = a.strides(2)] {
      std::vector<int64_t> positions(n);
      std::iota(positions.begin(), positions.end(), offset);
      rotate(x, {s0, s1, s2}, batch, heads, positions, rotation, scale, y, {heads * n * size, n * size, size});
    };
  };
  return mx::array(x.shape(), mx::float32, operation("Rope", start), {as_float(x)});
}

mx::array embedded(const mx::array& ids, const Weight& weight) {
  const int dim = weight.weight.ndim() == 2
                      ? weight.weight.shape(1) * (weight.scales ? 32 : 1) / (weight.scales ? weight.bits : 1)
                      : 0;
  Inputs in(mx::array(0.0f));
  in.add(weight, dim);
  in.arrays.push_back(whole(mx::astype(ids, mx::int32, cpu_stream())));
  mx::eval(in.arrays);
  size_t at = 1;
  const Matrix table = matrix_at(in.forms[0], in.arrays, at, dim);
  mx::Shape shape = ids.shape();
  shape.push_back(dim);
  mx::array rows = new_array(shape, mx::float32);
  for (size_t i = 0; i < ids.size(); ++i)
    unpack_row(table, in.arrays.back().data<int>()[i], rows.data<float>() + i * dim);
  return rows;
}

}  // namespace kernels
