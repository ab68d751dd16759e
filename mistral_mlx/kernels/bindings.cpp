// What Python sees of the kernels: mistral_mlx.kernels._ext.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "kernels.h"
#include "pool.h"
#include "primitives.h"

namespace nb = nanobind;
using namespace nb::literals;
using mlx::core::array;

namespace {

// From a tuple (weight, scales, biases, group_size, bits), where scales and biases may be None.
kernels::Weight weight_of(nb::handle given) {
  const nb::tuple parts = nb::cast<nb::tuple>(given);
  if (nb::len(parts) != 5) throw std::invalid_argument("a weight must be (weight, scales, biases, group_size, bits)");
  return {nb::cast<array>(parts[0]), nb::cast<std::optional<array>>(parts[1]), nb::cast<std::optional<array>>(parts[2]),
          nb::cast<int>(parts[3]), nb::cast<int>(parts[4])};
}

std::vector<kernels::Weight> weights_of(const nb::sequence& given) {
  std::vector<kernels::Weight> weights;
  for (nb::handle weight : given) weights.push_back(weight_of(weight));
  return weights;
}

using Norm = std::optional<std::pair<array, float>>;
using kernels::Products;

}  // namespace

NB_MODULE(_ext, m) {
  nb::module_::import_("mlx.core");  // registers the array type, and loads the library this one needs
  m.def("products", [](const array& x, const nb::sequence& weights, const Norm& norm) {
    return kernels::products(x, weights_of(weights), norm, Products::EACH, {});
  }, "x"_a, "weights"_a, "norm"_a = nb::none());
  m.def("add_product", [](const array& residual, const array& x, const nb::tuple& weight) {
    return kernels::products(x, {weight_of(weight)}, {}, Products::ADD, residual)[0];
  }, "residual"_a, "x"_a, "weight"_a);
  m.def("swiglu", [](const array& x, const nb::tuple& gate, const nb::tuple& up, const Norm& norm) {
    return kernels::products(x, {weight_of(gate), weight_of(up)}, norm, Products::SWIGLU, {})[0];
  }, "x"_a, "gate"_a, "up"_a, "norm"_a = nb::none());
  m.def("attention", &kernels::attention, "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a, "window"_a);
  m.def("block_token", [](const array& x, const array& keys, const array& values, const nb::sequence& weights, const std::vector<Norm>& norms,
                          int slot, int seen, int position, double base, float scale) {
    return kernels::block_token(x, keys, values, weights_of(weights), norms, slot, seen, position, base, scale);
  }, "x"_a, "keys"_a, "values"_a, "weights"_a, "norms"_a, nb::kw_only(), "slot"_a, "seen"_a, "position"_a, "base"_a, "scale"_a);
  m.def("rms_norm", nb::overload_cast<const array&, const array&, float>(&kernels::rms_norm), "x"_a, "weight"_a, "eps"_a);
  m.def("rope", &kernels::rope, "x"_a, nb::kw_only(), "base"_a, "offset"_a);
  m.def("name", [] { return kernels::active().name; });
  m.def("select", &kernels::select, "name"_a, "Use the kernels of that name; False if this CPU cannot run them.");
  m.def("threads", &kernels::threads);
  m.def("set_threads", &kernels::set_threads, "n"_a, "0 is the default: physical cores that this process may use.");
  m.def("set_planes", &kernels::set_planes, "n"_a, "Round many rows to 16 bits (2, the default) or 8 bits (1).");
  m.def("read_bandwidth", &kernels::read_bandwidth, "nbytes"_a, "repeats"_a, nb::call_guard<nb::gil_scoped_release>(),
        "Bytes per second that all threads read together.");
}
