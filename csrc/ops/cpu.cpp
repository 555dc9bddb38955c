// The operators of fskernel for torch: schemas, checks, dispatch. It computes nothing itself.
// Beside it only cuda.cpp, checks.h and checked_conv.h know torch, and only cuda.* know Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <tuple>

#include "../cpu/dispatch.h"
#include "../cpu/pack.h"
#include "../cpu/plan.h"
#include "../cpu/pool_readout_encode.h"
#include "../reference.h"
#include "checked_conv.h"
#include "checks.h"
#include "cuda.h"

namespace fskernel {
namespace {

using checks::new_output;
using checks::new_tensor;
using checks::ScalarType;
using checks::word_type;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

Executor executor() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t n, void* context, void (*body)(void*, int64_t, int64_t)) {
            torch::stable::parallel_for(
                0, n, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
          }};
}

// One image of activations [N, H, W, C].
Map image_of(const Tensor& t, int64_t n) {
  const auto* data = static_cast<const uint8_t*>(t.const_data_ptr());
  const int64_t bytes = t.size(1) * t.size(2) * t.size(3) * t.element_size();
  return dense_map(data + n * bytes, checks::bytes_of(t), t.size(1), t.size(2), t.size(3));
}

Tensor pack_op(const Tensor& weight, Ints geometry, int64_t x_min, int64_t x_max) {
  const Geometry g = checks::geometry(geometry, "geometry");
  const Tensor w = checks::dense(weight, "weight", 4, "[O, I/groups, kh, kw]",
                                 {ScalarType::Char, ScalarType::Short});
  checks::packable(w, g, x_min, x_max);
  const auto low = static_cast<int32_t>(x_min), high = static_cast<int32_t>(x_max);
  const Kernels& k = current_kernels();
  const Layout layout = layout_of(k, g, w.size(0), w.size(1), checks::bytes_of(w), low, high);
  Tensor packed = new_tensor(w, {layout.bytes}, ScalarType::Byte);
  pack(k, layout, g, w.size(0), w.size(1), low, high, w.const_data_ptr(), checks::bytes_of(w),
       static_cast<uint8_t*>(packed.mutable_data_ptr()));
  return packed;
}

std::tuple<Tensor, Tensor> conv_op(const Tensor& x, const Tensor& packed, const Tensor& m,
                                   Ints geometry, const Tensor& bias, std::optional<Tensor> x2,
                                   std::optional<Tensor> packed2, std::optional<Tensor> m2,
                                   Ints geometry2, std::optional<Tensor> residual,
                                   std::optional<Tensor> r, int64_t K, int64_t limit,
                                   int64_t plane_bits, std::optional<Tensor> top,
                                   std::optional<double> step, bool count) {
  const Kernels& k = current_kernels();
  const CheckedConv c({}, x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, K,
                      limit, plane_bits,
                      [&](const ConvInput& in, int64_t channels, const std::string& name) {
                        check_packed(k, in, channels, name);
                      },
                      {top, step, count});
  note_run(k, std::string("conv/") + conv(k, c.call, executor()));
  return {c.y, c.counts};
}

// What an encoder met, as float64 [2]: the least value and the number beyond the range.
Tensor seen_of(const Tensor& like, const Encoded& encoded) {
  Tensor seen = new_tensor(like, {2}, ScalarType::Double);
  auto* to = static_cast<double*>(seen.mutable_data_ptr());
  to[0] = encoded.least;
  to[1] = static_cast<double>(encoded.beyond);
  return seen;
}

