// Launches a given tensor-core kernel. `Device` is a CUDA stream or the emulator. It has
//   template <class Args>
//   int launch(const Launch&, void (*kernel)(Args), const Args&);   // an error, 0 = none
#pragma once

#include "calls.h"
#include "kernel/byte_map.cuh"
#include "tensor_layout.h"
#include "tensor_rows.h"

namespace fskernel::cuda {

// Bytes of device memory that the maps of a call's inputs take.
inline int64_t tensor_conv_scratch(const ConvCall& call, const PackHeader (&headers)[2]) {
  ByteMap map[2];
  tensor_conv_args(call, headers, map);
  int64_t bytes = 0;
  for (int i = 0; i < call.input_count; ++i)
    if (!call.input[i].kept.map) bytes += ceil_div(map[i].bytes(), 256) * 256;
  return bytes;
}

template <class Device>
int launch_fill_map(Device& device, const ConvInput& in, const ByteMap& map, uint8_t* to) {
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

// Writes the halo of the map that a call's output is kept as.
template <class Device>
int launch_fill_halo(Device& device, const ConvCall& call) {
  const ByteMap map = kept_map(call.y_kept, call.images, call.out_h, call.out_w, call.out_channels,
                               word_bytes(call.K));
  const int64_t pixels = map.images * (map.rows * map.cols - call.out_h * call.out_w);
  if (pixels == 0) return 0;
  MapArgs args{};
  const auto i32 = [](int64_t v) { return static_cast<int32_t>(v); };
  args.map = static_cast<uint8_t*>(call.y);
  args.plane = map.plane();
  args.planes = map.planes;
  args.pad_code = call.y_kept.pad_code;
  args.height = i32(call.out_h), args.width = i32(call.out_w);
  args.rows = i32(map.rows), args.cols = i32(map.cols), args.stored = i32(map.channels);
  args.top = i32(map.top), args.left = i32(map.left);
  args.pieces = static_cast<uint32_t>(pixels * (map.channels / 16));
  return device.launch({ceil_div(args.pieces, kMapThreads), kMapThreads, 0}, &fill_halo, args);
}

// Brings a call's inputs into the form of `map`, where they do not have it, and notes in `args`
// where they are. scratch: tensor_conv_scratch() bytes, aligned to 256.
template <class Device>
int launch_fill_maps(Device& device, const ConvCall& call, const ByteMap (&map)[2],
                     uint8_t* scratch, TensorConvArgs& args) {
  for (int i = 0; i < call.input_count; ++i) {
    const ConvInput& in = call.input[i];
    if (in.kept.map) continue;
    const int alignment = aligned(in.x, 16) ? 16 : 1;
    if (is_byte_map(map[i], in.height, in.width, in.channels, in.x_bytes, alignment)) {
      args.group[i].x = static_cast<const uint8_t*>(in.x);
      continue;
    }
    args.group[i].x = scratch;
    const int error = launch_fill_map(device, in, map[i], scratch);
    if (error) return error;
    scratch += ceil_div(map[i].bytes(), 256) * 256;
  }
  return 0;
}

template <class Device>
int launch_tensor_conv(Device& device, const TensorKernel& k, TensorConvArgs args) {
  args.channel_blocks = args.padded_channels / k.tile.channels;
  const int64_t blocks = ceil_div(args.pixels, k.tile.pixels) * args.channel_blocks;
  return device.launch({blocks, k.threads, k.shared_bytes}, k.kernel, args);
}

}  // namespace fskernel::cuda
