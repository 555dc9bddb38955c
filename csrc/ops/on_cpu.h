// The CPU as on_device.h wants a device: kernels of the instruction set in use, on torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../cpu/dispatch.h"
#include "../cpu/executor.h"
#include "../cpu/pool_readout_encode.h"
#include "checks.h"

namespace fskernel {

// torch's threads, as the CPU kernels use them.
inline Executor executor() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t n, void* context, void (*body)(void*, int64_t, int64_t)) {
            torch::stable::parallel_for(
                0, n, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
          }};
}

class Cpu {
  using Tensor = checks::Tensor;

 public:
  Cpu(const Tensor&, const char*) {}

  const checks::Place place{};

  void pool(const char* name, const Tensor& x, const Geometry& g, bool maximum,
            const Tensor& y) const {
    run_images(name, y, [&](const Kernels& k, int64_t n, const Executor& inner) {
      fskernel::pool(k, g, maximum, image_of(x, n), image_of(y, n), inner);
    });
  }

  void product(const char* name, const Tensor& a, const Tensor& b, const Gate& gate,
               const Tensor& y, const Tensor& counts) const {
    auto* to = counts.numel() ? static_cast<int64_t*>(counts.mutable_data_ptr()) : nullptr;
    run_images(name, y, [&](const Kernels& k, int64_t n, const Executor& inner) {
      const int64_t spikes = fskernel::product(k, gate, image_of(a, n), image_of(b, n),
                                               image_of(y, n), to != nullptr, inner);
      if (to) to[n] = spikes;
    });
  }

  void readout(const char* name, const Tensor& x, const Tensor& weight, const Tensor& m,
               const Tensor& bias, bool pooled, const Tensor& y) const {
    const int64_t out = weight.size(0);
    const Readout task{weight.const_data_ptr(),
                       checks::bytes_of(weight),
                       out,
                       weight.size(1),
                       static_cast<const float*>(m.const_data_ptr()),
                       static_cast<const float*>(bias.const_data_ptr()),
                       pooled};
    run_images(name, y, [&](const Kernels& k, int64_t n, const Executor& inner) {
      auto* to = static_cast<float*>(y.mutable_data_ptr()) + n * out;
      fskernel::readout(k, task, image_of(x, n), to, inner);
    });
  }

  void encode(const char* name, const Tensor& x, const Encoder& encoder, const Tensor& y) const {
    const FloatType type = checks::float_type(x.scalar_type());
    const auto* data = static_cast<const uint8_t*>(x.const_data_ptr());
    const int64_t image = x.stride(0) * float_bytes(type);
    run_images(name, y, [&](const Kernels& k, int64_t n, const Executor& inner) {
      fskernel::encode(k, encoder, {data + n * image, type, x.stride(1), x.stride(2), x.stride(3)},
                       image_of(y, n), inner);
    });
  }

  void decode(const char* name, const Tensor& words, double step, const Tensor& y) const {
    const int64_t H = words.size(1), W = words.size(2), C = words.size(3);
    run_images(name, y, [&](const Kernels& k, int64_t n, const Executor& inner) {
      auto* to = static_cast<float*>(y.mutable_data_ptr()) + n * H * W * C;
      fskernel::decode(k, image_of(words, n), step, {to, FloatType::kFloat32, 1, W * C, C}, inner);
    });
  }

  void synaptic_events(const char* name, const Tensor& words, const Tensor& fan_y,
                       const Tensor& fan_x, const Tensor& events) const {
    run(name, words, [&](const Kernels& k) {
      fskernel::synaptic_events(k, words.const_data_ptr(), checks::bytes_of(words), words.size(0),
                                words.size(1), words.size(2), words.size(3),
                                static_cast<const int64_t*>(fan_y.const_data_ptr()),
                                static_cast<const int64_t*>(fan_x.const_data_ptr()),
                                static_cast<int64_t*>(events.mutable_data_ptr()), executor());
    });
  }

 private:
  // Calls f(kernels) and notes it, unless there is nothing to work on.
  template <class Function>
  static void run(const char* name, const Tensor& work, const Function& f) {
    const Kernels& k = current_kernels();
    if (work.numel() == 0) return;
    f(k);
    note_run(k, name);
  }

  // The same with f(kernels, image, executor) for every image of an output.
  template <class Function>
  static void run_images(const char* name, const Tensor& y, const Function& f) {
    run(name, y, [&](const Kernels& k) {
      each_image(executor(), y.size(0), [&](int64_t n, const Executor& inner) { f(k, n, inner); });
    });
  }

  // One image of activations [N, H, W, C].
  static Map image_of(const Tensor& t, int64_t n) {
    const auto* data = static_cast<const uint8_t*>(t.const_data_ptr());
    const int64_t bytes = t.size(1) * t.size(2) * t.size(3) * t.element_size();
    return dense_map(data + n * bytes, checks::bytes_of(t), t.size(1), t.size(2), t.size(3));
  }
};

}  // namespace fskernel
