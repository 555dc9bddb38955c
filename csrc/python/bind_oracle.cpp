#include <string>
#include <tuple>

#include "../float_environment.h"
#include "arrays.h"
#include "bindings.h"

namespace fskernel {
namespace {

py::tuple as_tuple(const OracleOutput& out) {
  return py::make_tuple(Numbers<int32_t>(out.shape, out.y.data()),
                        Numbers<int64_t>(out.counts.size(), out.counts.data()));
}

// groups: [(x int32 [N,H,W,I], weight int32 [O,I/groups,kh,kw], m [O], geometry of 12 ints)].
py::tuple reference_conv(
    const std::vector<std::tuple<Numbers<int32_t>, Numbers<int32_t>, Floats, Ints>>& groups,
    const Floats& bias, const std::optional<Numbers<int32_t>>& residual, float r, int K, int limit,
    const std::optional<Floats>& top, const std::optional<Floats>& table,
    const std::optional<Floats>& fitted, int zero) {
  std::vector<OracleGroup> given;
  for (const auto& [x, weight, m, ints] : groups)
    given.push_back({as_array(x), as_array(weight), as_array(m), ints});
  const OracleOutput out =
      InFloatEnvironment<&oracle_conv>::run(given, as_array(bias), as_array(residual), r, K, limit,
                                            as_array(top), as_array(table), as_array(fitted), zero);
  return as_tuple(out);
}

// b: as a, or with one pixel, or with one channel.
py::tuple reference_gate(const Numbers<int32_t>& a, const Numbers<int32_t>& b, int zero_a,
                         int zero_b, const Floats& m, const Floats& bias, int K, int limit) {
  return as_tuple(InFloatEnvironment<&oracle_gate>::run(as_array(a), as_array(b), zero_a, zero_b,
                                                        as_array(m), as_array(bias), K, limit));
}

}  // namespace

void bind_oracle(py::module_& m) {
  m.def("reference_gate", &reference_gate, py::arg("a"), py::arg("b"), py::arg("zero_a"),
        py::arg("zero_b"), py::arg("m"), py::arg("bias"), py::arg("K"), py::arg("limit"));
  m.def("reference_conv", &reference_conv, py::arg("groups"), py::arg("bias"), py::arg("residual"),
        py::arg("r"), py::arg("K"), py::arg("limit"), py::arg("top") = py::none(),
        py::arg("table") = py::none(), py::arg("fitted") = py::none(), py::arg("zero") = 0);
}

}  // namespace fskernel
