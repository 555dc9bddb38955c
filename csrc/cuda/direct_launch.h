// Which direct kernel runs a call, and with what. `Device` launches: a CUDA stream or the emulator.
// It has
//   template <class Args>
//   int launch(const Launch&, void (*kernel)(Args), const Args&);   // an error, 0 = none
#pragma once

#include "calls.h"
#include "kernel/direct_conv.cuh"

namespace fskernel::cuda {

inline DirectGroup direct_group(const ConvInput& in, const PackHeader& header) {
  const Geometry& g = in.geometry;
  const auto i32 = [](int64_t v) { return static_cast<int32_t>(v); };
  return {static_cast<const uint8_t*>(in.x),
          in.packed + kPackHeaderBytes,
          seal_at(in.packed, header),
          in.m,
          in.x_bytes,
          header.weight_bytes,
          i32(in.height),
          i32(in.width),
          i32(in.channels),
          i32(header.in_channels_per_group),
          i32(header.out_channels / g.groups),
          g.kernel_h,
          g.kernel_w,
          g.stride_h,
          g.stride_w,
          g.pad_top,
          g.pad_left,
          g.dilation_h,
          g.dilation_w,
          g.pad_code};
}

template <Neuron kNeuron, bool kDepth, int kPixels, int kChannels, class Device>
int launch_direct_conv(Device& device, DirectArgs args, int64_t images) {
  const int64_t tasks =
      ceil_div(args.out_w, kPixels) * args.out_h * (args.out_channels / kChannels);
  args.blocks = static_cast<int32_t>(ceil_div(tasks, kDirectThreads));
  return device.launch({images * args.blocks, kDirectThreads, 0},
                       &direct_conv<kNeuron, kDepth, kPixels, kChannels>, args);
}

template <Neuron kNeuron, bool kDepth, class Device>
int launch_direct_conv(Device& device, const DirectArgs& args, int64_t images, bool four) {
  if (!four) return launch_direct_conv<kNeuron, kDepth, 1, 1>(device, args, images);
  if (args.out_w < 4) return launch_direct_conv<kNeuron, kDepth, 1, 4>(device, args, images);
  return launch_direct_conv<kNeuron, kDepth, 4, 4>(device, args, images);
}

// Runs a convolution of any geometry, with weights packed as these headers say. `name` says what
// ran.
template <class Device>
int run_direct_conv(Device& device, const ConvCall& call, const PackHeader (&headers)[2],
                    const char*& name) {
  DirectArgs args{};
  bool depth = true, four = call.out_channels % 4 == 0;
  for (int i = 0; i < call.input_count; ++i) {
    const DirectGroup& g = args.group[i] = direct_group(call.input[i], headers[i]);
    depth = depth && g.per_group_in == 1 && g.per_group_out == 1;
  }
  for (int i = 0; i < call.input_count; ++i) {
    const DirectGroup& g = args.group[i];
    four = four && aligned(g.weights, 4 * g.weight_bytes) &&
           (depth ? aligned(g.x, 4 * g.x_bytes) : g.per_group_out % 4 == 0);
  }
  args.group_count = call.input_count;
  args.bias = call.bias;
  args.residual = static_cast<const uint8_t*>(call.residual);
  args.residual_bytes = call.residual ? call.residual_bytes : 0;
  args.residual_scale = call.residual_scale;
  four = four && (!call.residual || aligned(call.residual, 4 * call.residual_bytes));
  args.K = call.K;
  args.top = static_cast<float>(call.K ? (1 << call.K) - 1 : call.limit);
  args.y = static_cast<uint8_t*>(call.y);
  args.y_bytes = output_bytes(call);
  args.tops = call.top;
  args.shape = call.shape;
  args.fitted = call.fitted;
  args.step = call.step;
  four = four && aligned(call.y, 4 * args.y_bytes);
  args.membrane = call.membrane;
  args.counts = call.counts;
  args.out_h = static_cast<int32_t>(call.out_h);
  args.out_w = static_cast<int32_t>(call.out_w);
  args.out_channels = static_cast<int32_t>(call.out_channels);
  name = depth ? "direct/depthwise" : "direct";
  if (call.images == 0) return 0;
  if (call.membrane) {
    constexpr Neuron kIF = Neuron::kIntegrateAndFire;
    return depth ? launch_direct_conv<kIF, true>(device, args, call.images, four)
                 : launch_direct_conv<kIF, false>(device, args, call.images, four);
  }
  constexpr Neuron kFS = Neuron::kFewSpikes;
  return depth ? launch_direct_conv<kFS, true>(device, args, call.images, four)
               : launch_direct_conv<kFS, false>(device, args, call.images, four);
}

}  // namespace fskernel::cuda
