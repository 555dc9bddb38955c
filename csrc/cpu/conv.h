// A whole FS convolution: prepares the inputs, cuts the work into tasks, runs an ISA's kernel.
#pragma once

#include <stdexcept>
#include <string>

#include "../conv_params.h"

namespace fskernel {

// How to run body(context, begin, end) over [0, n) on several threads; ops.cpp brings torch's.
struct Executor {
  int threads;
  void (*run)(int64_t n, void* context, void (*body)(void* context, int64_t begin, int64_t end));
};

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
};

// Output rows (or columns) of a window along one axis; below 1 if it does not fit.
int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t after,
                    int64_t dilation);

// Throws std::invalid_argument if packed weights were made for other kernels, shapes or geometry.
// `name` is the argument's name in the message. Returns the header.
PackHeader check_packed(const Kernels& kernels, const ConvInput& input, int64_t out_channels,
                        const std::string& name);

// Returns the operand family of the first group's multiplications ("u8s8", "s16s16", ...).
const char* conv(const Kernels& kernels, const ConvCall& call, const Executor& executor);

}  // namespace fskernel