std::tuple<Tensor, Tensor, Tensor> conv_floats_op(const Tensor& x, double inv_step, double offset,
                                                  int64_t x_K, int64_t x_limit,
                                                  const Tensor& packed, const Tensor& m,
                                                  Ints geometry, const Tensor& bias,
                                                  std::optional<Tensor> top, int64_t K, double step,
                                                  int64_t plane_bits, bool count,
                                                  bool channels_first) {
  checks::inverse_step(inv_step);
  checks::encoder(offset, x_K, x_limit);
  const Kernels& k = current_kernels();
  const CheckedConv c(
      {}, Given(x, word_bytes(x_K)), packed, m, geometry, bias, {}, {}, {}, {}, {}, {}, K, 32767,
      plane_bits,
      [&](const ConvInput& in, int64_t channels, const std::string& name) {
        const PackHeader header = check_packed(k, in, channels, name);
        const int64_t low = x_K ? 0 : -x_limit, high = x_K ? (1 << x_K) - 1 : x_limit;
        FS_CHECK(header.x_min <= low && header.x_max >= high, name, " was packed for codes from ",
                 header.x_min, " to ", header.x_max, ", but x gives ", low, " to ", high);
      },
      {top, step, count, x.scalar_type(), channels_first});
  FloatConv call{c.call,
                 {static_cast<float>(inv_step), static_cast<float>(offset),
                  static_cast<int32_t>(x_K), static_cast<int32_t>(x_limit)},
                 checks::float_type(x.scalar_type()),
                 x.stride(0),
                 x.stride(1),
                 x.stride(2),
                 x.stride(3),
                 c.call.y,
                 channels_first};
  Encoded encoded;
  note_run(k, std::string("conv/") + conv(k, call, executor(), encoded));
  return {c.y, c.counts, seen_of(c.counts, encoded)};
}

Tensor pool_op(const Tensor& x, const Ints& geometry, bool maximum) {
  const Geometry g = checks::geometry(geometry, "geometry");
  const Tensor in = checks::activations(x, "x");
  const Size out = checks::output_of(in, g, "x");
  const int64_t C = in.size(3);
  Tensor y =
      new_output(in, {in.size(0), out.h, out.w, C}, maximum ? in.scalar_type() : ScalarType::Short);
  const Kernels& k = current_kernels();
  if (y.numel() == 0) return y;
  each_image(executor(), in.size(0), [&](int64_t n, const Executor& inner) {
    pool(k, g, maximum, image_of(in, n), image_of(y, n), inner);
  });
  note_run(k, maximum ? "max_pool" : "sum_pool");
  return y;
}

Tensor max_pool_op(const Tensor& x, Ints geometry) { return pool_op(x, geometry, true); }
Tensor sum_pool_op(const Tensor& x, Ints geometry) { return pool_op(x, geometry, false); }

Tensor readout_op(const Tensor& x, const Tensor& weight, const Tensor& m, const Tensor& bias,
                  bool pooled) {
  const Tensor in = checks::activations(x, "x");
  const Tensor w =
      checks::dense(weight, "weight", 2, "[O, F]", {ScalarType::Char, ScalarType::Short});
  checks::readable(in, w, pooled);
  const int64_t out = w.size(0), features = w.size(1);
  const Tensor mm = checks::per_channel(m, "m", out), b = checks::per_channel(bias, "bias", out);
  Tensor y = new_output(in, {in.size(0), out}, ScalarType::Float);
  const Kernels& k = current_kernels();
  if (y.numel() == 0) return y;
  const Readout task{w.const_data_ptr(),
                     checks::bytes_of(w),
                     out,
                     features,
                     static_cast<const float*>(mm.const_data_ptr()),
                     static_cast<const float*>(b.const_data_ptr()),
                     pooled};
  each_image(executor(), in.size(0), [&](int64_t n, const Executor& inner) {
    readout(k, task, image_of(in, n), static_cast<float*>(y.mutable_data_ptr()) + n * out, inner);
  });
  note_run(k, "readout");
  return y;
}

Tensor encode_any(const Tensor& x, double inv_step, double offset, int64_t K, int64_t limit) {
  checks::values(x, "x");
  checks::inverse_step(inv_step);
  const int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3);
  Tensor y = new_tensor(x, {N, H, W, C}, word_type(K));
  const Kernels& k = current_kernels();
  if (y.numel() == 0) return y;
  const Encoder encoder{static_cast<float>(inv_step), static_cast<float>(offset),
                        static_cast<int32_t>(K), static_cast<int32_t>(limit)};
  const auto* data = static_cast<const uint8_t*>(x.const_data_ptr());
  const FloatType type = checks::float_type(x.scalar_type());
  const int64_t image = x.stride(0) * float_bytes(type);
  each_image(executor(), N, [&](int64_t n, const Executor& inner) {
    encode(k, encoder, {data + n * image, type, x.stride(1), x.stride(2), x.stride(3)},
           image_of(y, n), inner);
  });
  note_run(k, K ? "encode_words" : "encode");
  return y;
}

