// The operators for torch's CPU key, under the schemas of schemas.cpp: checks, memory, the call of
// a kernel. It computes nothing itself.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "../cpu/dispatch.h"
#include "../cpu/pack.h"
#include "../cpu/pool_readout_encode.h"
#include "checked_conv.h"
#include "checks.h"
#include "threads.h"

namespace fskernel {
namespace {

using checks::new_output;
using checks::new_tensor;
using checks::ScalarType;
using checks::word_type;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

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
  const CheckedConv c(
      {},
      {x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, K, limit, plane_bits},
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
}

}  // namespace
}  // namespace fskernel
