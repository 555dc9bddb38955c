// A GPU as on_device.h wants a device: CUDA kernels on torch's current stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <stdexcept>
#include <string>

#include "../cpu/dispatch.h"
#include "../cuda/runtime/device.h"
#include "../cuda/runtime/launch.h"
#include "checks.h"
#include "cuda_stream.h"

namespace fskernel {

// The GPU that an operator runs on, made current while it does: the one of its first argument.
class Gpu {
  using Tensor = checks::Tensor;

 public:
  Gpu(const Tensor& t, const char* op)
      : place{t.get_device_index()},
        where{place.gpu, Streams::get().current(place.gpu)},
        op_(op),
        guard_(place.gpu) {}

  const checks::Place place;
  const cuda::Where where;

  // Turns a launch's error into words, or notes what was launched on x.
  void launched(const std::string& name, const Tensor& x, int error) const {
    if (error)
      throw std::runtime_error(std::string("fskernel::") + op_ + " of shape " + checks::shape(x) +
                               " on cuda:" + std::to_string(place.gpu) + ": " +
                               cuda::error_text(error));
    note_run("cuda", name);
  }

  void pool(const char* name, const Tensor& x, const Geometry& g, bool maximum,
            const Tensor& y) const {
    launched(
        name, x,
        cuda::launch_pool({x.const_data_ptr(), checks::bytes_of(x), x.size(0), x.size(1), x.size(2),
                           x.size(3), y.size(1), y.size(2), g, maximum, y.mutable_data_ptr()},
                          where));
  }

  void product(const char* name, const Tensor& a, const Tensor& b, const Gate& gate,
               const Tensor& y, const Tensor& counts) const {
    auto* to = counts.numel() ? static_cast<int64_t*>(counts.mutable_data_ptr()) : nullptr;
    launched(
        name, a,
        cuda::launch_product({a.const_data_ptr(), b.const_data_ptr(), checks::bytes_of(a),
                              checks::bytes_of(b), a.size(0), a.size(1) * a.size(2), a.size(3),
                              b.size(1) * b.size(2), b.size(3), gate, y.mutable_data_ptr(), to},
                             where));
  }

  void readout(const char* name, const Tensor& x, const Tensor& weight, const Tensor& m,
               const Tensor& bias, bool pooled, const Tensor& y) const {
    const int64_t N = x.size(0), C = x.size(3);
    const Tensor sums = checks::new_tensor(x, {pooled ? N : 0, C}, checks::ScalarType::Int);
    launched(
        name, x,
        cuda::launch_readout({x.const_data_ptr(), checks::bytes_of(x), N, x.size(1) * x.size(2), C,
                              pooled, static_cast<int32_t*>(sums.mutable_data_ptr()),
                              weight.const_data_ptr(), checks::bytes_of(weight), weight.size(0),
                              static_cast<const float*>(m.const_data_ptr()),
                              static_cast<const float*>(bias.const_data_ptr()),
                              static_cast<float*>(y.mutable_data_ptr())},
                             where));
  }

  void encode(const char* name, const Tensor& x, const Encoder& encoder, const Tensor& y,
              const Kept& kept = {}) const {
    launched(name, x,
             cuda::launch_encode(
                 {static_cast<const float*>(x.const_data_ptr()), x.size(0), x.size(1), x.size(2),
                  x.size(3), x.stride(0), x.stride(1), x.stride(2), x.stride(3), encoder.inv_step,
                  encoder.offset, encoder.K, encoder.limit, y.mutable_data_ptr(), kept},
                 where));
  }

  void decode(const char* name, const Tensor& words, double step, const Tensor& y) const {
    launched(name, words,
             cuda::launch_decode({words.const_data_ptr(), checks::bytes_of(words), step,
                                  static_cast<float*>(y.mutable_data_ptr()), words.numel()},
                                 where));
  }

  void synaptic_events(const char* name, const Tensor& words, const Tensor& fan_y,
                       const Tensor& fan_x, const Tensor& events) const {
    launched(name, words,
             cuda::launch_events(
                 {words.const_data_ptr(), checks::bytes_of(words), words.size(0), words.size(1),
                  words.size(2), words.size(3), static_cast<const int64_t*>(fan_y.const_data_ptr()),
                  static_cast<const int64_t*>(fan_x.const_data_ptr()),
                  static_cast<int64_t*>(events.mutable_data_ptr())},
                 where));
  }

 private:
  const char* op_;
  torch::stable::accelerator::DeviceGuard guard_;
};

}  // namespace fskernel
