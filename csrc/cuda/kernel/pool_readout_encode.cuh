// Everything of a network that is not a convolution: pools, gates, encoder, readout, synaptic
// events.
#pragma once

#include "../../neuron.h"
#include "vector.cuh"

namespace fskernel::cuda {

constexpr int kOtherThreads = 128;

// ---- pools: a thread takes kChannels channels of one output pixel

struct PoolArgs {
  const uint8_t* x;  // [N, height, width, channels], uint8 (x_bytes 1) or int16
  uint8_t* y;        // [N, out_h, out_w, channels]; int16 where sums, else as x
  int32_t x_bytes, height, width, channels, out_h, out_w;
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  int64_t tasks;  // threads that have something to do
};

template <bool kMaximum, int kChannels>
FS_KERNEL(kOtherThreads, 1)
pool(const PoolArgs args) {
  const int64_t task = static_cast<int64_t>(gpu::block_x()) * kOtherThreads + gpu::thread();
  if (task >= args.tasks) return;
  const int columns = args.channels / kChannels;
  const int c = static_cast<int>(task % columns) * kChannels;
  int64_t pixel = task / columns;
  const int ox = static_cast<int>(pixel % args.out_w);
  pixel /= args.out_w;
  const int oy = static_cast<int>(pixel % args.out_h);
  const int64_t image = pixel / args.out_h * args.height * args.width;
  int best[kChannels];
  FS_UNROLL
  for (int i = 0; i < kChannels; ++i) best[i] = !kMaximum || args.x_bytes == 1 ? 0 : -32768;
  for (int ky = 0; ky < args.kernel_h; ++ky) {
    const int iy = oy * args.stride_h + ky * args.dilation_h - args.pad_top;
    if (iy < 0 || iy >= args.height) continue;
    for (int kx = 0; kx < args.kernel_w; ++kx) {
      const int ix = ox * args.stride_w + kx * args.dilation_w - args.pad_left;
      if (ix < 0 || ix >= args.width) continue;
      int x[kChannels];
      load_codes(args.x, args.x_bytes, (image + iy * args.width + ix) * args.channels + c, x);
      FS_UNROLL
      for (int i = 0; i < kChannels; ++i)
        best[i] = kMaximum ? gpu::max(best[i], x[i]) : best[i] + x[i];
    }
  }
  store_codes(args.y, kMaximum ? args.x_bytes : 2, task * kChannels, best);
}

// ---- gates: a thread takes kChannels channels of one pixel, a block's are of one image

struct ProductArgs {
  const uint8_t *a, *b;  // [N, pixels, channels]
  uint8_t* y;
  int64_t* counts;  // [N] or null
  const float *m, *bias;
  int32_t a_bytes, b_bytes, y_bytes, channels;
  int32_t zero_a, zero_b;
  int32_t K;                 // 0 = graded
  float top;                 // largest word, or limit of graded values
  bool one_channel;          // of b
  int64_t b_image, b_pixel;  // codes of b from one image to the next, and from one pixel
  int32_t blocks;            // of an image
  int64_t tasks;             // threads of an image that have something to do
};

template <int kChannels>
FS_KERNEL(kOtherThreads, 1)
product(const ProductArgs args) {
  const int64_t image = gpu::block_x() / args.blocks;
  const int64_t task =
      static_cast<int64_t>(gpu::block_x() % args.blocks) * kOtherThreads + gpu::thread();
  int spikes = 0;
  if (task < args.tasks) {
    const int columns = args.channels / kChannels;
    const int c = static_cast<int>(task % columns) * kChannels;
    const int64_t at = (image * args.tasks + task) * kChannels;
    const int64_t b_at = image * args.b_image + task / columns * args.b_pixel;
    int a[kChannels], b[kChannels], y[kChannels];
    load_codes(args.a, args.a_bytes, at, a);
    if (args.one_channel) {
      int only[1];
      load_codes(args.b, args.b_bytes, b_at, only);
      FS_UNROLL
      for (int i = 0; i < kChannels; ++i) b[i] = only[0];
    } else {
      load_codes(args.b, args.b_bytes, b_at + c, b);
    }
    FS_UNROLL
    for (int i = 0; i < kChannels; ++i) {
      const gpu::Sum product = gpu::add_product({}, a[i] - args.zero_a, b[i] - args.zero_b);
      const float v =
          gpu::fma(gpu::to_float(gpu::final_sum(product)), gpu::load_readonly(args.m + c + i),
                   gpu::load_readonly(args.bias + c + i));
      y[i] = args.K ? fire(v, args.top) : graded(v, args.top);
      if (args.K) spikes += gpu::popcount(static_cast<uint32_t>(y[i]));
    }
    store_codes(args.y, args.y_bytes, at, y);
  }
  spikes = gpu::reduce_add(spikes);
  if (gpu::thread() % 32 == 0 && spikes && args.counts)
    gpu::atomic_add(args.counts + image, spikes);
}

// ---- encoder: a thread takes one pixel and all its channels

struct EncodeArgs {
  const float* x;  // strides in elements
  int64_t stride_n, stride_c, stride_h, stride_w;
  uint8_t* y;  // [N, height, width, channels]
  int32_t y_bytes, channels, height, width;
  float inv_step, offset;
  int32_t K;  // 0 = graded
  float top;  // largest word, or limit of graded values
  int64_t pixels;
};

FS_DEVICE int encoded(const EncodeArgs& args, float value) {
  return args.K ? fire(gpu::fma(value, args.inv_step, args.offset), args.top)
                : graded(gpu::multiply(value, args.inv_step), args.top);
}

FS_KERNEL(kOtherThreads, 1)
encode(const EncodeArgs args) {
  const int64_t pixel = static_cast<int64_t>(gpu::block_x()) * kOtherThreads + gpu::thread();
  if (pixel >= args.pixels) return;
  const int64_t row = pixel / args.width;
  const float* x = args.x + row / args.height * args.stride_n + row % args.height * args.stride_h +
                   pixel % args.width * args.stride_w;
  for (int c = 0; c < args.channels; ++c, x += args.stride_c) {
    const float value = gpu::load_readonly(x);
    const int code[1] = {encoded(args, value)};
    store_codes(args.y, args.y_bytes, pixel * args.channels + c, code);
  }
}

// The same into a byte map (../byte_map.h), halo included: a thread takes kPiece stored
// channels of one pixel of the map.
struct EncodeMapArgs {
  EncodeArgs encoder;  // of the image; y: the map
  int64_t plane;       // bytes between planes
  int32_t planes, pad_code, rows, cols, stored, top, left;
  uint32_t pieces;  // of a plane
};

template <int kPiece>
FS_KERNEL(kOtherThreads, 1)
encode_map(const EncodeMapArgs args) {
  const EncodeArgs& encoder = args.encoder;
  const uint32_t piece = static_cast<uint32_t>(gpu::block_x()) * kOtherThreads + gpu::thread();
  if (piece >= args.pieces) return;
  const uint32_t in_pixel = static_cast<uint32_t>(args.stored / kPiece);
  const int channel = static_cast<int>(piece % in_pixel) * kPiece;
  uint32_t at = piece / in_pixel;
  const int col = static_cast<int>(at % static_cast<uint32_t>(args.cols)) - args.left;
  at /= static_cast<uint32_t>(args.cols);
  const int row = static_cast<int>(at % static_cast<uint32_t>(args.rows)) - args.top;
  const int64_t image = at / static_cast<uint32_t>(args.rows);
  const bool inside = row >= 0 && row < encoder.height && col >= 0 && col < encoder.width;
  const float* x = encoder.x + image * encoder.stride_n + row * encoder.stride_h +
                   col * encoder.stride_w + channel * encoder.stride_c;
  uint32_t high[kPiece / 4] = {}, low[kPiece / 4] = {};
  FS_UNROLL
  for (int i = 0; i < kPiece; ++i) {
    int code = inside ? 0 : args.pad_code;
    if (inside && channel + i < encoder.channels)
      code = encoded(encoder, gpu::load_readonly(x + i * encoder.stride_c));
    low[i / 4] |= static_cast<uint32_t>(code & 255) << i % 4 * 8;
    high[i / 4] |= static_cast<uint32_t>(code >> 8 & 255) << i % 4 * 8;
  }
  uint8_t* to = encoder.y + static_cast<uint64_t>(piece) * kPiece;
  if (args.planes == 2) {
    store_bytes<kPiece>(to, high);
    to += args.plane;
  }
  store_bytes<kPiece>(to, low);
}

// ---- decoder: a thread takes kN neighbouring words

struct DecodeArgs {
  const uint8_t* x;
  int32_t x_bytes;
  double step;
  float* y;
  int64_t tasks;
};

template <int kN>
FS_KERNEL(kOtherThreads, 1)
decode(const DecodeArgs args) {
  const int64_t task = static_cast<int64_t>(gpu::block_x()) * kOtherThreads + gpu::thread();
  if (task >= args.tasks) return;
  int word[kN];
  load_codes(args.x, args.x_bytes, task * kN, word);
  if constexpr (kN == 4) {
    gpu::Bytes16 value;
    FS_UNROLL
    for (int i = 0; i < kN; ++i)
      value.word[i] = gpu::bits<uint32_t>(gpu::scaled(word[i], args.step));
    gpu::store_global(reinterpret_cast<gpu::Bytes16*>(args.y + task * kN), value);
  } else {
    gpu::store_global<float>(args.y + task, gpu::scaled(word[0], args.step));
  }
}

// ---- readout: sums over the pixels where they are pooled, then one warp a logit

struct ChannelSumArgs {
  const uint8_t* x;  // [N, pixels, channels]
  int32_t* sums;     // [N, channels]
  int32_t x_bytes, pixels, channels;
  int64_t tasks;  // N*channels
};

FS_KERNEL(kOtherThreads, 1)
channel_sums(const ChannelSumArgs args) {
  const int64_t task = static_cast<int64_t>(gpu::block_x()) * kOtherThreads + gpu::thread();
  if (task >= args.tasks) return;
  int64_t at = task / args.channels * args.pixels * args.channels + task % args.channels;
  int sum = 0;
  for (int i = 0; i < args.pixels; ++i, at += args.channels) {
    int x[1];
    load_codes(args.x, args.x_bytes, at, x);
    sum += x[0];
  }
  gpu::store_global<int32_t>(args.sums + task, sum);
}

struct ReadoutArgs {
  const void* x;       // [N, features]
  const void* weight;  // [out, features]
  const float *m, *bias;
  float* y;  // [N, out]
  int32_t features, out;
  int64_t tasks;  // N*out
};

// X: uint8, int16, or int32 for sums over pixels. The sum is exact in 64 bits.
template <class X, class W>
FS_KERNEL(kOtherThreads, 1)
readout(const ReadoutArgs args) {
  const int lane = gpu::thread() % 32;
  const int64_t task =
      static_cast<int64_t>(gpu::block_x()) * (kOtherThreads / 32) + gpu::thread() / 32;
  if (task >= args.tasks) return;  // a whole warp
  const int o = static_cast<int>(task % args.out);
  const X* x = static_cast<const X*>(args.x) + task / args.out * args.features;
  const W* w = static_cast<const W*>(args.weight) + static_cast<int64_t>(o) * args.features;
  int64_t sum = 0;
  for (int i = lane; i < args.features; i += 32)
    sum += static_cast<int64_t>(gpu::load_readonly(x + i)) * gpu::load_readonly(w + i);
  FS_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += gpu::shuffle_xor(sum, lanes);
  if (lane == 0)
    gpu::store_global<float>(
        args.y + task, gpu::fma(gpu::to_float(static_cast<long long>(sum)),
                                gpu::load_readonly(args.m + o), gpu::load_readonly(args.bias + o)));
}

// ---- synaptic events: a warp takes a row, each lane a part of its words

struct EventArgs {
  const uint8_t* words;  // [N, height, width, channels]
  const int64_t *fan_y, *fan_x;
  int64_t* events;  // [N]
  int32_t bytes, height, width, channels;
  int64_t rows;  // N*height
};

FS_KERNEL(kOtherThreads, 1)
synaptic_events(const EventArgs args) {
  const int64_t row =
      static_cast<int64_t>(gpu::block_x()) * (kOtherThreads / 32) + gpu::thread() / 32;
  if (row >= args.rows) return;  // a whole warp
  const int bytes = args.channels * args.bytes, lane = gpu::thread() % 32;
  const uint8_t* pixel = args.words + row * args.width * bytes;
  uint64_t sum = 0;  // modulo 2^64, like torch's integers
  for (int x = 0; x < args.width; ++x, pixel += bytes) {
    int spikes = 0;
    for (int i = lane; i < bytes; i += 32) spikes += gpu::popcount(gpu::load_readonly(pixel + i));
    sum += spikes * static_cast<uint64_t>(gpu::load_readonly(args.fan_x + x));
  }
  FS_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += gpu::shuffle_xor(sum, lanes);
  sum *= static_cast<uint64_t>(gpu::load_readonly(args.fan_y + row % args.height));
  if (lane == 0 && sum) gpu::atomic_add(args.events + row / args.height, static_cast<int64_t>(sum));
}

}  // namespace fskernel::cuda
