// The FS convolution on tensor cores: implicit GEMM over NHWC byte maps, then membrane, neuron and
// spike count in registers (items 3 to 5 and 7 of the contract in docs/how-it-works.md).
//
//   sums[pixel][channel] = x[pixel][synapse] * weights[synapse][channel]
//
// A block computes BM pixels x BN channels, a warp WM x WN of them. Tiles of x and weights, 64
// bytes of synapses deep, come by asynchronous copies, STAGES - 1 steps ahead:
//
//   shared memory:  [ stage 0: x BM*64 | weights BN*64 ][ stage 1 ] ... [ row table ][ counts ]
//
// A row of 64 bytes is four pieces of 16; piece c of row r lies at c ^ (r/2 % 4), so that the eight
// rows that a matrix load takes at once, and the eight pieces that eight threads copy, lie in
// different banks.
#pragma once

#include "../../../neuron.h"
#include "../fitted.cuh"
#include "../integrate.cuh"
#include "../seal.cuh"
#include "../shaped.cuh"
#include "conv_channels.cuh"
#include "conv_multiply.cuh"

namespace fskernel::cuda {

// Spikes of the tile, image by image. A tile may hold pixels of several images; a thread brings its
// pixels in rising order.
template <class C>
class SpikeCounter {
 public:
  FS_DEVICE SpikeCounter(const TensorConvArgs& args, gpu::Shared shared, int first_pixel)
      : args_(args), counts_(shared + C::COUNTS), of_image_(args.out_h * args.out_w) {
    first_ = image_ = first_pixel / of_image_;
    last_ = (gpu::min(first_pixel + C::BM, args.pixels) - 1) / of_image_;
    end_ = (first_ + 1) * of_image_;
  }

  FS_DEVICE void add(int pixel, int spikes) {
    if (pixel >= end_) {
      flush();
      image_ = pixel / of_image_;
      end_ = (image_ + 1) * of_image_;
    }
    spikes_ += spikes;
  }

  // By all threads of the block.
  FS_DEVICE void finish() {
    if (first_ == last_) {
      spikes_ = gpu::reduce_add(spikes_);
      if (gpu::thread() % 32) spikes_ = 0;
    }
    flush();
    gpu::sync_threads();
    for (int i = gpu::thread(); i <= last_ - first_; i += C::THREADS)
      gpu::atomic_add(args_.counts + first_ + i, gpu::load_shared<uint32_t>(counts_ + 4 * i));
  }

 private:
  FS_DEVICE void flush() {
    if (spikes_) gpu::atomic_add_shared(counts_ + 4 * (image_ - first_), spikes_);
    spikes_ = 0;
  }

