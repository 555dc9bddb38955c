// Launches everything that is not a convolution. `Device` as in direct_launch.h.
#pragma once

#include "byte_map.h"
#include "calls.h"
#include "kernel/pool_readout_encode.cuh"
#include "kernel/probe.cuh"

namespace fskernel::cuda {

template <class Device>
int run_pool(Device& device, const PoolCall& call) {
  const Geometry& g = call.geometry;
  const auto i32 = [](int64_t v) { return static_cast<int32_t>(v); };
  const bool four = call.channels % 4 == 0 && aligned(call.x, 4 * call.x_bytes);
  const int64_t tasks = call.images * call.out_h * call.out_w * (call.channels / (four ? 4 : 1));
  const PoolArgs args{static_cast<const uint8_t*>(call.x),
                      static_cast<uint8_t*>(call.y),
                      call.x_bytes,
                      i32(call.height),
                      i32(call.width),
                      i32(call.channels),
                      i32(call.out_h),
                      i32(call.out_w),
                      g.kernel_h,
                      g.kernel_w,
                      g.stride_h,
                      g.stride_w,
                      g.pad_top,
                      g.pad_left,
                      g.dilation_h,
                      g.dilation_w,
                      tasks};
  if (tasks == 0) return 0;
  const Launch launch{ceil_div(tasks, kOtherThreads), kOtherThreads, 0};
  if (call.maximum)
    return four ? device.launch(launch, &pool<true, 4>, args)
                : device.launch(launch, &pool<true, 1>, args);
  return four ? device.launch(launch, &pool<false, 4>, args)
              : device.launch(launch, &pool<false, 1>, args);
}

template <class Device>
int run_product(Device& device, const ProductCall& call) {
  const Gate& gate = call.gate;
  const int y_bytes = word_bytes(gate.K);
  const bool one_channel = call.b_channels != call.channels;
  const bool four = call.channels % 4 == 0 && aligned(call.a, 4 * call.a_bytes) &&
                    (one_channel || aligned(call.b, 4 * call.b_bytes)) &&
                    aligned(call.y, 4 * y_bytes);
  const int64_t tasks = call.pixels * (call.channels / (four ? 4 : 1));
  const int64_t blocks = ceil_div(tasks, kOtherThreads);
  const ProductArgs args{static_cast<const uint8_t*>(call.a),
                         static_cast<const uint8_t*>(call.b),
                         static_cast<uint8_t*>(call.y),
                         call.counts,
                         gate.m,
                         gate.bias,
                         call.a_bytes,
                         call.b_bytes,
                         y_bytes,
                         static_cast<int32_t>(call.channels),
                         gate.zero_a,
                         gate.zero_b,
                         gate.K,
                         static_cast<float>(gate.K ? (1 << gate.K) - 1 : gate.limit),
                         one_channel,
                         call.b_pixels * call.b_channels,
                         call.b_pixels == 1 ? 0 : call.b_channels,
                         static_cast<int32_t>(blocks),
                         tasks};
  if (call.images * tasks == 0) return 0;
  const Launch launch{call.images * blocks, kOtherThreads, 0};
  return four ? device.launch(launch, &product<4>, args) : device.launch(launch, &product<1>, args);
}

template <class Device>
int run_encode_map(Device& device, const EncodeCall& call, const EncodeArgs& encoder) {
  const Kept& kept = call.y_kept;
  const ByteMap map =
      kept_map(kept, call.images, call.height, call.width, call.channels, encoder.y_bytes);
  if (map.plane() == 0) return 0;
  const auto i32 = [](int64_t v) { return static_cast<int32_t>(v); };
  const int piece = map.channels % 16 ? 8 : 16;
  const EncodeMapArgs args{encoder,           map.plane(),
                           map.planes,        kept.pad_code,
                           i32(map.rows),     i32(map.cols),
                           i32(map.channels), kept.top,
                           kept.left,         static_cast<uint32_t>(map.plane() / piece)};
  const Launch launch{ceil_div(args.pieces, kOtherThreads), kOtherThreads, 0};
  return piece == 8 ? device.launch(launch, &encode_map<8>, args)
                    : device.launch(launch, &encode_map<16>, args);
}

template <class Device>
int run_encode(Device& device, const EncodeCall& call) {
  const int64_t pixels = call.images * call.height * call.width;
  const EncodeArgs args{call.x,
                        call.stride_n,
                        call.stride_c,
                        call.stride_h,
                        call.stride_w,
                        static_cast<uint8_t*>(call.y),
                        word_bytes(call.K),
                        static_cast<int32_t>(call.channels),
                        static_cast<int32_t>(call.height),
                        static_cast<int32_t>(call.width),
                        call.inv_step,
                        call.offset,
                        call.K,
                        static_cast<float>(call.K ? (1 << call.K) - 1 : call.limit),
                        pixels};
  if (call.y_kept.map) return run_encode_map(device, call, args);
  if (pixels == 0 || call.channels == 0) return 0;
  return device.launch({ceil_div(pixels, kOtherThreads), kOtherThreads, 0}, &encode, args);
}

template <class Device>
int run_decode(Device& device, const DecodeCall& call) {
  if (call.n == 0) return 0;
  const bool four = call.n % 4 == 0 && aligned(call.x, 4 * call.x_bytes) && aligned(call.y, 16);
  const int64_t tasks = call.n / (four ? 4 : 1);
  const DecodeArgs args{static_cast<const uint8_t*>(call.x), call.x_bytes, call.step, call.y,
                        tasks};
  const Launch launch{ceil_div(tasks, kOtherThreads), kOtherThreads, 0};
  return four ? device.launch(launch, &decode<4>, args) : device.launch(launch, &decode<1>, args);
}

template <class X, class Device>
int launch_readout(Device& device, const Launch& launch, int32_t weight_bytes,
                   const ReadoutArgs& args) {
  return weight_bytes == 1 ? device.launch(launch, &readout<X, int8_t>, args)
                           : device.launch(launch, &readout<X, int16_t>, args);
}

template <class Device>
int run_readout(Device& device, const ReadoutCall& call) {
  const int64_t tasks = call.images * call.out;
  if (tasks == 0) return 0;
  if (call.pooled && call.channels) {
    const ChannelSumArgs sums{static_cast<const uint8_t*>(call.x),
                              call.sums,
                              call.x_bytes,
                              static_cast<int32_t>(call.pixels),
                              static_cast<int32_t>(call.channels),
                              call.images * call.channels};
    const int error =
        device.launch({ceil_div(sums.tasks, kOtherThreads), kOtherThreads, 0}, &channel_sums, sums);
    if (error) return error;
  }
  const ReadoutArgs args{
      call.pooled ? call.sums : call.x,
      call.weight,
      call.m,
      call.bias,
      call.y,
      static_cast<int32_t>(call.pooled ? call.channels : call.pixels * call.channels),
      static_cast<int32_t>(call.out),
      tasks};
  const Launch launch{ceil_div(tasks, kOtherThreads / 32), kOtherThreads, 0};
  if (call.pooled) return launch_readout<int32_t>(device, launch, call.weight_bytes, args);
  return call.x_bytes == 1 ? launch_readout<uint8_t>(device, launch, call.weight_bytes, args)
                           : launch_readout<int16_t>(device, launch, call.weight_bytes, args);
}

template <class Device>
int run_events(Device& device, const EventCall& call) {
  const int64_t rows = call.images * call.height;
  if (rows == 0 || call.width == 0 || call.channels == 0) return 0;
  const EventArgs args{static_cast<const uint8_t*>(call.words),
                       call.fan_y,
                       call.fan_x,
                       call.events,
                       call.bytes,
                       static_cast<int32_t>(call.height),
                       static_cast<int32_t>(call.width),
                       static_cast<int32_t>(call.channels),
                       rows};
  return device.launch({ceil_div(rows, kOtherThreads / 32), kOtherThreads, 0}, &synaptic_events,
                       args);
}

template <class Device>
int run_probe(Device& device, const ProbeArgs& args) {
  return device.launch({1, 32, kProbeBytes}, &probe, args);
}

}  // namespace fskernel::cuda
