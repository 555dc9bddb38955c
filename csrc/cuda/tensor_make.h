// Makes the kernels of the rows of configs.inc that are asked for.
#pragma once

#include <tuple>

#include "kernel/tensor_conv.cuh"
#include "tensor_rows.h"

namespace fskernel::cuda {

template <class Config, int kPercent>
struct Row {
  using C = Config;
  static constexpr int percent = kPercent;
};

// The first one stands for none, because every row brings its comma.
using TensorRows = std::tuple<void*
#define FS_TENSOR_CONV(name, BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate, percent) \
  , Row<ConvConfig<BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate>, percent>
#include "kernel/configs.inc"
#undef FS_TENSOR_CONV
                              >;

template <int kRow>
TensorKernel tensor_kernel() {
  using R = std::tuple_element_t<kRow + 1, TensorRows>;
  using C = typename R::C;
  return {{kTensorNames[kRow], C::BM, C::BN, C::THREADS, C::SHARED, C::WIDE, C::GROUPS,
           C::PLANE_BITS, C::RATE, R::percent},
          &tensor_conv<C>};
}

}  // namespace fskernel::cuda
