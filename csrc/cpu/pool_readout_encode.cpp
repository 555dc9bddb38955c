#include "pool_readout_encode.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "scratch.h"

namespace fskernel {
namespace {

struct ThreadScratch {
  Scratch sums, features;
};
thread_local ThreadScratch scratch;

}  // namespace

void pool(const Kernels& kernels, const Geometry& geometry, bool maximum, const Map& x,
          const Map& y, const Executor& executor) {
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    (maximum ? kernels.max_pool
             : kernels.sum_pool)({x.data, x.pixel, x.row, y.data, y.pixel, y.row, x.height, x.width,
                                  x.channels, y.width, geometry, x.bytes, begin, end});
  });
}

int64_t product(const Kernels& kernels, const Gate& gate, const Map& a, const Map& b, const Map& y,
                bool count, const Executor& executor) {
  const bool one_pixel = b.height == 1 && b.width == 1;
  std::atomic<int64_t> spikes{0};
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    spikes += kernels.product({a.data,
                               a.pixel,
                               a.row,
                               b.data,
                               one_pixel ? 0 : b.pixel,
                               one_pixel ? 0 : b.row,
                               y.data,
                               y.pixel,
                               y.row,
                               a.bytes,
                               b.bytes,
                               y.bytes,
                               b.channels != y.channels,
                               gate.zero_a,
                               gate.zero_b,
                               gate.m,
                               gate.bias,
                               gate.K,
                               gate.limit,
                               count,
                               y.channels,
                               y.width,
                               begin,
                               end});
  });
  return spikes;
}

void readout(const Kernels& kernels, const Readout& r, const Map& x, float* y,
             const Executor& executor) {
  const bool empty = x.height == 0 || x.width == 0 || x.channels == 0;  // then all features are 0
  const int64_t features = empty ? 0 : r.features;
  auto* sums = reinterpret_cast<int32_t*>(scratch.sums.reserve(4 * features + kReadSlack));
  std::fill_n(sums, features, 0);
  for (int64_t row = 0; row < x.height && !empty; ++row) {
    const uint8_t* at = x.data + row * x.row;
    if (r.sum_pixels)
      kernels.channel_sums(at, x.bytes, x.pixel, x.width, x.channels, sums);
    else
      for (int64_t col = 0; col < x.width; ++col)
        kernels.channel_sums(at + col * x.pixel, x.bytes, x.pixel, 1, x.channels,
                             sums + (row * x.width + col) * x.channels);
  }
  int64_t largest = 0;
  for (int64_t i = 0; i < features; ++i)
    largest = std::max<int64_t>(largest, std::abs(static_cast<int64_t>(sums[i])));
  ReadoutTask task{nullptr, {}, 0, r.weight, r.weight_bytes, features, r.m, r.bias, y, 0, 0};
  uint8_t* memory = scratch.features.reserve(8 * features + 2 * kReadSlack);
  if (r.weight_bytes == 1 && largest <= 32767)
    task.pieces = 1;
  else if (largest < 255 * 256)
    task.pieces = 2;
  if (task.pieces == 0) {
    std::copy_n(sums, features, reinterpret_cast<int64_t*>(memory));
    task.wide = reinterpret_cast<int64_t*>(memory);
  }
  for (int32_t p = 0; p < task.pieces; ++p) {
    auto* to = reinterpret_cast<int16_t*>(memory) + p * features;
    for (int64_t i = 0; i < features; ++i)
      to[i] = static_cast<int16_t>(task.pieces == 1 ? sums[i] : p ? sums[i] >> 8 : sums[i] & 255);
    task.piece[p] = to;
  }
  split(executor, r.out, [&](int64_t begin, int64_t end) {
    ReadoutTask t = task;
    t.begin = begin;
    t.end = end;
    kernels.readout(t);
  });
}

Encoded encode(const Kernels& kernels, const Encoder& encoder, const Pixels& p, const Map& y,
               const Executor& executor) {
  std::mutex mutex;
  Encoded all;
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    const Encoded part = kernels.encode(
        {p.x, p.type, p.stride_c, p.stride_h, p.stride_w, y.channels, y.width, encoder.inv_step,
         encoder.offset, encoder.K, encoder.limit, y.data, y.pixel, y.row, y.bytes, begin, end});
    const std::lock_guard<std::mutex> lock(mutex);
    all.add(part);
  });
  return all;
}

void decode(const Kernels& kernels, const Map& words, double step, const FloatMap& y,
            const Executor& executor) {
  split(executor, words.height, [&](int64_t begin, int64_t end) {
    kernels.decode({words.data, words.bytes, step, words.channels, words.width, y.data, y.type,
                    y.stride_c, y.stride_h, y.stride_w, begin, end});
  });
}

void synaptic_events(const Kernels& kernels, const void* words, int32_t bytes, int64_t images,
                     int64_t height, int64_t width, int64_t channels, const int64_t* fan_y,
                     const int64_t* fan_x, int64_t* events, const Executor& executor) {
  const int64_t pixel = channels * bytes;
  split(executor, images * height, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto* row = static_cast<const uint8_t*>(words) + i * width * pixel;
      uint64_t sum = 0;  // modulo 2^64, like torch's integers
      for (int64_t x = 0; x < width; ++x)
        if (fan_x[x])
          sum += static_cast<uint64_t>(fan_x[x]) * kernels.spikes_in(row + x * pixel, pixel);
      sum *= static_cast<uint64_t>(fan_y[i % height]);
      __atomic_fetch_add(&events[i / height], static_cast<int64_t>(sum), __ATOMIC_RELAXED);
    }
  });
}

}  // namespace fskernel
