// The operators of rate-coded neurons for torch's CPU key, under the schemas of schemas.cpp.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "../cpu/conv/pack.h"
#include "../cpu/dispatch.h"
#include "../cpu/rate/rate_layer.h"
#include "checked_conv.h"
#include "on_cpu.h"

namespace fskernel {
namespace {

using checks::new_output;
using checks::ScalarType;
using checks::Tensor;
using Ints = std::vector<int64_t>;

void check_steps(int64_t steps) {
  checks::in_range(steps, 1, kTrainSteps, "steps", "time steps of a spike train");
}

// Membranes, or totals, which an operator updates in place.
void* updated(const Tensor& t, const char* name, ScalarType type, const Ints& size) {
  FS_CHECK(t.is_cpu() && t.scalar_type() == type && t.is_contiguous() && checks::sizes(t) == size,
           name, " is ", checks::type_name(t.scalar_type()), " of shape ", checks::shape(t),
           ": expected contiguous ", checks::type_name(type), " ", checks::shape(size),
           " on the CPU");
  return t.mutable_data_ptr();
}

Tensor new_counts(const Tensor& like, int64_t steps, int64_t images) {
  return torch::stable::new_zeros(like, Ints{steps, images}, ScalarType::Long);
}

Tensor pack_rows_op(const Tensor& weight, Ints geometry, int64_t inputs) {
  const Geometry g = checks::geometry(geometry, "geometry");
  const Tensor w = checks::packable(weight, g, 0, 1);
  FS_CHECK(g.groups == 1, "geometry has ", g.groups,
           " groups: rows exist where every output channel reads all input channels");
  const int64_t own = w.size(1) * g.kernel_h * g.kernel_w;
  FS_CHECK(inputs >= own && inputs < (int64_t{1} << 31), "inputs is ", inputs,
           ": expected those of a neuron from the widest group of its layer, at least ", own);
  const Kernels& k = current_kernels();
  const int32_t bytes = checks::bytes_of(w);
  const Rows rows =
      rows_of(k, g, w.size(0), w.size(1), bytes, row_vectors(k, w.size(0), inputs, bytes));
  FS_CHECK(rows.exist, "weight of shape ", checks::shape(w),
           " has rows beyond what 32 bits address: use the dense path");
  Tensor packed = checks::new_tensor(w, {rows.bytes}, ScalarType::Byte);
  pack_rows(k, rows, g, w.size(0), w.size(1), w.const_data_ptr(), bytes,
            static_cast<uint8_t*>(packed.mutable_data_ptr()));
  return packed;
}

RatePath path_of(const std::string& name) {
  if (name == "auto") return RatePath::kAuto;
  if (name == "dense") return RatePath::kDense;
  FS_CHECK(name == "events", "path is '", name, "': expected 'auto', 'dense' or 'events'");
  return RatePath::kEvents;
}

std::tuple<Tensor, Tensor> integrate_and_fire_trains_op(
    const Tensor& x, const Tensor& packed, const Tensor& m, Ints geometry, const Tensor& bias,
    std::optional<Tensor> x2, std::optional<Tensor> packed2, std::optional<Tensor> m2,
    Ints geometry2, std::optional<Tensor> residual, std::optional<Tensor> r,
    std::optional<Tensor> rows, std::optional<Tensor> rows2, const Tensor& membrane, int64_t steps,
    std::string path) {
  check_steps(steps);
  const Kernels& k = current_kernels();
  RateCall call{};
  call.path = path_of(path);
  const CheckedConv c({}, {x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r},
                      [&](const ConvInput& in, int64_t channels, const std::string& name) {
                        check_packed(k, in, channels, name);
                        FS_CHECK(in.x_bytes == 1 && in.geometry.pad_code == 0, name,
                                 ": expected spike trains, uint8, whose padding is 0");
                      },
                      {std::nullopt, std::nullopt, false});
  call.conv = c.call;
  FS_CHECK(!residual.has_value() || c.call.residual_bytes == 1,
           "residual is int16: expected spike trains, uint8");
  call.conv.membrane =
      static_cast<float*>(updated(membrane, "membrane", ScalarType::Float, checks::sizes(c.y)));
  const std::optional<Tensor>* given[2] = {&rows, &rows2};
  Tensor kept[2];
  Rows found[2];
  for (int32_t i = 0; i < c.call.input_count; ++i) {
    const char* name = i ? "rows2" : "rows";
    FS_CHECK(given[i]->has_value() || call.path != RatePath::kEvents, name,
             " is missing: path 'events' needs it, make it with ops.pack_rows");
    if (!given[i]->has_value()) continue;
    kept[i] = checks::dense(**given[i], name, 1, "(made by ops.pack_rows)", {ScalarType::Byte});
    call.rows[i] = static_cast<const uint8_t*>(kept[i].const_data_ptr());
    found[i] =
        check_rows(k, c.call.input[i], call.rows[i], kept[i].numel(), c.call.out_channels, name);
  }
  FS_CHECK(
      !call.rows[0] || !call.rows[1] ||
          (found[0].vectors == found[1].vectors && found[0].weight_bytes == found[1].weight_bytes),
      "rows and rows2 differ in width: give ops.pack_rows the same inputs, and weights of the "
      "same type, for both");
  call.steps = static_cast<int32_t>(steps);
  FS_CHECK(call.path != RatePath::kEvents || listable(call),
           "x has too many neurons to list their spikes: use path 'dense', or a smaller image");
  Tensor counts = new_counts(c.y, steps, c.call.images);
  call.counts = static_cast<int64_t*>(counts.mutable_data_ptr());
  note_run(k, "rate/" + integrate_and_fire(k, call, executor()));
  return {c.y, counts};
}

std::tuple<Tensor, Tensor> integrate_and_fire_current_op(const Tensor& current,
                                                         const Tensor& membrane, int64_t steps) {
  check_steps(steps);
  const Tensor v = checks::dense(current, "current", 4, "[N, H, W, C]", {ScalarType::Float});
  auto* u = static_cast<float*>(updated(membrane, "membrane", ScalarType::Float, checks::sizes(v)));
  Tensor y = new_output(v, {v.size(0), v.size(1), v.size(2), v.size(3)}, ScalarType::Byte);
  Tensor counts = new_counts(v, steps, v.size(0));
  const Kernels& k = current_kernels();
  if (v.numel() > 0) {
    integrate_and_fire(
        k,
        ConstantCall{static_cast<const float*>(v.const_data_ptr()), u,
                     static_cast<uint8_t*>(y.mutable_data_ptr()), v.size(0), v.numel() / v.size(0),
                     static_cast<int32_t>(steps), static_cast<int64_t*>(counts.mutable_data_ptr())},
        executor());
    note_run(k, "rate/current");
  }
  return {y, counts};
}

// Windows whose number of inputs, below 2^9, leaves room in 31 bits for the spikes of 2^20 steps.
constexpr int64_t kMostGated = 511;

Tensor gate_pool_op(const Tensor& x, const Tensor& totals, Ints geometry, int64_t steps) {
  check_steps(steps);
  const Tensor in = checks::dense(x, "x", 4, "[N, H, W, C]", {ScalarType::Byte});
  const Geometry g = checks::geometry(geometry, "geometry");
  FS_CHECK(int64_t{g.kernel_h} * g.kernel_w <= kMostGated, "geometry has windows of ", g.kernel_h,
           "x", g.kernel_w, ": at most ", kMostGated, " inputs are compared");
  auto* fired =
      static_cast<int32_t*>(updated(totals, "totals", ScalarType::Int, checks::sizes(in)));
  const Size out = checks::output_of(in, g, "x");
  Tensor y = new_output(in, {in.size(0), out.h, out.w, in.size(3)}, ScalarType::Byte);
  if (y.numel() > 0) {
    const Kernels& k = current_kernels();
    gate_pool(k,
              GateCall{static_cast<const uint8_t*>(in.const_data_ptr()), fired,
                       static_cast<uint8_t*>(y.mutable_data_ptr()), in.size(0), in.size(1),
                       in.size(2), in.size(3), g, static_cast<int32_t>(steps)},
              executor());
    note_run(k, "rate/gate");
  }
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(fskernel, CPU, m) {
  m.impl("pack_rows", OPERATOR(pack_rows_op));
  m.impl("integrate_and_fire_trains", OPERATOR(integrate_and_fire_trains_op));
  m.impl("integrate_and_fire_current", OPERATOR(integrate_and_fire_current_op));
  m.impl("gate_pool", OPERATOR(gate_pool_op));
}

}  // namespace
}  // namespace fskernel