Tensor decode_op(const Tensor& words, double step) {
  const Tensor in = checks::activations(words, "words");
  checks::step(step, 1);
  const int64_t H = in.size(1), W = in.size(2), C = in.size(3);
  Tensor y = new_tensor(in, {in.size(0), H, W, C}, ScalarType::Float);
  const Kernels& k = current_kernels();
  if (y.numel() == 0) return y;
  auto* to = static_cast<float*>(y.mutable_data_ptr());
  each_image(executor(), in.size(0), [&](int64_t n, const Executor& inner) {
    decode(k, image_of(in, n), step, {to + n * H * W * C, FloatType::kFloat32, 1, W * C, C}, inner);
  });
  note_run(k, "decode");
  return y;
}

Tensor encode_op(const Tensor& x, double inv_step, int64_t limit) {
  checks::in_range(limit, 1, 32767, "limit", "of graded values");
  return encode_any(x, inv_step, 0.0, 0, limit);
}

Tensor encode_words_op(const Tensor& x, double inv_step, double offset, int64_t K) {
  checks::words(offset, K);
  return encode_any(x, inv_step, offset, K, 0);
}

Tensor synaptic_events_op(const Tensor& words, const Tensor& fan_y, const Tensor& fan_x) {
  const Tensor in = checks::activations(words, "words");
  const Tensor fy = checks::dense(fan_y, "fan_y", 1, "[H]", {ScalarType::Long});
  const Tensor fx = checks::dense(fan_x, "fan_x", 1, "[W]", {ScalarType::Long});
  checks::fans(in, fy, fx);
  Tensor events = torch::stable::new_zeros(in, Ints{in.size(0)}, ScalarType::Long);
  if (in.numel() == 0) return events;
  const Kernels& k = current_kernels();
  synaptic_events(k, in.const_data_ptr(), checks::bytes_of(in), in.size(0), in.size(1), in.size(2),
                  in.size(3), static_cast<const int64_t*>(fy.const_data_ptr()),
                  static_cast<const int64_t*>(fx.const_data_ptr()),
                  static_cast<int64_t*>(events.mutable_data_ptr()), executor());
  note_run(k, "synaptic_events");
  return events;
}

// Plans by number, because an operator of torch takes numbers. The number is a fingerprint of the
// network, so that a graph that was exported or compiled finds this network again, in another
// process too, and never another one. Networks that are equal share it. A run holds its plan, so
// that it may be dropped meanwhile.
class Plans {
 public:
  void add(int64_t id, std::shared_ptr<const Plan> plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    plans_[id].push_back(std::move(plan));
  }
  void drop(int64_t id, const Plan* plan) {
    std::shared_ptr<const Plan> last;  // destroyed behind the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = plans_.find(id);
    if (found == plans_.end()) return;
    auto& equal = found->second;
    const auto at = std::find_if(equal.begin(), equal.end(),
                                 [&](const auto& one) { return one.get() == plan; });
    if (at == equal.end()) return;
    last = std::move(*at);
    equal.erase(at);
    if (equal.empty()) plans_.erase(found);
  }
  // Of equal networks, the one that is packed for the instruction set in use.
  std::shared_ptr<const Plan> at(int64_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = plans_.find(id);
    FS_CHECK(found != plans_.end(), "plan is ", id, ": there is no such plan in this process; ",
             "after net.pack() or a changed weight, compile or export the network again; before ",
             "an exported program runs, load the network that it was exported from");
    const auto& equal = found->second;
    for (const auto& plan : equal)
      if (&plan->kernels() == &current_kernels()) return plan;
    return equal.back();
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, std::vector<std::shared_ptr<const Plan>>> plans_;
};

Plans& plans() {
  static Plans all;
  return all;
}

struct PlanResult {
  Tensor logits, counts;
};

PlanResult run_plan(const Tensor& x, int64_t id, int64_t plane_bits, bool count, double* seconds) {
  FS_CHECK(x.is_cpu(), "x is not on the CPU: call .cpu() on it");
  FS_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 4, "x is ",
           checks::type_name(x.scalar_type()), " of shape ", checks::shape(x),
           ": expected float32 [N, C, H, W]");
  check_fits(checks::sizes(x), "x has");
  checks::plane_bits(plane_bits);
  const std::shared_ptr<const Plan> plan = plans().at(id);
  FS_CHECK(x.size(1) == plan->channels(), "x has shape ", checks::shape(x), ": the network reads ",
           plan->channels(), " channels");
  const int64_t N = x.size(0);
  PlanResult out{new_output(x, {N, plan->classes()}, ScalarType::Float),
                 new_output(x, {N, count ? plan->layers() : 0}, ScalarType::Long)};
  plan->run({static_cast<const float*>(x.const_data_ptr()), N, x.size(2), x.size(3), x.stride(0),
             x.stride(1), x.stride(2), x.stride(3), static_cast<int32_t>(plane_bits),
             static_cast<float*>(out.logits.mutable_data_ptr()),
             count ? static_cast<int64_t*>(out.counts.mutable_data_ptr()) : nullptr, seconds},
            executor());
  note_run(plan->kernels(), "conv/plan");
  return out;
}

