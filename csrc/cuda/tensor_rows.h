// The rows of configs.inc. A kernel takes nvcc seconds, so each is compiled in a unit of its own
// (runtime/tensor_row.cu), which alone includes tensor_make.h; the emulator includes that and makes
// all.
#pragma once

#include "kernel/tensor/tensor_args.h"
#include "tensor_tile.h"

namespace fskernel::cuda {

struct TensorKernel {
  TensorTile tile;
  int threads, shared_bytes;  // of a block
  void (*kernel)(TensorConvArgs);
};

// The kernel of a row.
template <int kRow>
TensorKernel tensor_kernel();

}  // namespace fskernel::cuda
