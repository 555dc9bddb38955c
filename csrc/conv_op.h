// The convolution operator as far as no device is involved: checks, outputs, the call.
#pragma once

#include <optional>

#include "checks.h"
#include "conv_call.h"

namespace fskernel {

using checks::Tensor;

// The checked arguments of one convolution and its outputs, with what keeps their memory alive.
struct CheckedConv {
  ConvCall call{};
  Tensor y, counts;

  // check_packed(input, output channels, argument's name) throws for weights packed otherwise.
  template <class CheckPacked>
  CheckedConv(checks::Place place, const Tensor& x, const Tensor& packed, const Tensor& m,
              const std::vector<int64_t>& geometry, const Tensor& bias,
              const std::optional<Tensor>& x2, const std::optional<Tensor>& packed2,
              const std::optional<Tensor>& m2, const std::vector<int64_t>& geometry2,
              const std::optional<Tensor>& residual, const std::optional<Tensor>& r, int64_t K,
              int64_t limit, int64_t plane_bits, CheckPacked&& check_packed) {
    checks::in_range(K, 0, 15, "K", "time steps; 0 gives graded output");
    checks::in_range(limit, 1, 32767, "limit", "of graded output");
    checks::plane_bits(plane_bits);
    FS_CHECK(x2.has_value() == packed2.has_value() && x2.has_value() == m2.has_value(),
             "x2, packed2 and m2 belong together: pass all of them or none");
    FS_CHECK(residual.has_value() == r.has_value(),
             "residual and r belong together: pass both or none");
    FS_CHECK(bias.dim() == 1, "bias has shape ", checks::shape(bias), ": expected [O]");
    const int64_t channels = bias.size(0);
    bias_ = checks::per_channel(bias, "bias", channels, place);
    const checks::Size out = group(0, place, x, packed, m, geometry, "", check_packed);
    const int64_t N = x_[0].size(0);
    FS_CHECK(N * out.h * out.w * channels < (int64_t{1} << 31), "the output would have ",
             N * out.h * out.w * channels, " elements: split the batch, at most 2^31 - 1");
    if (x2.has_value()) {
      const checks::Size second = group(1, place, *x2, *packed2, *m2, geometry2, "2", check_packed);
      FS_CHECK(x_[1].size(0) == N && second.h == out.h && second.w == out.w, "x2 of shape ",
               checks::shape(x_[1]), " gives ", x_[1].size(0), " images of ", second.h, "x",
               second.w, ", but x gives ", N, " images of ", out.h, "x", out.w,
               ": both synapse groups feed the same neurons");
    }
    if (residual.has_value()) {
      residual_ = checks::activations(*residual, "residual", place);
      FS_CHECK(residual_.size(0) == N && residual_.size(1) == out.h && residual_.size(2) == out.w &&
                   residual_.size(3) == channels,
               "residual has shape ", checks::shape(residual_), ": expected that of the output, [",
               N, ", ", out.h, ", ", out.w, ", ", channels, "]");
      // Read here, before anything runs, so it stays on the CPU for every device.
      FS_CHECK(r->numel() == 1 && r->scalar_type() == checks::ScalarType::Float && r->is_cpu(),
               "r has shape ", checks::shape(*r), " and type ", checks::type_name(r->scalar_type()),
               ": expected one float32 on the CPU");
      call.residual = residual_.const_data_ptr();
      call.residual_bytes = checks::bytes_of(residual_);
      call.residual_scale = *static_cast<const float*>(r->const_data_ptr());
    }
    y = checks::new_tensor(x_[0], {N, out.h, out.w, channels}, checks::word_type(K));
    counts = torch::stable::new_zeros(x_[0], std::vector<int64_t>{N}, checks::ScalarType::Long);
    call.images = N;
    call.out_h = out.h;
    call.out_w = out.w;
    call.out_channels = channels;
    call.bias = static_cast<const float*>(bias_.const_data_ptr());
    call.K = static_cast<int32_t>(K);
    call.limit = static_cast<int32_t>(limit);
    call.plane_bits = static_cast<int32_t>(plane_bits);
    call.y = y.mutable_data_ptr();
    call.counts = static_cast<int64_t*>(counts.mutable_data_ptr());
  }

 private:
  Tensor x_[2], packed_[2], m_[2], bias_, residual_;

  // Adds one synapse group to the call; returns the size of its output.
  template <class CheckPacked>
  checks::Size group(int i, checks::Place place, const Tensor& x, const Tensor& packed,
                     const Tensor& m, const std::vector<int64_t>& geometry,
                     const std::string& suffix, CheckPacked&& check_packed) {
    const auto name = [&](const char* base) { return base + suffix; };
    x_[i] = checks::activations(x, name("x").c_str(), place);
    packed_[i] = checks::dense(packed, name("packed").c_str(), 1, "(made by ops.pack)",
                               {checks::ScalarType::Byte}, place);
    m_[i] = checks::per_channel(m, name("m").c_str(), channels(), place);
    const Geometry g = checks::geometry(geometry, name("geometry").c_str());
    call.input[i] = {x_[i].const_data_ptr(),
                     checks::bytes_of(x_[i]),
                     x_[i].size(1),
                     x_[i].size(2),
                     x_[i].size(3),
                     static_cast<const uint8_t*>(packed_[i].const_data_ptr()),
                     packed_[i].numel(),
                     static_cast<const float*>(m_[i].const_data_ptr()),
                     g};
    call.input_count = i + 1;
    check_packed(call.input[i], channels(), name("packed"));
    return checks::output_of(x_[i], g, name("x").c_str());
  }

  int64_t channels() const { return bias_.size(0); }
};

}  // namespace fskernel
