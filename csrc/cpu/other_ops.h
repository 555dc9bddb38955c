// Pools, readout and encoders over a vector class V (vec_*.h). Inner loops of a constant number of
// steps, so that the compiler vectorises them for the instruction set of the including file.
#pragma once

#include "bits.h"

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

// Starts every output at `start` and folds the taps that lie inside the picture into it with f.
template <class In, class Out, class Function>
FS_INLINE void pool(const PoolTask& t, Out start, Function f) {
  const Geometry& g = t.geometry;
  const In* x = static_cast<const In*>(t.x);
  for (int64_t oy = t.row_begin; oy < t.row_end; ++oy)
    for (int64_t ox = 0; ox < t.out_w; ++ox) {
      Out* y = static_cast<Out*>(t.y) + (oy * t.out_w + ox) * t.channels;
      for (int64_t c = 0; c < t.channels; ++c) y[c] = start;
      for (int64_t ky = 0; ky < g.kernel_h; ++ky) {
        const int64_t iy = oy * g.stride_h + ky * g.dilation_h - g.pad_top;
        if (iy < 0 || iy >= t.height) continue;
        for (int64_t kx = 0; kx < g.kernel_w; ++kx) {
          const int64_t ix = ox * g.stride_w + kx * g.dilation_w - g.pad_left;
          if (ix < 0 || ix >= t.width) continue;
          each_channel(x + (iy * t.width + ix) * t.channels, y, t.channels, f);
        }
      }
    }
}

void max_pool(const PoolTask& t) {
  if (t.x_bytes == 1)
    pool<uint8_t>(t, uint8_t{0}, [](uint8_t y, uint8_t x) { return y > x ? y : x; });
  else
    pool<int16_t>(t, int16_t{-32768}, [](int16_t y, int16_t x) { return y > x ? y : x; });
}

void sum_pool(const PoolTask& t) {
  if (t.x_bytes == 1)
    pool<uint8_t>(t, int16_t{0}, [](int16_t y, uint8_t x) { return static_cast<int16_t>(y + x); });
  else
    pool<int16_t>(t, int16_t{0}, [](int16_t y, int16_t x) { return static_cast<int16_t>(y + x); });
}

// sums[c] += x[pixel][c] over all pixels.
void channel_sums(const void* x, int32_t x_bytes, int64_t pixels, int64_t channels, int64_t* sums) {
  for (int64_t p = 0; p < pixels; ++p)
    if (x_bytes == 1)
      each_channel(static_cast<const uint8_t*>(x) + p * channels, sums, channels,
                   [](int64_t y, uint8_t v) { return y + v; });
    else
      each_channel(static_cast<const int16_t*>(x) + p * channels, sums, channels,
                   [](int64_t y, int16_t v) { return y + v; });
}

template <class V, class Weight>
FS_INLINE int64_t dot_product(const int64_t* x, const Weight* w, int64_t n) {
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

template <class V>
void readout(const ReadoutTask& t) {
  for (int64_t o = t.begin; o < t.end; ++o) {
    const int64_t sum =
        t.weight_bytes == 1
            ? dot_product<V>(t.x, static_cast<const int8_t*>(t.weight) + o * t.features, t.features)
            : dot_product<V>(t.x, static_cast<const int16_t*>(t.weight) + o * t.features,
                             t.features);
    t.y[o] = __builtin_fmaf(static_cast<float>(sum), t.m[o], t.bias[o]);
  }
}

// Reads one channel's row in steps of kStep pixels, because the output interleaves channels.
template <class V>
void encode(const EncodeTask& t) {
  constexpr int64_t kStep = 64;
  alignas(64) float values[kStep] = {};
  alignas(64) int32_t codes[kStep];
  const typename V::Float inv_step = V::splat(t.inv_step), offset = V::splat(t.offset);
  const typename V::Float top = V::splat(static_cast<float>(t.K == 0 ? t.limit : (1 << t.K) - 1));
  for (int64_t row = t.row_begin; row < t.row_end; ++row)
    for (int64_t c = 0; c < t.channels; ++c)
      for (int64_t col = 0; col < t.width; col += kStep) {
        const int64_t n = t.width - col < kStep ? t.width - col : kStep;
        const float* x = t.x + row * t.stride_h + c * t.stride_c + col * t.stride_w;
        if (t.stride_w == 1)
          __builtin_memcpy(values, x, n * sizeof(float));
        else
          for (int64_t i = 0; i < n; ++i) values[i] = x[i * t.stride_w];
        for (int64_t i = 0; i < kStep; i += V::kLanes) {
          const typename V::Float v = V::load_float(values + i);
          V::store(codes + i, t.K == 0 ? V::graded(V::mul(v, inv_step), top)
                                       : V::fire(V::fma(v, inv_step, offset), top));
        }
        const int64_t at = (row * t.width + col) * t.channels + c;
        if (t.K >= 1 && t.K <= 8)
          for (int64_t i = 0; i < n; ++i)
            static_cast<uint8_t*>(t.y)[at + i * t.channels] = static_cast<uint8_t>(codes[i]);
        else
          for (int64_t i = 0; i < n; ++i)
            static_cast<int16_t*>(t.y)[at + i * t.channels] = static_cast<int16_t>(codes[i]);
      }
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

// One row of kernels.inc's table.
template <class V, int kMaxP, int kMaxN>
constexpr Kernels kernels_of(const char* name, bool (*supported)(), bool automatic,
                             int64_t (*conv)(const ConvTask*, int32_t)) {
  return {name,      supported, automatic,     V::kHasU8S8, V::kLanes,  kMaxN,    kMaxP,     conv,
          &max_pool, &sum_pool, &channel_sums, &readout<V>, &encode<V>, &convert, &spikes_in};
}

}  // namespace
}  // namespace fskernel
