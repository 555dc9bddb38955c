// Runs a convolution on tensor cores: brings the inputs into the kernel's form, chooses the kernel.
// `Device` launches, a CUDA stream or the emulator. It has
//   template <class Args>
//   int launch(const Launch&, void (*kernel)(Args), const Args&);   // an error, 0 = none
//   int multiprocessors();
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "calls.h"
#include "conv.cuh"
#include "conv_layout.h"
#include "conv_map.cuh"

namespace fskernel::cuda {

struct TensorKernel {
  TensorTile tile;
  void (*kernel)(TensorConvArgs);
};

template <class C>
TensorKernel tensor_kernel(const char* name, int percent) {
  return {{name, C::BM, C::BN, C::THREADS, C::SHARED, C::WIDE, C::GROUPS, C::PLANE_BITS, percent},
          &tensor_conv<C>};
}

// In the order of configs.inc.
inline const std::vector<TensorKernel>& tensor_kernels() {
#define FS_TENSOR_CONV(name, BM, BN, WM, WN, stages, blocks, wide, groups, bits, percent) \
  tensor_kernel<ConvConfig<BM, BN, WM, WN, stages, blocks, wide, groups, bits>>(name, percent),
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
    throw std::invalid_argument("no tensor-core kernel " + name +
                                " fits this layer: configs.inc "
                                "lists them");
  return *best;
}

// Bytes of device memory that run_tensor_conv needs for its inputs' maps.
inline int64_t tensor_conv_scratch(const ConvCall& call, const PackHeader (&headers)[2]) {
  ByteMap map[2];
  tensor_conv_args(call, headers, map);
  int64_t bytes = 0;
  for (int i = 0; i < call.input_count; ++i) bytes += ceil_div(map[i].bytes(), 256) * 256;
  return bytes;
}

template <class Device>
int run_fill_map(Device& device, const ConvInput& in, const ByteMap& map, uint8_t* to) {
  MapArgs args{};
  const auto i32 = [](int64_t v) { return static_cast<int32_t>(v); };
  args.x = static_cast<const uint8_t*>(in.x);
  args.map = to;
  args.plane = map.plane();
  args.x_bytes = in.x_bytes;
  args.planes = map.planes;
  args.pad_code = in.geometry.pad_code;
  args.aligned = in.channels % 16 == 0 && aligned(in.x, 16);
  args.height = i32(in.height), args.width = i32(in.width), args.channels = i32(in.channels);
  args.rows = i32(map.rows), args.cols = i32(map.cols), args.stored = i32(map.channels);
  args.top = i32(map.top), args.left = i32(map.left);
  args.pieces = static_cast<uint32_t>(map.plane() / 16);
  return device.launch({ceil_div(args.pieces, kMapThreads), kMapThreads, 0}, &fill_map, args);
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
  for (int i = 0; i < call.input_count; ++i) {
    const ConvInput& in = call.input[i];
    if (is_byte_map(map[i], in.height, in.width, in.channels, in.x_bytes,
                    aligned(in.x, 16) ? 16 : 1)) {
      args.group[i].x = static_cast<const uint8_t*>(in.x);
      continue;
    }
    args.group[i].x = scratch;
    const int error = run_fill_map(device, in, map[i], scratch);
    if (error) return error;
    scratch += ceil_div(map[i].bytes(), 256) * 256;
  }
  args.channel_blocks = args.padded_channels / k.tile.channels;
  const int64_t blocks = ceil_div(args.pixels, k.tile.pixels) * args.channel_blocks;
  return device.launch({blocks, k.tile.threads, k.tile.shared_bytes}, k.kernel, args);
}

}  // namespace fskernel::cuda
