// The rows of configs.inc. A kernel takes nvcc seconds, so each is compiled in a unit of its own
// (runtime/tensor_row.cu), which alone includes tensor_make.h; the emulator includes that and makes
// all.
#pragma once

#include <iterator>

#include "tensor_layout.h"

namespace fskernel::cuda {

struct TensorKernel {
  TensorTile tile;
  void (*kernel)(TensorConvArgs);
};

inline constexpr const char* kTensorNames[] = {
#define FS_TENSOR_CONV(name, ...) name,
#include "kernel/configs.inc"
#undef FS_TENSOR_CONV
};
constexpr int kTensorRows = static_cast<int>(std::size(kTensorNames));

// The kernel of a row.
template <int kRow>
TensorKernel tensor_kernel();

}  // namespace fskernel::cuda
