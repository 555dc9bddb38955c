#include "layer_of.h"

namespace fskernel {

ConvLayer layer_of(const Kernels& kernels, const ConvCall& call, Scratch& parameters) {
  ConvLayer layer{};
  layer.group_count = call.input_count;
  const float* m[2] = {};
  for (int32_t i = 0; i < call.input_count; ++i) {
    layer.group[i] = conv_group(kernels, call.input[i].packed);
    m[i] = call.input[i].m;
  }
  layer.separate = separate(layer);
  layer.out_channels = call.out_channels;
  layer.K = call.K;
  layer.limit = call.limit;
  layer.step = call.step;
  layer.shape = call.shape;
  layer.fitted = call.fitted;
  layer.has_residual = call.residual != nullptr;
  layer.residual_scale = call.residual_scale;
  auto* to = reinterpret_cast<float*>(parameters.reserve(4 * parameter_floats(kernels, layer)));
  pad_parameters(kernels, layer, m, call.bias, call.top, to);
  return layer;
}

}  // namespace fskernel
