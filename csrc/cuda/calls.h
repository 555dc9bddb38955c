// What the operators other than the convolution hand to a device: sizes and raw pointers into dense
// tensors. Also how a launch is described, for whoever runs it: a CUDA stream or the emulator.
#pragma once

#include "../conv_call.h"

namespace fskernel::cuda {

struct PoolCall {
  const void* x;  // [images, height, width, channels]
  int32_t x_bytes;
  int64_t images, height, width, channels, out_h, out_w;
  Geometry geometry;
  bool maximum;
  void* y;  // int16 where sums, else as x
};

struct ProductCall {
  const void *a, *b;  // [images, pixels, channels]; b may have one pixel, or one channel
  int32_t a_bytes, b_bytes;
  int64_t images, pixels, channels, b_pixels, b_channels;
  Gate gate;
  void* y;          // uint8 for K in 1..8, else int16
  int64_t* counts;  // [images], zeroed by the caller; null: spikes are not counted
};

struct EncodeCall {
  const float* x;
  int64_t images, channels, height, width, stride_n, stride_c, stride_h, stride_w;
  float inv_step, offset;
  int32_t K, limit;
  void* y;  // uint8 for K in 1..8, else int16
  Kept y_kept{};
};

struct DecodeCall {
  const void* x;  // [n] words
  int32_t x_bytes;
  double step;
  float* y;  // [n]: x * step
  int64_t n;
};

struct ReadoutCall {
  const void* x;  // [images, pixels, channels]
  int32_t x_bytes;
  int64_t images, pixels, channels;
  bool pooled;
  int32_t* sums;  // [images, channels] of scratch where pooled
  const void* weight;
  int32_t weight_bytes;
  int64_t out;
  const float *m, *bias;
  float* y;
};

struct EventCall {
  const void* words;
  int32_t bytes;
  int64_t images, height, width, channels;
  const int64_t *fan_y, *fan_x;
  int64_t* events;  // zeroed by the caller
};

// One launch of one kernel. Blocks have one dimension.
struct Launch {
  int64_t blocks;
  int threads, shared_bytes;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline bool aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

}  // namespace fskernel::cuda
