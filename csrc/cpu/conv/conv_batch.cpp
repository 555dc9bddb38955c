#include "conv_batch.h"

#include <mutex>

#include "../pool_readout_encode.h"
#include "../scratch.h"
#include "conv_image.h"
#include "layer_of.h"
#include "prepare.h"

namespace fskernel {
namespace {

struct ThreadScratch {
  Scratch input[2], parameters, sums, output;
};
thread_local ThreadScratch scratch;

}  // namespace

std::string conv(const Kernels& kernels, const ConvCall& call, const Executor& executor) {
  const ConvLayer layer = layer_of(kernels, call, scratch.parameters);
  const std::string what = describe(kernels, layer);
  const int64_t outputs = call.out_h * call.out_w * call.out_channels;
  if (outputs == 0) return what;

  const auto one = [&](int64_t n, const Executor& inner) {
    ConvImage image{};
    for (int32_t i = 0; i < call.input_count; ++i) {
      const ConvInput& in = call.input[i];
      const int64_t bytes = in.height * in.width * in.channels * in.x_bytes;
      image.x[i] = dense_map(static_cast<const uint8_t*>(in.x) + n * bytes, in.x_bytes, in.height,
                             in.width, in.channels);
      const ConvGroup& g = layer.group[i];
      if (!readable(kernels, g, image.x[i], 0, false))
        image.x[i] = prepare(kernels, g, image.x[i],
                             scratch.input[i].reserve(prepared_bytes(g, image.x[i])), inner);
    }
    const int32_t y_bytes = output_bytes(call);
    image.y = dense_map(static_cast<uint8_t*>(call.y) + n * outputs * y_bytes, y_bytes, call.out_h,
                        call.out_w, call.out_channels);
    if (call.residual)
      image.residual =
          dense_map(static_cast<const uint8_t*>(call.residual) + n * outputs * call.residual_bytes,
                    call.residual_bytes, call.out_h, call.out_w, call.out_channels);
    if (layer.separate)
      image.sums = reinterpret_cast<int32_t*>(scratch.sums.reserve(4 * (outputs + kernels.lanes)));
    image.plane_bits = call.plane_bits;
    image.count = call.counts != nullptr;
    const int64_t spikes = conv_image(kernels, layer, image, inner);
    if (call.counts) call.counts[n] = spikes;
  };
  each_image(executor, call.images, one);
  return what;
}

std::string conv(const Kernels& kernels, const FloatConv& floats, const Executor& executor,
                 Encoded& encoded) {
  const ConvCall& call = floats.call;
  const ConvInput& in = call.input[0];
  // What is float32 with the channels last, the layer writes by itself; else it leaves words (or
  // membranes, where there are no neurons) that are turned around and converted as a second step.
  const bool direct = floats.type == FloatType::kFloat32 && !floats.channels_first;
  ConvCall inner_call = call;
  if (!direct && call.K > 0) inner_call.step = 0;
  const ConvLayer layer = layer_of(kernels, inner_call, scratch.parameters);
  const std::string what = describe(kernels, layer);
  const int64_t pixels = call.out_h * call.out_w, outputs = pixels * call.out_channels;
  if (outputs == 0) return what;
  const int32_t bytes = output_bytes(inner_call);
  const ConvGroup& group = layer.group[0];
  std::mutex mutex;

  const auto one = [&](int64_t n, const Executor& inner) {
    const Map size = dense_map(nullptr, group.layout.x_bytes, in.height, in.width, in.channels);
    const Pixels input{
        static_cast<const uint8_t*>(in.x) + n * floats.stride_n * float_bytes(floats.type),
        floats.type, floats.stride_c, floats.stride_h, floats.stride_w};
    ConvImage image{};
    Encoded part;
    image.x[0] = prepare(kernels, group, floats.encoder, input, in.height, in.width, in.channels,
                         scratch.input[0].reserve(prepared_bytes(group, size)), inner, part);
    auto* y = static_cast<uint8_t*>(floats.y) + n * outputs * float_bytes(floats.type);
    image.y = dense_map(direct ? y : scratch.output.reserve(outputs * bytes), bytes, call.out_h,
                        call.out_w, call.out_channels);
    image.plane_bits = call.plane_bits;
    image.count = call.counts != nullptr;
    const int64_t spikes = conv_image(kernels, layer, image, inner);
    if (call.counts) call.counts[n] = spikes;
    const int64_t c = call.out_channels, w = call.out_w;
    const FloatMap last{y, floats.type, 1, w * c, c}, first{y, floats.type, pixels, w, 1};
    if (!direct) decode(kernels, image.y, call.step, floats.channels_first ? first : last, inner);
    const std::lock_guard<std::mutex> lock(mutex);
    encoded.add(part);
  };
  each_image(executor, call.images, one);
  return what;
}

}  // namespace fskernel
