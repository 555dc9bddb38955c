// The FS layer without tensor cores, one output after the other from its definition: for grouped
// and depthwise layers, in which a matrix product would mostly multiply zeros. Also one time step
// of a rate-coded layer, whose membranes stay in memory from step to step.
#pragma once

#include "../../neuron.h"
#include "fitted.cuh"
#include "integrate.cuh"
#include "seal.cuh"
#include "shaped.cuh"
#include "vector.cuh"

namespace fskernel::cuda {

struct DirectGroup {
  const uint8_t* x;        // [N, height, width, channels]
  const uint8_t* weights;  // [kernel_h, kernel_w, per_group_in, out_channels]
  Seal seal;
  const float* m;        // [out_channels]
  int32_t x_bytes;       // 1 = uint8, 2 = int16
  int32_t weight_bytes;  // 1 = int8, 2 = int16
  int32_t height, width, channels, per_group_in, per_group_out;
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  int32_t pad_code;
};

struct DirectArgs {
  DirectGroup group[2];
  int32_t group_count;
  const float* bias;  // [out_channels]
  const uint8_t* residual;
  int32_t residual_bytes;  // of one element; 0 = no residual
  float residual_scale;
  int32_t K;          // 0 = graded output
  float top;          // largest word, or the limit of graded output
  const float* tops;  // [out_channels], of each channel's neurons; null: top for all
  Shape shape;        // of shaped neurons
  Fitted fitted;      // of fitted ones
  uint8_t* y;         // [N, out_h, out_w, out_channels]
  int32_t y_bytes;    // 4: floats, words * step or, where K = 0, membrane potentials
  double step;
  float* membrane;  // as y, of IF neurons
  int64_t* counts;  // [N], or null
  int32_t out_h, out_w, out_channels;
  int32_t blocks;  // of threads, for one image
};

enum class Neuron { kFewSpikes, kIntegrateAndFire };

constexpr int kDirectThreads = 128;

// sum[p][c] += the synapses of output pixel (oy, ox + p), channel o + c. With kDepth every output
// channel reads the input channel of the same number.
template <class X, class W, bool kDepth, int kPixels, int kChannels>
FS_DEVICE void add_synapses(const DirectGroup& g, int n, int oy, int ox, int o, int out_channels,
                            gpu::Sum (&sum)[kPixels][kChannels]) {
  const int first = kDepth ? o : o / g.per_group_out * g.per_group_in;
  const X* image = reinterpret_cast<const X*>(g.x) +
                   static_cast<int64_t>(n) * g.height * g.width * g.channels + first;
  const W* weights = reinterpret_cast<const W*>(g.weights) + o;
  for (int ky = 0; ky < g.kernel_h; ++ky) {
    const int iy = oy * g.stride_h + ky * g.dilation_h - g.pad_top;
    const bool row_inside = iy >= 0 && iy < g.height;
    for (int kx = 0; kx < g.kernel_w; ++kx) {
      const int ix = ox * g.stride_w + kx * g.dilation_w - g.pad_left;
      const X* at[kPixels];  // null: in the padding
      FS_UNROLL
      for (int p = 0; p < kPixels; ++p) {
        const int col = ix + p * g.stride_w;
        at[p] = row_inside && col >= 0 && col < g.width ? image + (iy * g.width + col) * g.channels
                                                        : nullptr;
      }
      for (int i = 0; i < (kDepth ? 1 : g.per_group_in); ++i, weights += out_channels) {
        int w[kChannels];
        load_vector(weights, w);
        FS_UNROLL
        for (int p = 0; p < kPixels; ++p) {
          constexpr int kRead = kDepth ? kChannels : 1;
          int x[kRead];
          FS_UNROLL
          for (int c = 0; c < kRead; ++c) x[c] = g.pad_code;
          if (at[p]) load_vector(at[p] + i, x);
          FS_UNROLL
          for (int c = 0; c < kChannels; ++c)
            sum[p][c] = gpu::add_product(sum[p][c], x[kDepth ? c : 0], w[c]);
        }
      }
    }
  }
}

template <bool kDepth, int kPixels, int kChannels>
FS_DEVICE void add_group(const DirectGroup& g, int n, int oy, int ox, int o, int out_channels,
                         gpu::Sum (&sum)[kPixels][kChannels]) {
  if (g.x_bytes == 1 && g.weight_bytes == 1)
    add_synapses<uint8_t, int8_t, kDepth>(g, n, oy, ox, o, out_channels, sum);
  else if (g.x_bytes == 1)
    add_synapses<uint8_t, int16_t, kDepth>(g, n, oy, ox, o, out_channels, sum);
  else if (g.weight_bytes == 1)
    add_synapses<int16_t, int8_t, kDepth>(g, n, oy, ox, o, out_channels, sum);
  else
    add_synapses<int16_t, int16_t, kDepth>(g, n, oy, ox, o, out_channels, sum);
}

// A thread computes kPixels neighbouring pixels of a row, kChannels channels each, which divide the
// output channels and lie in one group of the convolution (or kDepth). Threads of a warp differ in
// their channels first.
template <Neuron kNeuron, bool kDepth, int kPixels, int kChannels>
FS_KERNEL(kDirectThreads, 1)
direct_conv(const DirectArgs args) {
  const int n = gpu::block_x() / args.blocks;
  const int task = gpu::block_x() % args.blocks * kDirectThreads + gpu::thread();
  const int columns = args.out_channels / kChannels;
  const int runs = (args.out_w + kPixels - 1) / kPixels;
  const int o = task % columns * kChannels, ox = task / columns % runs * kPixels;
  const int oy = task / columns / runs;
  int spikes = 0;
  if (oy < args.out_h) {
    float v[kPixels][kChannels];
    FS_UNROLL
    for (int c = 0; c < kChannels; ++c) {
      const float bias = gpu::load_readonly(args.bias + o + c);
      FS_UNROLL
      for (int p = 0; p < kPixels; ++p) v[p][c] = bias;
    }
    FS_NO_UNROLL
    for (int i = 0; i < args.group_count; ++i) {
      const DirectGroup& g = args.group[i];
      check_seal(g.seal);
      gpu::Sum sum[kPixels][kChannels] = {};
      add_group<kDepth>(g, n, oy, ox, o, args.out_channels, sum);
      FS_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        const float m = gpu::load_readonly(g.m + o + c);
        FS_UNROLL
        for (int p = 0; p < kPixels; ++p)
          if (ox + p < args.out_w)
            v[p][c] = gpu::fma(gpu::to_float(gpu::final_sum(sum[p][c])), m, v[p][c]);
      }
    }
    FS_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (ox + p >= args.out_w) continue;
      const int64_t at =
          ((static_cast<int64_t>(n) * args.out_h + oy) * args.out_w + ox + p) * args.out_channels +
          o;
      if (args.residual_bytes) {
        int x[kChannels];
        load_codes(args.residual, args.residual_bytes, at, x);
        FS_UNROLL
        for (int c = 0; c < kChannels; ++c)
          v[p][c] = gpu::fma(gpu::to_float(x[c]), args.residual_scale, v[p][c]);
      }
      int y[kChannels];
      FS_UNROLL
      for (int c = 0; c < kChannels; ++c) {
        if constexpr (kNeuron == Neuron::kIntegrateAndFire) {
          float u = gpu::load_global(args.membrane + at + c);
          y[c] = integrate_and_fire(u, v[p][c]);
          gpu::store_global<float>(args.membrane + at + c, u);
          spikes += y[c];
        } else {
          if (args.shape.table) v[p][c] = shaped(args.shape, o + c, v[p][c]);
          if (args.fitted.lines) v[p][c] = fit(args.fitted, v[p][c], spikes);
          const float top = args.tops ? gpu::load_readonly(args.tops + o + c) : args.top;
          y[c] = args.K ? fire(v[p][c], top) : graded(v[p][c], top);
          if (args.K && !args.fitted.lines) spikes += gpu::popcount(static_cast<uint32_t>(y[c]));
        }
      }
      if (kNeuron == Neuron::kFewSpikes && args.y_bytes == 4) {
        FS_UNROLL
        for (int c = 0; c < kChannels; ++c)
          gpu::store_global<float>(reinterpret_cast<float*>(args.y) + at + c,
                                   args.K ? gpu::scaled(y[c], args.step) : v[p][c]);
        continue;
      }
      store_codes(args.y, args.y_bytes, at, y);
    }
  }
  spikes = gpu::reduce_add(spikes);
  if (gpu::thread() % 32 == 0 && spikes && args.counts) gpu::atomic_add(args.counts + n, spikes);
}

}  // namespace fskernel::cuda
