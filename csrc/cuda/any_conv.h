// Runs any convolution: on tensor cores where its weights are packed for them, else directly.
#pragma once

#include <stdexcept>

#include "direct_launch.h"
#include "pack.h"
#include "tensor_choice.h"

namespace fskernel::cuda {

// The name that forces the direct kernels, as those of configs.inc force a tensor-core kernel.
constexpr char kDirectName[] = "direct";

inline bool on_tensor_cores(const ConvCall& call, const PackHeader (&headers)[2],
                            const std::string& kernel) {
  if (kernel == kDirectName) return false;
  for (int i = 0; i < call.input_count; ++i)
    if (!has_tensor_weights(headers[i])) return false;
  return true;
}

// The call as the tensor-core kernels want it: their weights are the packed ones' second part.
inline ConvCall tensor_call(const ConvCall& call, const PackHeader (&headers)[2]) {
  ConvCall to = call;
  for (int i = 0; i < call.input_count; ++i) to.input[i].packed += tensor_part(headers[i]);
  return to;
}

// Bytes of device memory that run_conv needs.
inline int64_t conv_scratch(const ConvCall& call, const PackHeader (&headers)[2],
                            const std::string& kernel) {
  return on_tensor_cores(call, headers, kernel) ? tensor_conv_scratch(call, headers) : 0;
}

// scratch: aligned to 256. `kernel` forces one: a name of configs.inc, where that can run the layer
// at all, or "direct"; empty leaves the choice. `name` says what ran.
template <class Device>
int run_conv(Device& device, const ConvCall& call, const PackHeader (&headers)[2], uint8_t* scratch,
             const std::string& kernel, const char*& name) {
  if (on_tensor_cores(call, headers, kernel))
    return run_tensor_conv(device, tensor_call(call, headers), headers, scratch, kernel, name);
  if (call.y_kept.map || call.residual_kept.map || call.input[0].kept.map || call.input[1].kept.map)
    throw std::invalid_argument("byte maps are for layers on tensor cores, which this one is not");
  return run_direct_conv(device, call, headers, name);
}

}  // namespace fskernel::cuda
