// What Python sees of the kernels: mistral_mlx.kernels._ext.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "../contract.h"
#include "../run/cpus.h"
#include "../run/pool.h"
#include "../run/products.h"
#include "../run/quantize.h"
#include "blocks.h"
#include "mapped.h"
#include "primitives.h"
#include "ranks.h"

namespace nb = nanobind;
using namespace nb::literals;
using mlx::core::array;

namespace {

// From a tuple (weight, scales, biases, group_size, bits, mode), where scales and biases may be None.
kernels::Weight weight_of(nb::handle given) {
  const nb::tuple parts = nb::cast<nb::tuple>(given);
  if (nb::len(parts) != 6)
    throw std::invalid_argument("a weight must be (weight, scales, biases, group_size, bits, mode)");
  if (nb::cast<std::string>(parts[5]) != "affine")
    throw std::invalid_argument("the CPU kernels know the affine mode only");
  return {nb::cast<array>(parts[0]), nb::cast<std::optional<array>>(parts[1]), nb::cast<std::optional<array>>(parts[2]),
          nb::cast<int>(parts[3]), nb::cast<int>(parts[4])};
}

std::vector<kernels::Weight> weights_of(const nb::sequence& given) {
  std::vector<kernels::Weight> weights;
  for (nb::handle weight : given) weights.push_back(weight_of(weight));
  return weights;
}

// From a tuple (frequencies, factor, base); the base is for MLX's own operation.
kernels::Rotation rotation_of(nb::handle given) {
  using Frequencies = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  const nb::tuple parts = nb::cast<nb::tuple>(given);
  if (nb::len(parts) != 3) throw std::invalid_argument("a rotation must be (frequencies, factor, base)");
  const auto frequencies = nb::cast<Frequencies>(parts[0]);
  return {{frequencies.data(), frequencies.data() + frequencies.size()}, nb::cast<double>(parts[1])};
}

// From a tuple (beta, original) or None, which scales nothing.
using GivenScale = std::optional<std::pair<double, int64_t>>;
kernels::QueryScale query_scale_of(const GivenScale& given) {
  if (!given) return {};
  if (given->second < 1) throw std::invalid_argument("a query scale must have 1 original position or more");
  return {given->first, given->second};
}

std::vector<array*> pointers_to(const nb::list& arrays) {
  std::vector<array*> given;
  given.reserve(nb::len(arrays));
  for (nb::handle one : arrays) given.push_back(nb::cast<array*>(one));
  return given;
}

// From a tuple (keys, values, position, tokens).
kernels::Text text_of(nb::handle given) {
  const nb::tuple parts = nb::cast<nb::tuple>(given);
  if (nb::len(parts) != 4) throw std::invalid_argument("a text must be (keys, values, position, tokens)");
  return {pointers_to(nb::cast<nb::list>(parts[0])), pointers_to(nb::cast<nb::list>(parts[1])), nb::cast<int>(parts[2]),
          nb::cast<int>(parts[3])};
}

// From a tuple (window, slots, sinks).
kernels::Layout layout_of(nb::handle given) {
  const auto [window, slots, sinks] = nb::cast<std::tuple<int, int, int>>(given);
  return {window, slots, sinks};
}

using Norm = std::optional<std::pair<array, float>>;
using kernels::Products;

using Input = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Importance = std::optional<nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>>;
using Output = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

kernels::Float float_type(const std::string& name) {  // as safetensors spells it
  if (name == "F32") return kernels::Float::f32;
  if (name == "F16") return kernels::Float::f16;
  if (name == "BF16") return kernels::Float::bf16;
  throw std::invalid_argument("the type must be F32, F16 or BF16");
}

int64_t bytes_of(kernels::Float type) { return type == kernels::Float::f32 ? 4 : 2; }

void require_shape(const Output& out, int64_t rows, int64_t bytes) {
  if (static_cast<int64_t>(out.shape(0)) != rows || static_cast<int64_t>(out.shape(1)) != bytes)
    throw std::invalid_argument("weight, scales or biases do not fit rows");
}

nb::tuple quantize(const Input& rows, const std::string& stored, const std::string& dtype, int group_size, int bits,
                   const Output& weight, const Output& scales, const Output& biases, bool search,
                   const Importance& importance) {
  const kernels::Unpacked from{rows.data(), float_type(stored)};
  const int64_t n_out = rows.shape(0), n_in = static_cast<int64_t>(rows.shape(1)) / bytes_of(from.type);
  if (group_size != 32 && group_size != 64 && group_size != 128)
    throw std::invalid_argument("group_size must be 32, 64 or 128");
  if ((bits < 2 || bits > 6) && bits != 8) throw std::invalid_argument("bits must be 2, 3, 4, 5, 6 or 8");
  if (n_in % group_size != 0 || n_in * bytes_of(from.type) != static_cast<int64_t>(rows.shape(1)))
    throw std::invalid_argument("a row must be a whole number of groups");
  const kernels::PackedOut to{weight.data(), scales.data(), biases.data(), float_type(dtype),
                              bits,          group_size,    n_out,         n_in};
  require_shape(weight, n_out, n_in * bits / 8);
  require_shape(scales, n_out, n_in / group_size * bytes_of(to.type));
  require_shape(biases, n_out, n_in / group_size * bytes_of(to.type));
  if (importance && static_cast<int64_t>(importance->shape(0)) != n_in)
    throw std::invalid_argument("importance does not fit rows");
  kernels::Loss loss;
  {
    nb::gil_scoped_release release;
    loss = kernels::quantize(from, to, search, importance ? importance->data() : nullptr);
  }
  return nb::make_tuple(loss.error, loss.norm, loss.largest, loss.finite);
}

}  // namespace

