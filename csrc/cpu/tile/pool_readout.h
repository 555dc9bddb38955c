// Pools and the readout over a vector class V (../isa/vec_*.h). Inner loops of a constant number of
// steps, so that the compiler vectorises them for the instruction set of the including file.
#pragma once

#include "bits.h"
#include "conv_sums.h"

namespace fskernel {
namespace {

constexpr int64_t kChunk = 32;

template <class In, class Out, class Function>
FS_INLINE void each_channel(const In* __restrict x, Out* __restrict y, int64_t n, Function f) {
  int64_t i = 0;
  for (; i + kChunk <= n; i += kChunk)
    for (int64_t l = 0; l < kChunk; ++l) y[i + l] = f(y[i + l], x[i + l]);
  for (; i < n; ++i) y[i] = f(y[i], x[i]);
}

// The taps of one output pixel that lie inside the image.
struct Window {
  const uint8_t* x;  // the first of them
  int64_t rows, row_step, cols, col_step;
};

// First tap at or behind the image's edge, and the number of taps from there to the other edge.
FS_INLINE void clip_taps(int64_t at, int64_t step, int64_t taps, int64_t size, int64_t& first,
                         int64_t& count) {
  first = at < 0 ? (step - 1 - at) / step : 0;
  const int64_t room = at < size ? (size - 1 - at) / step + 1 : 0;
  const int64_t end = room < taps ? room : taps;
  count = end > first ? end - first : 0;
}

// Calls f(window, output) for every output pixel.
template <class Function>
FS_INLINE void each_window(const PoolTask& task, Function f) {
  const PoolTask t = task;  // a copy, because a store through uint8_t* might change the task
  const Geometry& g = t.geometry;
  Window w{nullptr, 0, g.dilation_h * t.x_row, 0, g.dilation_w * t.x_pixel};
  for (int64_t oy = t.row_begin; oy < t.row_end; ++oy) {
    const int64_t iy = oy * g.stride_h - g.pad_top;
    int64_t ky, kx;
    clip_taps(iy, g.dilation_h, g.kernel_h, t.height, ky, w.rows);
    for (int64_t ox = 0; ox < t.out_w; ++ox) {
      const int64_t ix = ox * g.stride_w - g.pad_left;
      clip_taps(ix, g.dilation_w, g.kernel_w, t.width, kx, w.cols);
      w.x = t.x + (iy + ky * g.dilation_h) * t.x_row + (ix + kx * g.dilation_w) * t.x_pixel;
      f(w, t.y + oy * t.y_row + ox * t.y_pixel);
    }
  }
}

template <class V, class T, class Max>
FS_INLINE void max_window(const Window& w, uint8_t* y, int64_t bytes, T lowest, Max max) {
  T start[4 * V::kLanes / sizeof(T)];
  for (T& v : start) v = lowest;
  int64_t at = 0;
  for (; at + 4 * V::kLanes <= bytes; at += 4 * V::kLanes) {
    typename V::Int best = V::load(start);
    const uint8_t* row = w.x + at;
    for (int64_t ky = w.rows; ky > 0; --ky, row += w.row_step) {
      const uint8_t* x = row;
      for (int64_t kx = w.cols; kx > 0; --kx, x += w.col_step) best = max(best, V::load(x));
    }
    V::store(y + at, best);
  }
  for (; at < bytes; at += sizeof(T)) {
    T best = lowest, v;
    for (int64_t ky = 0; ky < w.rows; ++ky)
      for (int64_t kx = 0; kx < w.cols; ++kx) {
        __builtin_memcpy(&v, w.x + ky * w.row_step + kx * w.col_step + at, sizeof v);
        best = v > best ? v : best;
      }
    __builtin_memcpy(y + at, &best, sizeof best);
  }
}

template <class V>
void max_pool(const PoolTask& t) {
  const int64_t bytes = t.channels * t.x_bytes;
  if (t.x_bytes == 1)
    each_window(t, [&](const Window& w, uint8_t* y) {
      max_window<V>(w, y, bytes, uint8_t{0}, [](auto a, auto b) { return V::max_u8(a, b); });
    });
  else
    each_window(t, [&](const Window& w, uint8_t* y) {
      max_window<V>(w, y, bytes, int16_t{-32768}, [](auto a, auto b) { return V::max_s16(a, b); });
    });
}

template <class In>
FS_INLINE void sum_window(const Window& w, int16_t* y, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) y[c] = 0;
  for (int64_t ky = 0; ky < w.rows; ++ky)
    for (int64_t kx = 0; kx < w.cols; ++kx)
      each_channel(reinterpret_cast<const In*>(w.x + ky * w.row_step + kx * w.col_step), y,
                   channels, [](int16_t sum, In x) { return static_cast<int16_t>(sum + x); });
}

void sum_pool(const PoolTask& t) {
  const int64_t channels = t.channels;
  if (t.x_bytes == 1)
    each_window(t, [&](const Window& w, uint8_t* y) {
      sum_window<uint8_t>(w, reinterpret_cast<int16_t*>(y), channels);
    });
  else
    each_window(t, [&](const Window& w, uint8_t* y) {
      sum_window<int16_t>(w, reinterpret_cast<int16_t*>(y), channels);
    });
}

template <class V, class In>
FS_INLINE void sum_channels(const uint8_t* x, int64_t x_pixel, int64_t pixels, int64_t channels,
                            int32_t* sums) {
  constexpr int kSide = 4;  // vectors that are summed side by side
  int64_t c = 0;
  for (; c + kSide * V::kLanes <= channels; c += kSide * V::kLanes) {
    typename V::Int acc[kSide];
    FS_UNROLL
    for (int n = 0; n < kSide; ++n) acc[n] = V::load(sums + c + n * V::kLanes);
    const uint8_t* at = x + c * sizeof(In);
    for (int64_t p = pixels; p > 0; --p, at += x_pixel) {
      FS_UNROLL
      for (int n = 0; n < kSide; ++n)
        acc[n] = V::add(acc[n], sizeof(In) == 1 ? V::widen_u8(at + n * V::kLanes)
                                                : V::widen_s16(at + 2 * n * V::kLanes));
    }
    FS_UNROLL
    for (int n = 0; n < kSide; ++n) V::store(sums + c + n * V::kLanes, acc[n]);
  }
  for (; c < channels; ++c)
    for (int64_t p = 0; p < pixels; ++p) {
      In v;
      __builtin_memcpy(&v, x + p * x_pixel + c * sizeof v, sizeof v);
      sums[c] += v;
    }
}

template <class V>
void channel_sums(const uint8_t* x, int32_t x_bytes, int64_t x_pixel, int64_t pixels,
                  int64_t channels, int32_t* sums) {
  if (x_bytes == 1)
    sum_channels<V, uint8_t>(x, x_pixel, pixels, channels, sums);
  else
    sum_channels<V, int16_t>(x, x_pixel, pixels, channels, sums);
}

// Sums of kRows outputs over features that were cut into pieces.
template <class V, class Weight, int kPieces, int kRows>
FS_INLINE void dot_rows(const ReadoutTask& t, const Weight* w, int64_t (&sum)[kRows]) {
  constexpr int64_t kStep = 2 * V::kLanes;
  // Steps after which a lane of 2 products a step may be full: 2*2^7*(2^15-1)*256 < 2^31, and with
  // two pieces, of which each is at most 255, 2*2^15*255*128 < 2^31.
  constexpr int64_t kSteps = kPieces == 1 ? 256 : 128;
  for (int64_t& s : sum) s = 0;
  int64_t i = 0;
  while (i + kStep <= t.features) {
    const int64_t whole = t.features - t.features % kStep;
    const int64_t end = whole - i < kSteps * kStep ? whole : i + kSteps * kStep;
    typename V::Int acc[kRows][kPieces];
    FS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      FS_UNROLL
      for (int p = 0; p < kPieces; ++p) acc[r][p] = V::zero();
    }
    for (; i < end; i += kStep) {
      FS_UNROLL
      for (int r = 0; r < kRows; ++r) {
        // The next rows: every row is a stream of its own, too short for the processor to notice.
        __builtin_prefetch(w + (r + kRows) * t.features + i);
        FS_UNROLL
        for (int p = 0; p < kPieces; ++p)
          acc[r][p] = V::dot_row(acc[r][p], t.piece[p] + i, w + r * t.features + i);
      }
    }
    alignas(64) int32_t lane[V::kLanes];
    FS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      FS_UNROLL
      for (int p = 0; p < kPieces; ++p) {
        V::store(lane, acc[r][p]);
        for (const int32_t v : lane) sum[r] += static_cast<int64_t>(v) << 8 * p;
      }
    }
  }
  for (; i < t.features; ++i)
    for (int r = 0; r < kRows; ++r)
      for (int p = 0; p < kPieces; ++p)
        sum[r] += static_cast<int64_t>(t.piece[p][i] * w[r * t.features + i]) * (1 << 8 * p);
}

