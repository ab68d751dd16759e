// What Python sees of the kernels: mistral_mlx.kernels._ext.
#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "kernels.h"
#include "mapped.h"
#include "pool.h"
#include "primitives.h"
#include "products.h"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_ext, m) {
  nb::module_::import_("mlx.core");  // registers the array type, and loads the library this one needs
  m.def("quantized_matmul", &kernels::quantized_matmul, "x"_a, "weight"_a, "scales"_a, "biases"_a, nb::kw_only(), "group_size"_a,
        "bits"_a);
  m.def("matmul", &kernels::matmul, "x"_a, "weight"_a);
  m.def("attention", &kernels::attention, "q"_a, "k"_a, "v"_a, nb::kw_only(), "scale"_a, "window"_a);
  m.def("rms_norm", nb::overload_cast<const mlx::core::array&, const mlx::core::array&, float>(&kernels::rms_norm), "x"_a, "weight"_a, "eps"_a);
  m.def("rope", &kernels::rope, "x"_a, nb::kw_only(), "base"_a, "offset"_a);
  m.def("silu_times", nb::overload_cast<const mlx::core::array&, const mlx::core::array&>(&kernels::silu_times), "gate"_a, "up"_a);
  m.def("map_tensors", &kernels::map_tensors, "fd"_a, "parts"_a, "Arrays over (start, shape, dtype) of an open file, not copied.");
  m.def("name", [] { return kernels::active().name; });
  m.def("select", &kernels::select, "name"_a, "Use the kernels of that name; False if this CPU cannot run them.");
  m.def("threads", &kernels::threads);
  m.def("set_threads", &kernels::set_threads, "n"_a, "0 is the default: physical cores that this process may use.");
  m.def("set_planes", &kernels::set_planes, "n"_a, "Round many rows to 16 bits (2, the default) or 8 bits (1).");
  m.def("read_bandwidth", &kernels::read_bandwidth, "nbytes"_a, "repeats"_a, nb::call_guard<nb::gil_scoped_release>(),
        "Bytes per second that all threads read together.");
}
