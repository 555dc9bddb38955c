// The geometry of a convolution or a pool, and what follows from it. Plain data, for any file.
#pragma once

#include <cstdint>

#include "float_rules.h"

namespace fskernel {

struct Geometry {
  int32_t kernel_h, kernel_w, stride_h, stride_w;
  int32_t pad_top, pad_bottom, pad_left, pad_right;
  int32_t dilation_h, dilation_w, groups, pad_code;

  bool operator==(const Geometry&) const = default;
};

// Output rows (or columns) of a window along one axis; below 1 if it does not fit.
constexpr int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t before,
                              int64_t after, int64_t dilation) {
  const int64_t span = size + before + after - dilation * (kernel - 1) - 1;
  return span < 0 ? 0 : span / stride + 1;
}

struct Size {
  int64_t h, w;
};

// Of a map's output, for its height and width.
constexpr Size output_size(const Geometry& g, int64_t height, int64_t width) {
  return {output_size(height, g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h),
          output_size(width, g.kernel_w, g.stride_w, g.pad_left, g.pad_right, g.dilation_w)};
}

}  // namespace fskernel
