// Rate-coded neurons over a vector class V (../isa/vec_*.h): from the sums of all time steps, in
// memory, or from a constant current, a neuron goes through its steps in registers and leaves one
// byte, its spike train. And what is done with trains: their spikes, counts, max-pools.
#pragma once

#include "conv_sums.h"
#include "pool_readout.h"

namespace fskernel {
namespace {

// What some channels of one pixel need to fire. Sums: int32, a step's behind another's.
struct RateRule {
  const float *m, *m2, *bias;
  float residual_scale;
  int32_t steps, channels;
  int64_t sums_step, sums2_step;  // in numbers
};

// N vectors of neurons: current v = fma(sum, m, bias), then the second group and the residual, as
// of FS neurons; membrane += v; at 1 a spike and -= 1. A step waits for the one before it, so
// several vectors go side by side.
template <class V, bool kSecond, bool kResidual, int N>
FS_INLINE void fire_vectors(const RateRule& rule, int64_t channel, const int32_t* sums,
                            const int32_t* sums2, const uint8_t* residual, float* membrane,
                            uint8_t* y) {
  const typename V::Float one = V::splat(1.0f), r = V::splat(rule.residual_scale);
  typename V::Float m[N], bias[N], m2[N], u[N];
  typename V::Int spikes[N], train[N];
  FS_UNROLL
  for (int n = 0; n < N; ++n) {
    const int at = n * V::kLanes;
    m[n] = V::load_float(rule.m + channel + at);
    bias[n] = V::load_float(rule.bias + channel + at);
    if constexpr (kSecond) m2[n] = V::load_float(rule.m2 + channel + at);
    if constexpr (kResidual) spikes[n] = V::widen_u8(residual + at);
    u[n] = V::load_float(membrane + at);
    train[n] = V::zero();
  }
  for (int s = 0; s < rule.steps; ++s) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) {
      const int at = n * V::kLanes;
      typename V::Float v = V::fma(V::to_float(V::load(sums + at)), m[n], bias[n]);
      if constexpr (kSecond) v = V::fma(V::to_float(V::load(sums2 + at)), m2[n], v);
      if constexpr (kResidual) v = V::fma(V::to_float(V::shift_mask(spikes[n], s, 1)), r, v);
      u[n] = V::fma(v, one, u[n]);  // rounds once: a sum
      V::fire_step(u[n], train[n], 1u << s);
    }
    sums += rule.sums_step;
    if constexpr (kSecond) sums2 += rule.sums2_step;
  }
  FS_UNROLL
  for (int n = 0; n < N; ++n) V::store_float(membrane + n * V::kLanes, u[n]);
  V::store_u8(y, train);
}

// Vectors that go side by side: what registers hold.
template <class V>
constexpr int kBeside = V::kRegisters >= 32 ? 4 : 2;

template <class V, bool kSecond, bool kResidual>
FS_INLINE void fire_pixel(const RateRule& rule, const int32_t* sums, const int32_t* sums2,
                          const uint8_t* residual, float* membrane, uint8_t* y) {
  constexpr int kMany = kBeside<V>;
  int64_t c = 0;
  const auto second = [&] { return kSecond ? sums2 + c : nullptr; };
  const auto beside = [&] { return kResidual ? residual + c : nullptr; };
  for (; c + kMany * V::kLanes <= rule.channels; c += kMany * V::kLanes)
    fire_vectors<V, kSecond, kResidual, kMany>(rule, c, sums + c, second(), beside(), membrane + c,
                                               y + c);
  for (; c + V::kLanes <= rule.channels; c += V::kLanes)
    fire_vectors<V, kSecond, kResidual, 1>(rule, c, sums + c, second(), beside(), membrane + c,
                                           y + c);
  const int64_t left = rule.channels - c;
  if (left == 0) return;
  float u[V::kLanes] = {};  // neither read nor write beyond the channels
  uint8_t in[V::kLanes] = {}, out[V::kLanes];
  __builtin_memcpy(u, membrane + c, 4 * left);
  if constexpr (kResidual) __builtin_memcpy(in, residual + c, left);
  fire_vectors<V, kSecond, kResidual, 1>(rule, c, sums + c, second(), in, u, out);
  __builtin_memcpy(membrane + c, u, 4 * left);
  __builtin_memcpy(y + c, out, left);
}

