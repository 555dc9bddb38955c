// What the membrane of a shaped neuron becomes before its K steps.
#pragma once

#include "../../neuron.h"
#include "gpu.h"

namespace fskernel::cuda {

// Of a neuron of this channel.
FS_DEVICE float shaped(const Shape& shape, int channel, float v) {
  const float* table = shape.table + channel * shape.row;
  v = in_table(v, shape.segments);
  const auto i = static_cast<int32_t>(v);
  return gpu::fma(v, gpu::load_readonly(table + i), gpu::load_readonly(table + shape.segments + i));
}

}  // namespace fskernel::cuda