template <class V, class Weight>
FS_INLINE int64_t wide_dot(const int64_t* x, const Weight* w, int64_t n) {
  typename V::Wide sum0 = V::wide_zero(), sum1 = V::wide_zero();
  int64_t i = 0;
  for (; i + 2 * V::kWideLanes <= n; i += 2 * V::kWideLanes) {
    sum0 = V::wide_dot(sum0, x + i, V::wide_load(w + i));
    sum1 = V::wide_dot(sum1, x + i + V::kWideLanes, V::wide_load(w + i + V::kWideLanes));
  }
  int64_t sum = V::wide_sum(sum0) + V::wide_sum(sum1);
  for (; i < n; ++i) sum += x[i] * w[i];
  return sum;
}

template <class V, class Weight, int kRows>
FS_INLINE void readout_rows(const ReadoutTask& t, int64_t o) {
  const Weight* w = static_cast<const Weight*>(t.weight) + o * t.features;
  int64_t sum[kRows];
  if (t.pieces == 2)
    dot_rows<V, Weight, 2>(t, w, sum);
  else if (t.pieces == 1)
    dot_rows<V, Weight, 1>(t, w, sum);
  else
    for (int r = 0; r < kRows; ++r) sum[r] = wide_dot<V>(t.wide, w + r * t.features, t.features);
  for (int r = 0; r < kRows; ++r)
    t.y[o + r] = __builtin_fmaf(static_cast<float>(sum[r]), t.m[o + r], t.bias[o + r]);
}

template <class V, class Weight>
FS_INLINE void readout_of(const ReadoutTask& t) {
  int64_t o = t.begin;
  for (; o + 4 <= t.end; o += 4) readout_rows<V, Weight, 4>(t, o);
  for (; o < t.end; ++o) readout_rows<V, Weight, 1>(t, o);
}

template <class V>
void readout(const ReadoutTask& t) {
  if (t.weight_bytes == 1)
    readout_of<V, int8_t>(t);
  else
    readout_of<V, int16_t>(t);
}

// Copies n elements, widening or narrowing them on the way.
void convert(const void* from, int32_t from_bytes, void* to, int32_t to_bytes, int64_t n) {
  const auto take = [](auto, auto x) { return x; };
  if (from_bytes == to_bytes)
    __builtin_memcpy(to, from, n * from_bytes);
  else if (from_bytes == 1)
    each_channel(static_cast<const uint8_t*>(from), static_cast<int16_t*>(to), n, take);
  else
    each_channel(static_cast<const int16_t*>(from), static_cast<uint8_t*>(to), n, take);
}

int64_t spikes_in(const void* words, int64_t bytes) { return count_bits(words, bytes); }

}  // namespace
}  // namespace fskernel
