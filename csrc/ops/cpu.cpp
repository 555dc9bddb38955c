// The operators for torch's CPU key, under the schemas of schemas.cpp: packing and convolutions,
// and those of on_device.h.
#include <optional>
#include <tuple>

#include "../cpu/conv/conv_batch.h"
#include "../cpu/conv/pack.h"
#include "checked_conv.h"
#include "on_cpu.h"
#include "on_device.h"

namespace fskernel {
namespace {

Tensor pack_op(const Tensor& weight, Ints geometry, int64_t x_min, int64_t x_max) {
  const Geometry g = checks::geometry(geometry, "geometry");
  const Tensor w = checks::packable(weight, g, x_min, x_max);
  const auto low = static_cast<int32_t>(x_min), high = static_cast<int32_t>(x_max);
  const Kernels& k = current_kernels();
  const Layout layout = layout_of(k, g, w.size(0), w.size(1), checks::bytes_of(w), low, high);
  Tensor packed = new_tensor(w, {layout.bytes}, ScalarType::Byte);
  pack(k, layout, g, w.size(0), w.size(1), low, high, w.const_data_ptr(), checks::bytes_of(w),
       static_cast<uint8_t*>(packed.mutable_data_ptr()));
  return packed;
}

std::tuple<Tensor, Tensor> conv_op(
    const Tensor& x, const Tensor& packed, const Tensor& m, Ints geometry, const Tensor& bias,
    std::optional<Tensor> x2, std::optional<Tensor> packed2, std::optional<Tensor> m2,
    Ints geometry2, std::optional<Tensor> residual, std::optional<Tensor> r, int64_t K,
    int64_t limit, int64_t plane_bits, std::optional<Tensor> top, std::optional<double> step,
    bool count, std::optional<Tensor> table, std::optional<Tensor> fitted, int64_t zero) {
  const Kernels& k = current_kernels();
  const CheckedConv c(
      {},
      {x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, K, limit, plane_bits},
      [&](const ConvInput& in, int64_t channels, const std::string& name) {
        check_packed(k, in, channels, name);
      },
      {top, step, count, table, fitted, zero});
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
  ConvArguments arguments{Given(x, word_bytes(x_K)), packed, m, geometry, bias};
  arguments.K = K, arguments.limit = 32767, arguments.plane_bits = plane_bits;
  const CheckedConv c(
      {}, arguments,
      [&](const ConvInput& in, int64_t channels, const std::string& name) {
        const PackHeader header = check_packed(k, in, channels, name);
        const int64_t low = x_K ? 0 : -x_limit, high = x_K ? (1 << x_K) - 1 : x_limit;
        FS_CHECK(header.x_min <= low && header.x_max >= high, name, " was packed for codes from ",
                 header.x_min, " to ", header.x_max, ", but x gives ", low, " to ", high);
      },
      {top, step, count, {}, {}, 0, x.scalar_type(), channels_first});
  FloatConv call{c.call,
                 checks::as_encoder(inv_step, offset, x_K, x_limit),
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

STABLE_TORCH_LIBRARY_IMPL(fskernel, CPU, m) {
  m.impl("pack", OPERATOR(pack_op));
  m.impl("conv", OPERATOR(conv_op));
  m.impl("conv_floats", OPERATOR(conv_floats_op));
  implement_on<Cpu>(m);
}

}  // namespace
}  // namespace fskernel
