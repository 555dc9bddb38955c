#include <memory>
#include <string>
#include <tuple>

#include "../cpu/dispatch.h"
#include "../ops/plans.h"
#include "arrays.h"
#include "bindings.h"

namespace fskernel {
namespace {

// groups: [(packed weights, m, geometry of 12 ints)]. Weights are copied when the plan is
// registered, until when Python keeps them; everything else is copied at once.
int plan_conv(Plan& plan, const std::string& name, std::vector<int> inputs,
              const std::vector<std::tuple<Bytes, Floats, Ints>>& groups, const Floats& bias,
              std::optional<float> r, int K, int limit, const std::optional<Floats>& top,
              const std::optional<Floats>& table, const std::optional<Floats>& fitted, int zero) {
  PlanConv conv{std::move(inputs), {}, elements(bias), r.has_value(), r.value_or(0.0f), K, limit};
  if (top) conv.top = elements(*top);
  if (table) {
    if (table->ndim() != 3 || table->shape(0) < 1 || table->shape(1) != 2)
      throw std::invalid_argument("table of '" + name + "': expected [1 or channels, 2, segments]");
    conv.table = elements(*table), conv.tables = table->shape(0);
  }
  if (fitted) {
    if (fitted->ndim() != 2 || fitted->shape(0) != 3 || fitted->shape(1) < 1)
      throw std::invalid_argument("fitted of '" + name + "': expected [3, steps]");
    conv.fitted = elements(*fitted), conv.zero = zero;
  }
  for (const auto& [packed, m, ints] : groups)
    conv.groups.push_back({elements(packed), elements(m), as_geometry(ints)});
  return plan.conv(name, conv);
}

// output: rows and columns of adaptive windows, 0 for as many as there are; empty for windows of a
// geometry, of 12 ints.
int plan_mean_pool(Plan& plan, const std::string& name, int input, const Ints& output,
                   const Ints& geometry, bool ceil_mode, bool include_pad, int zero, double step,
                   double step_out, int limit) {
  MeanPool means{{!output.empty(), 0, 0, as_geometry(geometry), ceil_mode, include_pad},
                 zero,
                 step,
                 step_out,
                 limit};
  if (output.size() != 0 && output.size() != 2)
    throw std::invalid_argument("output has " + std::to_string(output.size()) +
                                " numbers: expected rows and columns, or none");
  if (!output.empty()) means.windows.rows = output[0], means.windows.cols = output[1];
  return plan.mean_pool(name, input, means);
}

}  // namespace

void bind_plans(py::module_& m) {
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan")
      .def(py::init([] { return std::make_shared<Plan>(current_kernels()); }))
      .def_property_readonly("isa", [](const Plan& plan) { return plan.kernels().name; })
      .def("encode", &Plan::encode)
      .def("conv", &plan_conv, py::arg("name"), py::arg("inputs"), py::arg("groups").noconvert(),
           py::arg("bias").noconvert(), py::arg("r"), py::arg("K"), py::arg("limit"),
           py::arg("top").noconvert() = py::none(), py::arg("table").noconvert() = py::none(),
           py::arg("fitted").noconvert() = py::none(), py::arg("zero") = 0, py::keep_alive<1, 4>(),
           py::keep_alive<1, 5>())  // groups, bias: read until it settles
      .def("pool", [](Plan& plan, const std::string& name, int input, const Ints& ints,
                      bool maximum) { return plan.pool(name, input, as_geometry(ints), maximum); })
      .def("mean_pool", &plan_mean_pool, py::arg("name"), py::arg("input"), py::arg("output"),
           py::arg("geometry"), py::arg("ceil_mode"), py::arg("include_pad"), py::arg("zero"),
           py::arg("step"), py::arg("step_out"), py::arg("limit"))
      .def("concat", &Plan::concat, py::arg("name"), py::arg("inputs"),
           py::arg("runs") = std::vector<std::array<int64_t, 3>>{})
      .def(
          "move",
          [](Plan& plan, const std::string& name, const std::vector<int>& inputs,
             const std::string& kind, const Ints& numbers,
             int zero) { return plan.move(name, inputs, as_move(kind, numbers, zero)); },
          py::arg("name"), py::arg("inputs"), py::arg("kind"), py::arg("numbers"),
          py::arg("zero"))
      .def(
          "gate",  // m, bias: float32 [channels]
          [](Plan& plan, const std::string& name, int a, int b, int zero_a, int zero_b,
             const Floats& m, const Floats& bias, int K, int limit) {
            return plan.gate(name, {a, b, zero_a, zero_b, elements(m), elements(bias), K, limit});
          },
          py::arg("name"), py::arg("a"), py::arg("b"), py::arg("zero_a"), py::arg("zero_b"),
          py::arg("m").noconvert(), py::arg("bias").noconvert(), py::arg("K"), py::arg("limit"))
      .def(
          "readout",  // weight: the bytes of int8 or int16 [out, features]
          [](Plan& plan, const std::string& name, int input, const Bytes& weight, int weight_bytes,
             const Numbers<double>& scale, const Floats& bias, bool pool) {
            return plan.readout(name, {input, elements(weight), weight_bytes, elements(scale),
                                       elements(bias), pool});
          },
          py::arg("name"), py::arg("input"), py::arg("weight").noconvert(), py::arg("weight_bytes"),
          py::arg("scale").noconvert(), py::arg("bias").noconvert(), py::arg("pool"),
          py::keep_alive<1, 4>(), py::keep_alive<1, 6>(), py::keep_alive<1, 7>())
      .def("describe", &Plan::describe)
      .def("arena_bytes", &Plan::arena_bytes)
      .def("take_encoded", &Plan::take_encoded)
      .def("register", [](std::shared_ptr<Plan> plan, int64_t id) { add_plan(id, plan); });
  m.def("drop_plan", &drop_plan);
  m.def("plan_size", [](int64_t id) {
    const auto plan = plan_at(id);
    return py::make_tuple(plan->classes(), plan->layers(), plan->nodes());
  });
}

}  // namespace fskernel
