// One call of a convolution on a batch of dense tensors, as an operator hands it to a device.
#pragma once

#include "conv_params.h"

namespace fskernel {

// One synapse group and its input.
struct ConvInput {
  const void* x;    // [N, H, W, C]
  int32_t x_bytes;  // 1 = uint8, 2 = int16
  int64_t height, width, channels;
  const uint8_t* packed;
  int64_t packed_bytes;
  const float* m;  // [O]
  Geometry geometry;
};

struct ConvCall {
  ConvInput input[2];
  int32_t input_count;
  int64_t images, out_h, out_w, out_channels;
  const float* bias;     // [O]
  const void* residual;  // [N, OH, OW, O] or null
  int32_t residual_bytes;
  float residual_scale;
  int32_t K, limit, plane_bits;
  void* y;          // [N, OH, OW, O]: uint8 for K in 1..8, else int16
  int64_t* counts;  // [N], zeroed by the caller
  // Of rate-coded neurons, [N, OH, OW, O], updated by one time step, K = 1; null: FS neurons.
  float* membrane;
};

}  // namespace fskernel
