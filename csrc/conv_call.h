// One call of a convolution on a batch of tensors, as an operator hands it to a device; and what
// other operators tell every device.
#pragma once

#include "geometry.h"
#include "neuron.h"

namespace fskernel {

// Whether a tensor is kept as a byte map (cuda/byte_map.h), as layers on a GPU leave it for
// each other, and the padding around each of its images; else it is dense.
struct Kept {
  bool map = false;
  int32_t top = 0, bottom = 0, left = 0, right = 0;
  int32_t pad_code = 0;  // what stands there
  int32_t stored = 0;    // channels of a pixel of the map; 0: the next multiple of 16
};

// One synapse group and its input.
struct ConvInput {
  const void* x;    // [N, H, W, C]
  int32_t x_bytes;  // 1 = uint8, 2 = int16
  int64_t height, width, channels;
  const uint8_t* packed;
  int64_t packed_bytes;
  const float* m;  // [O]
  Geometry geometry;
  Kept kept{};
  // The range of codes that the caller declares; the packed weights have to be packed for it.
  bool declared = false;
  int32_t x_min = 0, x_max = 0;
};

// How float values become codes. K = 0: graded values up to `limit`.
struct Encoder {
  float inv_step, offset;
  int32_t K, limit;
};

// How a gate multiplies two maps: codes of zero, [channels] of m and bias, K = 0 for graded output
// up to `limit`.
struct Gate {
  int32_t zero_a, zero_b;
  const float *m, *bias;
  int32_t K, limit;
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
  const float* top = nullptr;  // [O]: largest word of each neuron; null: 2^K - 1
  Shape shape{};               // of shaped neurons: one table, or one for every channel
  Fitted fitted{};             // of fitted neurons; K is then the bits of their codes, up to 16
  // Above 0: y is float32, words * step (the product in float64, rounded once) or, where K = 0 and
  // there are no neurons, the membrane potentials.
  double step = 0;
  void* y = nullptr;          // [N, OH, OW, O]: uint8 for K in 1..8, else int16
  int64_t* counts = nullptr;  // [N], zeroed by the caller; null: spikes are not counted
  Kept residual_kept{}, y_kept{};
  // Of rate-coded neurons, [N, OH, OW, O], updated by one time step, K = 1; null: FS neurons.
  float* membrane = nullptr;
};

// Bytes of one element of a call's output.
inline int32_t output_bytes(const ConvCall& call) { return call.step > 0 ? 4 : word_bytes(call.K); }

}  // namespace fskernel
