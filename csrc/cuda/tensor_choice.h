// The tensor-core kernels that are built, and which one runs a convolution. `Device` as in
// tensor_launch.h, and it has
//   int multiprocessors();
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tensor_launch.h"
#include "tensor_rows.h"

namespace fskernel::cuda {

// In the order of configs.inc.
inline const std::vector<TensorKernel>& tensor_kernels() {
  static const std::vector<TensorKernel> kernels =
      []<int... kRow>(std::integer_sequence<int, kRow...>) {
        return std::vector<TensorKernel>{tensor_kernel<kRow>()...};
      }(std::make_integer_sequence<int, kTensorRows>());
  return kernels;
}

inline TileWork work_of(const TensorConvArgs& args, int32_t plane_bits) {
  TileWork work{args.pixels, args.channels, args.groups,
                plane_bits,  true,          args.membrane != nullptr};
  for (int32_t g = 0; g < args.groups; ++g)
    for (int32_t i = 0; i < args.group[g].passes; ++i)
      work.narrow = work.narrow && args.group[g].pass[i].product == Product::kU8S8;
  return work;
}

// The kernel that is done first, or the one of that name. Throws std::invalid_argument if that does
// not exist or does not fit.
inline const TensorKernel& choose_tensor_kernel(const TensorConvArgs& args, int32_t plane_bits,
                                                int multiprocessors, const std::string& name) {
  const int row = choose_tile(work_of(args, plane_bits), multiprocessors, name);
  if (row < 0)
    throw std::invalid_argument("the tensor-core kernel " + name +
                                " does not exist or does not fit "
                                "this layer: see csrc/cuda/kernel/configs.inc");
  return tensor_kernels()[row];
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
