// fskernel._C, the Python module: which kernels there are and which of them run, native plans, the
// oracle, the rules by which memory is laid out. torch's operators register themselves when it is
// loaded. The only file that knows Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/conv/pack.h"
#include "cpu/dispatch.h"
#include "cuda/pack.h"
#include "cuda/runtime/device.h"
#include "cuda/tensor_layout.h"
#include "ops/checked_conv.h"
#include "ops/checks.h"
#include "ops/cuda.h"
#include "ops/oracle.h"
#include "ops/plans.h"

namespace fskernel {
namespace {

namespace py = pybind11;
using Ints = std::vector<int64_t>;
// Arrays bring their types and lengths along; what has another type is not converted but refused.
template <class T>
using Numbers = py::array_t<T, py::array::c_style>;
using Floats = Numbers<float>;
using Bytes = Numbers<uint8_t>;

template <class T>
Array<T> as_array(const Numbers<T>& a) {
  return {a.data(), {a.shape(), a.shape() + a.ndim()}};
}

template <class T>
std::optional<Array<T>> as_array(const std::optional<Numbers<T>>& a) {
  return a ? std::optional<Array<T>>(as_array(*a)) : std::nullopt;
}

template <class T>
std::span<const T> elements(const Numbers<T>& a) {
  return {a.data(), static_cast<size_t>(a.size())};
}

Geometry geometry(const Ints& numbers) { return checks::geometry(numbers, "geometry"); }

std::vector<std::string> names(const std::vector<const Kernels*>& kernels) {
  std::vector<std::string> out;
  for (const Kernels* k : kernels) out.emplace_back(k->name);
  return out;
}

// groups: [(x int32 [N,H,W,I], weight int32 [O,I/groups,kh,kw], m [O], geometry of 12 ints)].
py::tuple reference_conv(
    const std::vector<std::tuple<Numbers<int32_t>, Numbers<int32_t>, Floats, Ints>>& groups,
    const Floats& bias, const std::optional<Numbers<int32_t>>& residual, float r, int K, int limit,
    const std::optional<Floats>& top) {
  std::vector<OracleGroup> given;
  for (const auto& [x, weight, m, ints] : groups)
    given.push_back({as_array(x), as_array(weight), as_array(m), ints});
  const OracleOutput out = InFloatEnvironment<&oracle_conv>::run(
      given, as_array(bias), as_array(residual), r, K, limit, as_array(top));
  return py::make_tuple(Numbers<int32_t>(out.shape, out.y.data()),
                        Numbers<int64_t>(out.counts.size(), out.counts.data()));
}

// groups: [(packed weights, m, geometry of 12 ints)]. Weights are copied when the plan is
// registered, until when Python keeps them; everything else is copied at once.
int plan_conv(Plan& plan, const std::string& name, std::vector<int> inputs,
              const std::vector<std::tuple<Bytes, Floats, Ints>>& groups, const Floats& bias,
              std::optional<float> r, int K, int limit, const std::optional<Floats>& top) {
  PlanConv conv{std::move(inputs), {}, elements(bias), r.has_value(), r.value_or(0.0f), K, limit};
  if (top) conv.top = elements(*top);
  for (const auto& [packed, m, ints] : groups)
    conv.groups.push_back({elements(packed), elements(m), geometry(ints)});
  return plan.conv(name, conv);
}

void bind_plans(py::module_& m) {
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan")
      .def(py::init([] { return std::make_shared<Plan>(current_kernels()); }))
      .def_property_readonly("isa", [](const Plan& plan) { return plan.kernels().name; })
      .def("encode", &Plan::encode)
      .def("conv", &plan_conv, py::arg("name"), py::arg("inputs"), py::arg("groups").noconvert(),
           py::arg("bias").noconvert(), py::arg("r"), py::arg("K"), py::arg("limit"),
           py::arg("top").noconvert() = py::none(), py::keep_alive<1, 4>(),
           py::keep_alive<1, 5>())  // groups, bias: read until it settles
      .def("pool", [](Plan& plan, const std::string& name, int input, const Ints& ints,
                      bool maximum) { return plan.pool(name, input, geometry(ints), maximum); })
      .def("concat", &Plan::concat)
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

// The rules of the CUDA kernels that the host follows, whether those are built or not.
void bind_cuda_rules(py::module_& m) {
  m.def("cuda_pack_bytes",
        [](int64_t out, int64_t in, int weight_bytes, Ints ints, int x_min, int x_max) {
          return cuda::packed_bytes(
              cuda::pack_header(geometry(ints), out, in, weight_bytes, x_min, x_max));
        });
  m.def("cuda_on_tensor_cores",
        [](Ints ints) { return cuda::packed_parts(geometry(ints)) == cuda::kTensorWeights; });
  m.def("cuda_stored_channels", [](Ints ints, int64_t channels) {
    return cuda::stored_channels(geometry(ints), channels);
  });
  m.def("cuda_planes", &cuda::planes_of, py::arg("x_min"), py::arg("x_max"));
  // Bytes of a map of codes [N, H, W, C] of so many bytes each, kept with this halo.
  m.def("cuda_kept_bytes", [](Ints halo, std::array<int64_t, 4> size, int bytes) {
    return cuda::kept_map(kept_as(halo, "halo"), size[0], size[1], size[2], size[3], bytes).bytes();
  });
  // Bytes of the map that a layer reads, made of dense codes [N, H, W, C] in [x_min, x_max].
  m.def("cuda_map_bytes", [](Ints ints, std::array<int64_t, 4> size, int x_min, int x_max) {
    return cuda::byte_map(geometry(ints), size[0], size[1], size[2], size[3], x_min, x_max).bytes();
  });
  // Whether a layer reads dense codes of so many bytes as they are.
  m.def("cuda_reads_dense", [](Ints ints, int64_t channels, int x_min, int x_max, int bytes) {
    const cuda::ByteMap map = cuda::byte_map(geometry(ints), 1, 1, 1, channels, x_min, x_max);
    return cuda::is_byte_map(map, 1, 1, channels, bytes, 16);
  });
  // K-steps of 64 bytes in one pass over the synapses, and the number of passes.
  m.def("cuda_steps", [](Ints ints, int64_t channels) {
    const Geometry g = geometry(ints);
    return cuda::step_order(g, cuda::stored_channels(g, channels), 0).steps();
  });
  m.def("cuda_passes", [](int x_min, int x_max, int weight_bytes, int plane_bits) {
    cuda::ByteMap map{};
    map.planes = cuda::planes_of(x_min, x_max), map.is_signed = x_min < 0;
    cuda::ConvPass pass[cuda::kMaxPasses];
    checks::plane_bits(plane_bits);
    checks::in_range(weight_bytes, 1, 2, "weight_bytes", "of one weight");
    return cuda::horner_passes(map, x_max, weight_bytes, plane_bits ? plane_bits : 8, pass);
  });
  // Row of `cuda_kernels` that runs a layer of so many output pixels and channels, -1: none.
  m.def(
      "cuda_choose_tile",
      [](int64_t pixels, int64_t channels, int groups, bool narrow, int multiprocessors,
         int plane_bits, bool rate, const std::string& name) {
        checks::in_range(multiprocessors, 1, 1 << 20, "multiprocessors", "of a GPU");
        return cuda::choose_tile({pixels, channels, groups, plane_bits, narrow, rate},
                                 multiprocessors, name);
      },
      py::arg("pixels"), py::arg("channels"), py::arg("groups"), py::arg("narrow"),
      py::arg("multiprocessors"), py::arg("plane_bits") = 0, py::arg("rate") = false,
      py::arg("name") = "");
  py::list kernels;
  for (const cuda::TensorTile& tile : cuda::kTensorTiles) kernels.append(tile.name);
  kernels.append("direct");
  m.attr("cuda_kernels") = py::tuple(kernels);
}

void bind_cuda(py::module_& m) {
#if FSKERNEL_HAVE_CUDA
  m.def("cuda_state", []() -> py::object {
    const cuda::DeviceState s = cuda::device_state();
    py::dict out;
    out["runtime"] = s.runtime;
    out["driver"] = s.driver;
    out["devices"] = s.devices;
    out["words"] = std::string(s.words);
    return out;
  });
  m.def("cuda_device", [](int device) {
    cuda::DeviceFacts f;
    if (const int error = cuda::device_facts(device, f))
      throw std::runtime_error(cuda::error_text(error));
    return py::make_tuple(std::string(f.name), f.major, f.minor, f.multiprocessors, f.bytes);
  });
  m.def("cuda_probe", &run_cuda_probe);
  m.def("set_cuda_kernel", &force_cuda_kernel);
  py::dict streams;
  for (const auto& [way, stream] : cuda_streams()) streams[py::str(way)] = py::cpp_function(stream);
  m.attr("cuda_streams") = streams;
#else
  m.def("cuda_state", []() -> py::object { return py::none(); });
#endif
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
  m.def("pack_bytes", [](int64_t out, int64_t in, int weight_bytes, Ints ints, int x_min,
                         int x_max) {
    return layout_of(current_kernels(), geometry(ints), out, in, weight_bytes, x_min, x_max).bytes;
  });
  m.def("packed_isa", [](const Bytes& packed) {
    PackHeader h{};
    std::memcpy(&h, packed.data(), std::min<size_t>(sizeof h, packed.size()));
    return py::bytes(h.backend, strnlen(h.backend, sizeof h.backend));
  });
  m.def("peak_macs",
        [](bool u8s8) { return peak_macs(current_kernels(), u8s8 ? kU8S8 : kS16S16); });
  m.def("reference_conv", &reference_conv, py::arg("groups"), py::arg("bias"), py::arg("residual"),
        py::arg("r"), py::arg("K"), py::arg("limit"), py::arg("top") = py::none());
  m.def("in_float_environment",
        [](const py::function& function, const py::args& args, const py::kwargs& kwargs) {
          const FloatEnvironment environment;
          return function(*args, **kwargs);
        });
  bind_plans(m);
  bind_cuda_rules(m);
  bind_cuda(m);
}