  const TensorConvArgs& args_;
  gpu::Shared counts_;
  int of_image_, first_, last_, image_, end_, spikes_ = 0;
};

// The residual, the neurons and the store, for N neighbouring channels of one pixel: its row in the
// table, and the membrane potentials without the residual. Returns the spikes. Of rate-coded
// neurons v is the input current, and the membranes of `pixel` are kept in memory.
template <class C, int N>
FS_DEVICE int fire_row(const TensorConvArgs& args, gpu::Shared shared, int row, int pixel,
                       int channel, int count, float (&v)[N]) {
  int code[N], fired = 0;
  const Slot slot{shared + gpu::thread() * 4, C::THREADS * 4};
  if (args.residual_at.form != kNone) {
    const uint32_t at = gpu::load_shared<uint32_t>(table_entry<C>(shared, kResidual, row)) +
                        channel * element_bytes(args.residual_at);
    read_channels<N>(args.residual_at, args.residual + at, count, slot, code);
    FS_UNROLL
    for (int c = 0; c < N; ++c) v[c] = gpu::fma(gpu::to_float(code[c]), args.residual_scale, v[c]);
  }
  if constexpr (C::RATE) {
    float u[N];
    float* kept = args.membrane + static_cast<int64_t>(pixel) * args.channels + channel;
    load_kept(kept, args.membrane_aligned, count, slot, u);
    FS_UNROLL
    for (int c = 0; c < N; ++c) code[c] = integrate_and_fire(u[c], v[c]);
    store_kept(kept, args.membrane_aligned, count, slot, u);
  } else if (args.shape.table) {
    // Behind the last channel nothing may be counted, and tables of channels' own end.
    FS_UNROLL
    for (int c = 0; c < N; ++c)
      code[c] = c < count ? fire(shaped(args.shape, channel + c, v[c]), args.top) : 0;
  } else if (args.fitted.lines) {
    // The same; thresholds may lie below zero.
    FS_UNROLL
    for (int c = 0; c < N; ++c)
      code[c] = c < count ? fire(fit(args.fitted, v[c], fired), args.top) : 0;
  } else if (args.tops) {
    float top[N];
    load_floats(args.tops + channel, args.aligned, count, top);
    FS_UNROLL
    for (int c = 0; c < N; ++c) code[c] = fire(v[c], top[c]);
  } else if (args.K) {
    FS_UNROLL
    for (int c = 0; c < N; ++c) code[c] = fire(v[c], args.top);
  } else {
    FS_UNROLL
    for (int c = 0; c < N; ++c) code[c] = graded(v[c], args.top);
  }
  const uint32_t at = gpu::load_shared<uint32_t>(table_entry<C>(shared, kY, row)) +
                      channel * element_bytes(args.y_at);
  if constexpr (!C::RATE) {
    if (args.y_at.form == kFloats) {
      int spikes = 0;
      if (args.K) {
        FS_UNROLL
        for (int c = 0; c < N; ++c) {
          v[c] = gpu::scaled(code[c], args.step);
          spikes += gpu::popcount(static_cast<uint32_t>(code[c]));
        }
      }
      store_kept(reinterpret_cast<float*>(args.y + at), args.y_at.aligned, count, slot, v);
      return spikes;
    }
  }
  const int bits = write_channels<N>(args.y_at, args.y + at, count, slot, code);
  return args.fitted.lines ? fired : bits;
}

template <class C>
FS_KERNEL(C::THREADS, C::MIN_BLOCKS)
tensor_conv(const TensorConvArgs args) {
  constexpr int N = C::CHANNELS;
  const gpu::Shared shared = gpu::dynamic_shared();
  const int warp = gpu::thread() / 32, lane = gpu::thread() % 32;
  const int warp_m = warp % C::WARPS_M, warp_n = warp / C::WARPS_M;
  // Blocks that read the same pixels follow each other.
  const int block_m = gpu::block_x() / args.channel_blocks;
  const int first_pixel = block_m * C::BM;
  const int first_channel = (gpu::block_x() - block_m * args.channel_blocks) * C::BN;

  check_seal(args.group[0].seal);
  if constexpr (C::GROUPS == 2)
    if (args.groups == 2) check_seal(args.group[1].seal);
  write_table<C>(args, shared, first_pixel);
  gpu::sync_threads();
  Loader<C> loader(args, shared, first_channel);
  Multiplier<C> multiplier(shared, loader, warp_m, warp_n);

  // This thread's channels, and their membrane potentials (item 4): v = fma(sum, m, bias), then the
  // second group's v = fma(sum2, m2, v). With one group that is left to the end, and the sums stay
  // in their registers until then.
  const int channel =
      first_channel + (warp_n * C::WN & ~63) + lane % 4 * 16 + (warp_n * C::WN & 63) / 4;
  const int count = args.channels - channel;
  float m[N], bias[N];
  float held[C::GROUPS == 2 ? C::MI : 1][2][N];
  if constexpr (C::GROUPS == 1) {
    multiplier.run(args.group[0]);
    load_floats(args.group[0].m + channel, args.aligned, count, m);
    load_floats(args.bias + channel, args.aligned, count, bias);
  } else {
    FS_NO_UNROLL
    for (int g = 0; g < args.groups; ++g) {
      multiplier.run(args.group[g]);
      load_floats(args.group[g].m + channel, args.aligned, count, m);
      load_floats(args.bias + channel, args.aligned, count, bias);
      FS_UNROLL
      for (int i = 0; i < 2 * C::MI; ++i) {
        FS_UNROLL
        for (int c = 0; c < N; ++c) {
          float& v = held[i / 2][i % 2][c];
          v = gpu::fma(gpu::to_float(multiplier.final_sum(i / 2, i % 2, c)), m[c], g ? v : bias[c]);
        }
      }
    }
  }

  if (args.one_by_one) gpu::sync_threads();  // the slots lie where tiles lay
  SpikeCounter<C> counter(args, shared, first_pixel);
  FS_UNROLL
  for (int i = 0; i < 2 * C::MI; ++i) {  // 8 rows each
    const int row = warp_m * C::WM + i * 8 + lane / 4;
    if (first_pixel + row >= args.pixels || count <= 0) continue;
    float v[N];
    FS_UNROLL
    for (int c = 0; c < N; ++c) {
      if constexpr (C::GROUPS == 1)
        v[c] = gpu::fma(gpu::to_float(multiplier.final_sum(i / 2, i % 2, c)), m[c], bias[c]);
      else
        v[c] = held[i / 2][i % 2][c];
    }
    const int pixel = first_pixel + row;
    counter.add(pixel, fire_row<C, N>(args, shared, row, pixel, channel, count, v));
  }
  if (args.counts && args.K) counter.finish();
}

}  // namespace fskernel::cuda