FS_INLINE const int32_t* moved(const int32_t* p, int64_t bytes) {
  return reinterpret_cast<const int32_t*>(reinterpret_cast<const uint8_t*>(p) + bytes);
}
FS_INLINE float* moved(float* p, int64_t bytes) {
  return reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(p) + bytes);
}

// What a few neighbouring pixels need beside their rule; strides in bytes, but of sums in numbers.
struct RatePixels {
  const int32_t *sums, *sums2;
  int64_t sums_pixel, sums2_pixel;
  const uint8_t* residual;
  int64_t residual_pixel;
  float* membrane;
  int64_t membrane_pixel;
  uint8_t* y;
  int64_t y_pixel;
  int pixels;
};

template <class V, bool kSecond, bool kResidual>
__attribute__((noinline)) void fire_pixels(const RateRule& rule, RatePixels at) {
  for (int p = 0; p < at.pixels; ++p) {
    fire_pixel<V, kSecond, kResidual>(rule, at.sums, at.sums2, at.residual, at.membrane, at.y);
    at.sums += at.sums_pixel;
    if constexpr (kSecond) at.sums2 += at.sums2_pixel;
    if constexpr (kResidual) at.residual += at.residual_pixel;
    at.membrane = moved(at.membrane, at.membrane_pixel);
    at.y += at.y_pixel;
  }
}

template <class V>
FS_INLINE void fire_pixels(const RateRule& rule, const RatePixels& at) {
  if (at.sums2)
    return at.residual ? fire_pixels<V, true, true>(rule, at)
                       : fire_pixels<V, true, false>(rule, at);
  return at.residual ? fire_pixels<V, false, true>(rule, at)
                     : fire_pixels<V, false, false>(rule, at);
}

// N vectors of neurons whose current is the same at all steps.
template <class V, int N>
FS_INLINE void integrate_vectors(const float* current, float* membrane, uint8_t* y, int32_t steps) {
  const typename V::Float one = V::splat(1.0f);
  typename V::Float v[N], u[N];
  typename V::Int train[N];
  FS_UNROLL
  for (int n = 0; n < N; ++n) {
    v[n] = V::load_float(current + n * V::kLanes);
    u[n] = V::load_float(membrane + n * V::kLanes);
    train[n] = V::zero();
  }
  for (int s = 0; s < steps; ++s) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) {
      u[n] = V::fma(v[n], one, u[n]);
      V::fire_step(u[n], train[n], 1u << s);
    }
  }
  FS_UNROLL
  for (int n = 0; n < N; ++n) V::store_float(membrane + n * V::kLanes, u[n]);
  V::store_u8(y, train);
}

template <class V>
void integrate(const float* current, float* membrane, uint8_t* trains, int64_t n, int32_t steps) {
  constexpr int64_t kMany = kBeside<V> * V::kLanes;
  int64_t i = 0;
  for (; i + kMany <= n; i += kMany)
    integrate_vectors<V, kBeside<V>>(current + i, membrane + i, trains + i, steps);
  for (; i + V::kLanes <= n; i += V::kLanes)
    integrate_vectors<V, 1>(current + i, membrane + i, trains + i, steps);
  if (i == n) return;
  float v[V::kLanes] = {}, u[V::kLanes] = {};
  uint8_t y[V::kLanes];
  __builtin_memcpy(v, current + i, 4 * (n - i));
  __builtin_memcpy(u, membrane + i, 4 * (n - i));
  integrate_vectors<V, 1>(v, u, y, steps);
  __builtin_memcpy(membrane + i, u, 4 * (n - i));
  __builtin_memcpy(trains + i, y, n - i);
}

template <class V>
void spikes_at(const uint8_t* trains, int32_t step, uint8_t* to, int64_t n) {
  constexpr int64_t kBytes = 4 * V::kLanes;
  int64_t i = 0;
  for (; i + kBytes <= n; i += kBytes)
    V::store(to + i, V::shift_mask(V::load(trains + i), step, 0x01010101u));
  for (; i < n; ++i) to[i] = trains[i] >> step & 1;
}

