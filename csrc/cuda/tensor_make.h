// Makes the kernels of the rows of configs.inc that are asked for.
#pragma once

#include <tuple>

#include "kernel/tensor/tensor_conv.cuh"
#include "tensor_rows.h"

namespace fskernel::cuda {

// The first one stands for none, because every row brings its comma.
using TensorRows = std::tuple<void*
#define FS_TENSOR_CONV(name, BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate, percent) \
  , ConvConfig<BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate>
#include "kernel/configs.inc"
#undef FS_TENSOR_CONV
                              >;

template <int kRow>
TensorKernel tensor_kernel() {
  using C = std::tuple_element_t<kRow + 1, TensorRows>;
  return {kTensorTiles[kRow], C::THREADS, C::SHARED, &tensor_conv<C>};
}

}  // namespace fskernel::cuda
