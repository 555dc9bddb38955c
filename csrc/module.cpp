// fskernel._C, the Python module: which kernels there are and which of them run, and what
// python/ adds. torch's operators register themselves when it is loaded.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cpu/conv/pack.h"
#include "cpu/dispatch.h"
#include "cpu/rate/rows.h"
#include "float_environment.h"
#include "python/arrays.h"
#include "python/bindings.h"

namespace fskernel {
namespace {

std::vector<std::string> names(const std::vector<const Kernels*>& kernels) {
  std::vector<std::string> out;
  for (const Kernels* k : kernels) out.emplace_back(k->name);
  return out;
}

}  // namespace
}  // namespace fskernel

PYBIND11_MODULE(_C, m) {
  using namespace fskernel;
  m.doc() = "Which kernels fskernel was built with and which of them run; the reference.";
  m.def("built_isas", [] { return names(built_kernels()); });
  m.def("supported_isas", [] { return names(supported_kernels()); });
  m.def("current_isa", [] { return std::string(current_kernels().name); });
  m.def("set_isa", [](std::optional<std::string> name) { force_isa(name.value_or("")); });
  m.def("last_kernel", &last_run);
  m.def("covered_isas", &covered_isas);
  m.def("word_bytes", &word_bytes, py::arg("K"));
  m.def(
      "pack_bytes", [](int64_t out, int64_t in, int weight_bytes, Ints ints, int x_min, int x_max) {
        return layout_of(current_kernels(), as_geometry(ints), out, in, weight_bytes, x_min, x_max)
            .bytes;
      });
  m.def("rows_bytes", [](int64_t out, int64_t in, int weight_bytes, Ints ints, int64_t inputs) {
    const Kernels& k = current_kernels();
    return rows_of(k, as_geometry(ints), out, in, weight_bytes,
                   row_vectors(k, out, inputs, weight_bytes))
        .bytes;
  });
  m.def("packed_isa", [](const Bytes& packed) {
    PackHeader h{};
    std::memcpy(&h, packed.data(), std::min<size_t>(sizeof h, packed.size()));
    return py::bytes(h.backend, strnlen(h.backend, sizeof h.backend));
  });
  m.def("peak_macs",
        [](bool u8s8) { return peak_macs(current_kernels(), u8s8 ? kU8S8 : kS16S16); });
  m.def("in_float_environment",
        [](const py::function& function, const py::args& args, const py::kwargs& kwargs) {
          const FloatEnvironment environment;
          return function(*args, **kwargs);
        });
  bind_oracle(m);
  bind_plans(m);
  bind_cuda_rules(m);
  bind_cuda_state(m);
}