template <class V>
void count_steps(const uint8_t* trains, int64_t n, int32_t steps, int64_t* counts) {
  constexpr int64_t kBytes = 4 * V::kLanes, kMost = 255 * kBytes;  // what a byte can count
  int64_t i = 0;
  while (n - i >= kBytes) {
    const int64_t end = i + (n - i < kMost ? (n - i) / kBytes * kBytes : kMost);
    typename V::Int sum[kTrainSteps];
    FS_UNROLL
    for (int s = 0; s < kTrainSteps; ++s) sum[s] = V::zero();
    for (; i < end; i += kBytes) {
      const typename V::Int x = V::load(trains + i);
      FS_UNROLL
      for (int s = 0; s < kTrainSteps; ++s)
        sum[s] = V::add(sum[s], V::shift_mask(x, s, 0x01010101u));
    }
    uint8_t bytes[kBytes];
    for (int s = 0; s < steps; ++s) {
      V::store(bytes, sum[s]);
      for (const uint8_t one : bytes) counts[s] += one;
    }
  }
  for (; i < n; ++i)
    for (int s = 0; s < steps; ++s) counts[s] += trains[i] >> s & 1;
}

// Of a window, at each step, the spikes of the inputs that have fired most, this step included, and
// of several such inputs the first: the largest of (spikes, order, spike) in one number. n channels
// of one vector. kSteps: known to the compiler, or 0.
template <class V, int kSteps>
FS_INLINE void gate_vector(const GateTask& t, const Window& w, int bits, int64_t channel, int64_t n,
                           uint8_t* y) {
  const int steps = kSteps ? kSteps : t.steps;
  typename V::Int best[kTrainSteps];
  FS_UNROLL
  for (int s = 0; s < steps; ++s) best[s] = V::broadcast(0x80000000u);
  uint32_t rank = static_cast<uint32_t>(w.rows * w.cols);
  uint8_t few[V::kLanes] = {};
  int32_t few_before[V::kLanes] = {};
  for (int64_t row = 0; row < w.rows; ++row)
    for (int64_t col = 0; col < w.cols; ++col) {
      const uint8_t* x = w.x + row * w.row_step + col * w.col_step + channel;
      const int32_t* before = t.totals + (x - t.x);
      if (n < V::kLanes) {
        __builtin_memcpy(few, x, n);
        __builtin_memcpy(few_before, before, 4 * n);
        x = few, before = few_before;
      }
      const typename V::Int train = V::widen_u8(x);
      typename V::Int key =
          V::add(V::shift_left(V::load(before), bits + 1), V::broadcast(--rank << 1));
      FS_UNROLL
      for (int s = 0; s < steps; ++s) {
        const typename V::Int spike = V::shift_mask(train, s, 1);
        key = V::add(key, V::shift_left(spike, bits + 1));
        best[s] = V::max_s32(best[s], V::add(key, spike));
      }
    }
  typename V::Int trains[1] = {V::zero()};
  FS_UNROLL
  for (int s = 0; s < steps; ++s)
    trains[0] = V::add(trains[0], V::shift_left(V::shift_mask(best[s], 0, 1), s));
  uint8_t out[V::kLanes];
  V::store_u8(n < V::kLanes ? out : y, trains);
  if (n < V::kLanes) __builtin_memcpy(y, out, n);
}

template <class V>
void gate(const GateTask& task) {
  const GateTask t = task;
  const Geometry& g = t.geometry;
  int bits = 0;
  while (g.kernel_h * g.kernel_w >> bits) ++bits;
  PoolTask windows{};
  windows.x = t.x;
  windows.x_pixel = t.channels;
  windows.x_row = t.width * t.channels;
  windows.y = t.y;
  windows.y_pixel = t.channels;
  windows.y_row = t.out_w * t.channels;
  windows.height = t.height;
  windows.width = t.width;
  windows.out_w = t.out_w;
  windows.geometry = g;
  windows.row_begin = t.row_begin;
  windows.row_end = t.row_end;
  each_window(windows, [&](const Window& w, uint8_t* y) {
    for (int64_t c = 0; c < t.channels; c += V::kLanes) {
      const int64_t n = t.channels - c < V::kLanes ? t.channels - c : V::kLanes;
      if (t.steps == kTrainSteps)
        gate_vector<V, kTrainSteps>(t, w, bits, c, n, y + c);
      else
        gate_vector<V, 0>(t, w, bits, c, n, y + c);
    }
  });
}

inline void add_totals(const uint8_t* trains, int32_t* totals, int64_t n) {
  for (int64_t i = 0; i < n; ++i) totals[i] += __builtin_popcount(trains[i]);
}

}  // namespace
}  // namespace fskernel