std::tuple<Tensor, Tensor> run_plan_op(const Tensor& x, int64_t plan, int64_t plane_bits,
                                       bool count) {
  PlanResult out = run_plan(x, plan, plane_bits, count, nullptr);
  return {out.logits, out.counts};
}

Tensor time_plan_op(const Tensor& x, int64_t plan, int64_t plane_bits) {
  Tensor seconds = torch::stable::new_zeros(x, Ints{plans().at(plan)->nodes()}, ScalarType::Double);
  run_plan(x, plan, plane_bits, false, static_cast<double*>(seconds.mutable_data_ptr()));
  return seconds;
}

STABLE_TORCH_LIBRARY(fskernel, m) {
  m.def("pack(Tensor weight, int[] geometry, int x_min, int x_max) -> Tensor");
  m.def(
      "conv(Tensor x, Tensor packed, Tensor m, int[] geometry, Tensor bias, Tensor? x2, "
      "Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, Tensor? r, int K, "
      "int limit, int plane_bits, Tensor? top=None, float? step=None, bool count=True) "
      "-> (Tensor, Tensor)");
  m.def(
      "conv_floats(Tensor x, float inv_step, float offset, int x_K, int x_limit, Tensor packed, "
      "Tensor m, int[] geometry, Tensor bias, Tensor? top, int K, float step, int plane_bits, "
      "bool count, bool channels_first) -> (Tensor, Tensor, Tensor)");
  m.def(
      "conv_maps(Tensor x, int[] x_map, Tensor packed, Tensor m, int[] geometry, Tensor bias, "
      "Tensor? x2, int[] x2_map, Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, "
      "int[] residual_map, Tensor? r, int K, int limit, int plane_bits, int[] halo, "
      "Tensor? top=None, float? step=None, bool count=True) -> (Tensor, Tensor)");
  m.def("max_pool(Tensor x, int[] geometry) -> Tensor");
  m.def("sum_pool(Tensor x, int[] geometry) -> Tensor");
  m.def("readout(Tensor x, Tensor weight, Tensor m, Tensor bias, bool pool) -> Tensor");
  m.def("encode(Tensor x, float inv_step, int limit) -> Tensor");
  m.def("encode_map(Tensor x, float inv_step, int limit, int[] halo) -> Tensor");
  m.def("encode_words(Tensor x, float inv_step, float offset, int K) -> Tensor");
  m.def("decode(Tensor words, float step) -> Tensor");
  m.def("synaptic_events(Tensor words, Tensor fan_y, Tensor fan_x) -> Tensor");
  m.def(
      "integrate_and_fire(Tensor x, Tensor packed, Tensor m, int[] geometry, Tensor bias, "
      "Tensor? x2, Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, Tensor? r, "
      "Tensor(a!) membrane) -> (Tensor, Tensor)");
  m.def("run_plan(Tensor x, int plan, int plane_bits, bool count) -> (Tensor, Tensor)");
  m.def("time_plan(Tensor x, int plan, int plane_bits) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fskernel, CPU, m) {
  m.impl("pack", OPERATOR(pack_op));
  m.impl("conv", OPERATOR(conv_op));
  m.impl("conv_floats", OPERATOR(conv_floats_op));
  m.impl("max_pool", OPERATOR(max_pool_op));
  m.impl("sum_pool", OPERATOR(sum_pool_op));
  m.impl("readout", OPERATOR(readout_op));
  m.impl("encode", OPERATOR(encode_op));
  m.impl("encode_words", OPERATOR(encode_words_op));
  m.impl("decode", OPERATOR(decode_op));
  m.impl("synaptic_events", OPERATOR(synaptic_events_op));
  m.impl("run_plan", OPERATOR(run_plan_op));
  m.impl("time_plan", OPERATOR(time_plan_op));
}

namespace py = pybind11;
using IntArray = py::array_t<int32_t, py::array::c_style>;
using FloatArray = py::array_t<float, py::array::c_style>;

std::vector<int64_t> sizes_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

void check_sizes(const py::array& a, const std::vector<int64_t>& expected, const char* name) {
  FS_CHECK(sizes_of(a) == expected, name, " has shape ", checks::shape(sizes_of(a)), ": expected ",
           checks::shape(expected));
}

// The oracle's int64 sums hold any number of products of 16-bit values.
void check_codes(const IntArray& a, const char* name) {
  for (const int32_t* v = a.data(); v < a.data() + a.size(); ++v)
    FS_CHECK(*v >= -32768 && *v <= 32767, name, " holds ", *v, ": expected 16-bit numbers");
}

// groups: [(x int32 [N,H,W,I], weight int32 [O,I/groups,kh,kw], m [O], geometry of 12 ints)].
py::tuple reference_conv(std::vector<std::tuple<IntArray, IntArray, FloatArray, Ints>> groups,
                         FloatArray bias, std::optional<IntArray> residual, float r, int K,
                         int limit, std::optional<FloatArray> top) {
  FS_CHECK(!groups.empty(), "groups is empty: expected at least one");
  FS_CHECK(bias.ndim() == 1, "bias has shape ", checks::shape(sizes_of(bias)), ": expected [O]");
  checks::in_range(K, 0, 15, "K", "time steps; 0 gives graded output");
  checks::in_range(limit, 1, 32767, "limit", "of graded output");
  std::vector<reference::Group> args;
  std::vector<int64_t> output;
  for (const auto& [x, w, m, ints] : groups) {
    const Geometry g = checks::geometry(ints, "geometry");
    FS_CHECK(x.ndim() == 4, "x has shape ", checks::shape(sizes_of(x)), ": expected [N, H, W, I]");
    const int64_t N = x.shape(0), H = x.shape(1), W = x.shape(2), I = x.shape(3), O = bias.size();
    FS_CHECK(I % g.groups == 0 && O % g.groups == 0, "geometry has ", g.groups, " groups: ", I,
             " input and ", O, " output channels cannot be divided by them");
    check_sizes(w, {O, I / g.groups, g.kernel_h, g.kernel_w}, "weight");
    check_sizes(m, {O}, "m");
    check_codes(x, "x");
    check_codes(w, "weight");
    const Size size = checks::output_of(H, W, g, "x of shape " + checks::shape(sizes_of(x)));
    const std::vector<int64_t> shape = {N, size.h, size.w, O};
    FS_CHECK(output.empty() || shape == output, "groups give outputs of different shapes, ",
             checks::shape(output), " and ", checks::shape(shape));
    output = shape;
    args.push_back({x.data(), w.data(), m.data(), H, W, I, g.kernel_h, g.kernel_w, g.stride_h,
                    g.stride_w, g.pad_top, g.pad_bottom, g.pad_left, g.pad_right, g.dilation_h,
                    g.dilation_w, g.groups, g.pad_code});
  }
  check_fits(output, "the output would have");
  if (residual) check_sizes(*residual, output, "residual");
  if (top) check_sizes(*top, sizes_of(bias), "top");
  const int64_t N = output[0], OH = output[1], OW = output[2], O = output[3];
  IntArray y(output);
  py::array_t<int64_t> counts(N);
  reference::conv(args.data(), static_cast<int>(args.size()), bias.data(),
                  residual ? residual->data() : nullptr, r, K, limit, top ? top->data() : nullptr,
                  N, OH, OW, O, y.mutable_data(), counts.mutable_data());
  return py::make_tuple(y, counts);
}

// The bindings of the plan's adders. Arrays bring their types and lengths along; they are not
// converted, so what has another type is refused. Weights are copied when the plan is registered,
// until when Python keeps them; everything else is copied at once.
using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

template <class T>
std::span<const T> elements(const py::array_t<T, py::array::c_style>& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

// groups: [(packed weights, m, geometry of 12 ints)].
int plan_conv(Plan& plan, const std::string& name, std::vector<int> inputs,
              const std::vector<std::tuple<Bytes, FloatArray, Ints>>& groups,
              const FloatArray& bias, std::optional<float> r, int K, int limit,
              const std::optional<FloatArray>& top) {
  PlanConv conv{std::move(inputs), {}, elements(bias), r.has_value(), r.value_or(0.0f), K, limit};
  if (top) conv.top = elements(*top);
  for (const auto& [packed, m, ints] : groups)
    conv.groups.push_back({elements(packed), elements(m), checks::geometry(ints, "geometry")});
  return plan.conv(name, conv);
}

// weight: the bytes of int8 or int16 [out, features].
int plan_readout(Plan& plan, const std::string& name, int input, const Bytes& weight,
                 int weight_bytes, const Doubles& scale, const FloatArray& bias, bool pool) {
  return plan.readout(
      name, {input, elements(weight), weight_bytes, elements(scale), elements(bias), pool});
}

// Multiply-accumulates a second that one core reaches on registers alone: the best of some runs.
double peak_macs(const Kernels& kernels, int32_t family) {
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const int64_t macs = kernels.peak(family, 20000);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(macs) / time.count());
  }
  return best;
}

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
  m.def("pack_bytes",
        [](int64_t out, int64_t in, int weight_bytes, Ints geometry, int x_min, int x_max) {
          return layout_of(current_kernels(), checks::geometry(geometry, "geometry"), out, in,
                           weight_bytes, x_min, x_max)
              .bytes;
        });
  m.def("packed_isa", [](const Bytes& packed) {
    PackHeader h{};
    std::memcpy(&h, packed.data(), std::min<size_t>(sizeof h, packed.size()));
    return py::bytes(h.backend, strnlen(h.backend, sizeof h.backend));
  });
  m.def("reference_conv", &InFloatEnvironment<&reference_conv>::run, py::arg("groups"),
        py::arg("bias"), py::arg("residual"), py::arg("r"), py::arg("K"), py::arg("limit"),
        py::arg("top") = py::none());
  m.def("in_float_environment",
        [](const py::function& function, const py::args& args, const py::kwargs& kwargs) {
          const FloatEnvironment environment;
          return function(*args, **kwargs);
        });
  bind_cuda(m);
  m.def("peak_macs",
        [](bool u8s8) { return peak_macs(current_kernels(), u8s8 ? kU8S8 : kS16S16); });
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan")
      .def(py::init([] { return std::make_shared<Plan>(current_kernels()); }))
      .def_property_readonly("isa", [](const Plan& plan) { return plan.kernels().name; })
      .def("encode", &Plan::encode)
      .def("conv", &plan_conv, py::arg("name"), py::arg("inputs"), py::arg("groups").noconvert(),
           py::arg("bias").noconvert(), py::arg("r"), py::arg("K"), py::arg("limit"),
           py::arg("top").noconvert() = py::none(), py::keep_alive<1, 4>(),
           py::keep_alive<1, 5>())  // groups, bias: read until it settles
      .def("pool",
           [](Plan& plan, const std::string& name, int input, const Ints& geometry, bool maximum) {
             return plan.pool(name, input, checks::geometry(geometry, "geometry"), maximum);
           })
      .def("concat", &Plan::concat)
      .def("readout", &plan_readout, py::arg("name"), py::arg("input"),
           py::arg("weight").noconvert(), py::arg("weight_bytes"), py::arg("scale").noconvert(),
           py::arg("bias").noconvert(), py::arg("pool"), py::keep_alive<1, 4>(),
           py::keep_alive<1, 6>(), py::keep_alive<1, 7>())
      .def("describe", &Plan::describe)
      .def("arena_bytes", &Plan::arena_bytes)
      .def("take_encoded", &Plan::take_encoded)
      .def("register", [](std::shared_ptr<Plan> plan, int64_t id) {
        plan->settle();
        plans().add(id, std::move(plan));
      });
  m.def("drop_plan", [](int64_t id, const Plan& plan) { plans().drop(id, &plan); });
  m.def("plan_size", [](int64_t id) {
    const auto plan = plans().at(id);
    return py::make_tuple(plan->classes(), plan->layers(), plan->nodes());
  });
}