NB_MODULE(_ext, m) {
  nb::module_::import_("mlx.core");  // registers the array type, and loads the library this one needs
  m.def(
      "products",
      [](const array& x, const nb::sequence& weights, const Norm& norm) {
        return kernels::products(x, weights_of(weights), norm, Products::EACH, {});
      },
      "x"_a, "weights"_a, "norm"_a = nb::none());
  m.def(
      "add_product",
      [](const array& residual, const array& x, const nb::tuple& weight) {
        return kernels::products(x, {weight_of(weight)}, {}, Products::ADD, residual)[0];
      },
      "residual"_a, "x"_a, "weight"_a);
  m.def(
      "swiglu",
      [](const array& x, const nb::tuple& gate, const nb::tuple& up, const Norm& norm) {
        return kernels::products(x, {weight_of(gate), weight_of(up)}, norm, Products::SWIGLU, {})[0];
      },
      "x"_a, "gate"_a, "up"_a, "norm"_a = nb::none());
  m.def("attention", &kernels::attention, "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a, "window"_a, "position"_a,
        "ring"_a = false, "sinks"_a = 0);
  nb::class_<kernels::Ready>(m, "Ready", "Weights made ready once for many calls.")
      .def(
          "holds",
          [](const kernels::Ready& self, const nb::list& arrays) {
            const std::vector<array*> given = pointers_to(arrays);
            return self.holds({given.begin(), given.end()});
          },
          "arrays"_a, "Whether it was made of these arrays, in this order.");
  nb::class_<kernels::ReadyBlock, kernels::Ready>(m, "ReadyBlock", "A transformer block made ready.")
      .def(
          "__init__",
          [](kernels::ReadyBlock* self, const nb::sequence& weights, const std::vector<Norm>& norms,
             const nb::tuple& rotation, const GivenScale& query_scale, float scale, int kv_heads, int experts_used,
             std::optional<int> rank, bool copy) {
            new (self) kernels::ReadyBlock({weights_of(weights), norms, rotation_of(rotation),
                                            query_scale_of(query_scale), scale, kv_heads, experts_used, rank},
                                           copy);
          },
          "weights"_a, "norms"_a, "rotation"_a, "query_scale"_a.none(), "scale"_a, "n_kv_heads"_a, "n_used"_a,
          "rank"_a.none(), "copy"_a)
      .def(
          "run",
          [](const kernels::ReadyBlock& self, const array& x, const array& keys, const array& values, int position,
             const nb::tuple& layout) { return self.run(x, keys, values, position, layout_of(layout)); },
          "x"_a, "keys"_a, "values"_a, nb::kw_only(), "position"_a, "layout"_a);
  nb::class_<kernels::ReadyModel, kernels::Ready>(m, "ReadyModel", "All blocks of a model, its last norm and its head.")
      .def(
          "__init__",
          [](kernels::ReadyModel* self, const std::vector<const kernels::ReadyBlock*>& blocks, const Norm& norm,
             const std::optional<nb::tuple>& head, bool copy) {
            std::optional<kernels::Weight> weight;
            if (head) weight = weight_of(*head);
            new (self) kernels::ReadyModel(blocks, norm, weight, copy);
          },
          "blocks"_a, "norm"_a.none(), "head"_a.none(), "copy"_a)
      .def(
          "run",
          [](const kernels::ReadyModel& self, const array& x, const nb::sequence& texts, const nb::sequence& layouts,
             bool head) {
            std::vector<kernels::Text> given;
            for (const nb::handle text : texts) given.push_back(text_of(text));
            std::vector<kernels::Layout> rings;
            for (const nb::handle layout : layouts) rings.push_back(layout_of(layout));
            nb::gil_scoped_release release;
            return self.run(x, given, rings, head);
          },
          "x"_a, "texts"_a, nb::kw_only(), "layouts"_a, "head"_a,
          "texts are (keys, values, position, tokens), keys and values a list with an array for each block.");
  m.def(
      "embedded", [](const array& ids, const nb::tuple& weight) { return kernels::embedded(ids, weight_of(weight)); },
      "ids"_a, "weight"_a, "Rows of a weight as float32.");
  m.def("rms_norm", nb::overload_cast<const array&, const array&, float>(&kernels::rms_norm), "x"_a, "weight"_a,
        "eps"_a);
  m.def(
      "rope",
      [](const array& x, const nb::tuple& rotation, const GivenScale& scale, int offset) {
        return kernels::rope(x, rotation_of(rotation), query_scale_of(scale), offset);
      },
      "x"_a, "rotation"_a, "scale"_a = nb::none(), nb::kw_only(), "offset"_a);
  m.def("join_ranks", &kernels::join_ranks, "backend"_a, nb::call_guard<nb::gil_scoped_release>(),
        "Join the processes that MLX's launcher started, while other threads of Python go on.");
  m.def(
      "sum_over_ranks",
      [](const nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>& x) {
        kernels::sum_over_ranks(x.data(), static_cast<int64_t>(x.size()));
      },
      "x"_a, nb::call_guard<nb::gil_scoped_release>(), "Put the sum over all ranks in the place of float32 numbers.");
  m.def("map_tensors", &kernels::map_tensors, "fd"_a, "parts"_a, "all"_a = true,
        "Arrays over (start, shape, dtype) of an open file, not copied.");
  m.def("is_mapped", &kernels::is_mapped, "array"_a, "Whether an array lies in a file.");
  m.def("quantize", &quantize, "rows"_a, "stored"_a, "dtype"_a, nb::kw_only(), "group_size"_a, "bits"_a, "weight"_a,
        "scales"_a, "biases"_a, "search"_a = false, "importance"_a = nb::none(),
        "Fill the bytes of weight, scales and biases; return (error, norm, largest, finite), see quantize.h.");
  m.def("name", [] { return kernels::active().name; });
  m.def("sets", &kernels::sets, "The names of the sets of kernels that this CPU can run, the best one first.");
  m.def("select", &kernels::select, "name"_a, "Use the kernels of that name; False if it is not one of `sets`.");
  m.def("threads", &kernels::threads);
  m.def("set_threads", &kernels::set_threads, "n"_a,
        "0 is the default: fast physical cores that this process may use.");
  m.def("cpu_quota", &kernels::cpu_quota, "process"_a = "/proc/self/cgroup", "mounts"_a = "/proc/self/mountinfo",
        "Whole CPUs that the control groups listed in the file `process` allow.");
  m.def("count_cores", &kernels::count_cores, "cpus"_a, "devices"_a = "/sys/devices",
        "The physical cores among `cpus` that are worth a thread, see cpus.h.");
  m.def(
      "run_pieces",
      [](int64_t n, const nb::callable& piece) {
        nb::gil_scoped_release release;
        kernels::parallel(n, [&](int64_t i) {
          nb::gil_scoped_acquire acquire;
          piece(i);
        });
      },
      "n"_a, "piece"_a, "Call piece(i) for i in [0, n) on all threads; for tests of the threads.");
  m.def("set_exact", &kernels::set_exact, "on"_a,
        "Round activations to exact codes, or to rotated ones (the default).");
  m.def("exact", &kernels::exact);
  m.def("read_bandwidth", &kernels::read_bandwidth, "nbytes"_a, "repeats"_a, nb::call_guard<nb::gil_scoped_release>(),
        "Bytes per second that all threads read together.");
}
