// Activations and values of one image in memory.
#pragma once

#include <cstdint>

#include "../float_types.h"

namespace fskernel {

// One image's activations: element (y, x, c) lies at data + y*row + x*pixel + c*bytes.
struct Map {
  uint8_t* data;
  int64_t pixel, row;  // in bytes
  int32_t bytes;       // of one element
  int64_t height, width, channels;
};
Map dense_map(const void* data, int32_t bytes, int64_t height, int64_t width, int64_t channels);

// One image of float values [channels, height, width], of any float type; strides in elements.
struct Pixels {
  const void* x;
  FloatType type;
  int64_t stride_c, stride_h, stride_w;
};
struct FloatMap {
  void* data;
  FloatType type;
  int64_t stride_c, stride_h, stride_w;  // stride_c or stride_w is 1
};

// n elements of 1 or 2 bytes become `code`.
void fill(uint8_t* to, int32_t bytes, int32_t code, int64_t n);

constexpr int64_t kReadSlack = 64;  // kernels may read a vector beyond the end of prepared memory

}  // namespace fskernel
