// The tensor-core kernels that are built, and which one runs a convolution. `Device` as in
// conv_run.h, and it has
//   int multiprocessors();
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "conv.cuh"
#include "conv_run.h"

namespace fskernel::cuda {

template <class C>
TensorKernel tensor_kernel(const char* name, int percent) {
  return {{name, C::BM, C::BN, C::THREADS, C::SHARED, C::WIDE, C::GROUPS, C::PLANE_BITS, C::RATE,
           percent},
          &tensor_conv<C>};
}

// In the order of configs.inc.
inline const std::vector<TensorKernel>& tensor_kernels() {
#define FS_TENSOR_CONV(name, BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate, percent) \
  tensor_kernel<ConvConfig<BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate>>(name,     \
                                                                                      percent),
  static const std::vector<TensorKernel> kernels = {
#include "configs.inc"
  };
#undef FS_TENSOR_CONV
  return kernels;
}

// The kernel that is done first, or the one of that name. Throws std::invalid_argument if that does
// not exist or does not fit.
inline const TensorKernel& choose_tensor_kernel(const TensorConvArgs& args, int32_t plane_bits,
                                                int multiprocessors, const std::string& name) {
  const TensorKernel* best = nullptr;
  for (const TensorKernel& k : tensor_kernels()) {
    if (!name.empty() && name != k.tile.name) continue;
    if (!tile_fits(k.tile, args, plane_bits)) continue;
    if (!best ||
        tile_time(k.tile, args, multiprocessors) < tile_time(best->tile, args, multiprocessors))
      best = &k;
  }
  if (!best)
    throw std::invalid_argument("the tensor-core kernel " + name +
                                " does not exist or does not fit "
                                "this layer: see csrc/cuda/configs.inc");
  return *best;
}

// scratch: tensor_conv_scratch() bytes, aligned to 256. `kernel`: a name of configs.inc, or empty.
// `name` says what ran.
template <class Device>
int run_tensor_conv(Device& device, const ConvCall& call, const PackHeader (&headers)[2],
                    uint8_t* scratch, const std::string& kernel, const char*& name) {
  ByteMap map[2];
  TensorConvArgs args = tensor_conv_args(call, headers, map);
  const TensorKernel& k =
      choose_tensor_kernel(args, call.plane_bits, device.multiprocessors(), kernel);
  name = k.tile.name;
  if (args.pixels == 0 || args.channels == 0) return 0;
  int error = launch_fill_maps(device, call, map, scratch, args);
  if (!error && call.y_kept.map) error = launch_fill_halo(device, call);
  return error ? error : launch_tensor_conv(device, k, args);
}

}  // namespace fskernel::cuda
