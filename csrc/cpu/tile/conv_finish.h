// Items 4 and 5 of the contract on the sums of one pixel: membrane potential, neuron, store, count.
#pragma once

#include "bits.h"
#include "scale.h"

namespace fskernel {
namespace {

// kWordsU8Full: every top is 255, so that saturation in the store stands for the neuron's upper
// clip. kFloats: what words stand for or, without neurons, the membranes. kShaped: words of shaped
// neurons. kFitted: codes of fitted neurons, whose spikes are no bits of them.
enum Output {
  kWordsU8,
  kWordsS16,
  kGraded,
  kWordsU8Full,
  kFloats,
  kShapedU8,
  kShapedS16,
  kShapedU8Full,
  kFittedU8,
  kFittedS16
};
constexpr bool is_fitted(int output) { return output == kFittedU8 || output == kFittedS16; }
constexpr bool is_shaped(int output) {
  return output == kShapedU8 || output == kShapedS16 || output == kShapedU8Full;
}
constexpr bool is_bytes(int output) {
  return output == kWordsU8 || output == kWordsU8Full || output == kShapedU8 ||
         output == kShapedU8Full || output == kFittedU8;
}
// What is added to the membrane beside the first sum. kResidual: words of the output's own type;
// kAny: whatever the task says.
enum Extra { kNone, kSecond, kResidual, kAny };

// What one block of channels needs. Copies: a store through uint8_t* might, for all the compiler
// knows, change the task.
template <class V>
struct Rule {
  const float *m, *m2, *bias, *top;
  typename V::Float limit, residual_scale;
  int64_t residual_bytes;
  Scale<V> scale;
  bool neurons, count;
  Shape shape;
  Fitted fitted;
};

template <class V>
FS_INLINE Rule<V> rule_of(const ConvTask& t) {
  return {t.group[0].m,
          t.group[1].m,
          t.bias,
          t.top,
          V::splat(static_cast<float>(t.limit)),
          V::splat(t.residual_scale),
          t.residual_bytes,
          Scale<V>(t.step),
          t.K > 0,
          t.count,
          t.shape,
          t.fitted};
}

// What the membranes of N vectors of neurons that share one table become.
template <class V, int N>
FS_INLINE void shape_all(const Shape& shape, typename V::Float (&v)[N]) {
  const typename V::Float last = V::splat(in_table(__builtin_inff(), shape.segments));
  typename V::Int at[N];
  typename V::Float slope[N], offset[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    v[n] = V::in_table(v[n], last);
    at[n] = V::truncated(v[n]);
  }
  V::look_up(shape.table, shape.segments, at, slope, offset);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) v[n] = V::fma(v[n], slope[n], offset[n]);
}

// The same where every channel may have its own.
template <class V, int N>
FS_INLINE void shape_each(const Shape& shape, typename V::Float (&v)[N]) {
  if (!shape.row) return shape_all<V>(shape, v);
  const typename V::Float last = V::splat(in_table(__builtin_inff(), shape.segments));
  const auto row = static_cast<int32_t>(shape.row);
  for (int n = 0; n < N; ++n) {
    const float* table = shape.table + n * V::kLanes * shape.row;
    v[n] = V::in_table(v[n], last);
    const typename V::Int at = V::truncated(v[n]);
    v[n] = V::fma(v[n], V::look_up_own(table, row, at),
                  V::look_up_own(table + shape.segments, row, at));
  }
}

// What the membranes of N vectors of fitted neurons become: their codes, as whole numbers that are
// not clipped yet. Each lane's spikes are added to `fired`.
template <class V, int N>
FS_INLINE void fit_all(const Fitted& fitted, typename V::Float (&v)[N], typename V::Int& fired) {
  typename V::Float code[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) code[n] = V::splat(fitted.zero);
  for (int32_t t = 0; t < fitted.steps; ++t) {
    const typename V::Float threshold = V::splat(fitted.lines[t]);
    const typename V::Float reset = V::splat(fitted.lines[fitted.steps + t]);
    const typename V::Float worth = V::splat(fitted.lines[2 * fitted.steps + t]);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) V::fit_step(v[n], code[n], fired, threshold, reset, worth);
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) v[n] = code[n];
}

// The membrane potential of vector n of channels, from its sums.
template <class V>
FS_INLINE typename V::Float potential(const Rule<V>& rule, int n, typename V::Int sum) {
  const int channel = n * V::kLanes;
  return V::fma(V::to_float(sum), V::load_float(rule.m + channel),
                V::load_float(rule.bias + channel));
}

// The code of vector n of channels.
template <class V, int kOutput>
FS_INLINE typename V::Int fired(const Rule<V>& rule, int n, typename V::Float v) {
  if constexpr (kOutput == kGraded)
    return V::graded(v, rule.limit);
  else if constexpr (kOutput == kWordsU8Full || kOutput == kShapedU8Full)
    return V::fire_low(v);
  else
    return V::fire(v, V::load_float(rule.top + n * V::kLanes));
}

// The membrane potential of vector n of channels, from everything that reaches its neurons.
template <class V, int kOutput, int kExtra>
FS_INLINE typename V::Float membrane_of(const Rule<V>& rule, int n, typename V::Int sum,
                                        const int32_t* sums2, const uint8_t* residual) {
  const int channel = n * V::kLanes;
  typename V::Float v = potential(rule, n, sum);
  if (kExtra == kSecond || (kExtra == kAny && sums2))
    v = V::fma(V::to_float(V::load(sums2 + channel)), V::load_float(rule.m2 + channel), v);
  if constexpr (kExtra == kResidual) {
    const typename V::Int x =
        is_bytes(kOutput) ? V::widen_u8(residual + channel) : V::widen_s16(residual + 2 * channel);
    v = V::fma(V::to_float(x), rule.residual_scale, v);
  }
  if (kExtra == kAny && residual) {
    const typename V::Int x = rule.residual_bytes == 1 ? V::widen_u8(residual + channel)
                                                       : V::widen_s16(residual + 2 * channel);
    v = V::fma(V::to_float(x), rule.residual_scale, v);
  }
  return v;
}

template <class V, int kOutput, int N>
FS_INLINE void store_codes(uint8_t* y, const typename V::Int (&code)[N]) {
  if constexpr (is_bytes(kOutput))
    V::store_u8(y, code);
  else if constexpr (kOutput == kWordsS16 || kOutput == kShapedS16 || kOutput == kFittedS16)
    V::store_u16(y, code);
  else
    V::store_s16(y, code);
}

// The codes of one pixel whose N vectors are filled to the last lane.
template <class V, int kOutput, int kExtra, int N>
FS_INLINE void codes_of(const Rule<V>& rule, const typename V::Int (&sum)[N], const int32_t* sums2,
                        const uint8_t* residual, typename V::Int (&code)[N]) {
  typename V::Float v[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
    v[n] = membrane_of<V, kOutput, kExtra>(rule, n, sum[n], sums2, residual);
  if constexpr (is_shaped(kOutput)) shape_each<V>(rule.shape, v);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) code[n] = fired<V, kOutput>(rule, n, v[n]);
}

// Stores them and returns their spikes.
template <class V, int kOutput, int N>
FS_INLINE int64_t store_and_count(uint8_t* y, const typename V::Int (&code)[N]) {
  store_codes<V, kOutput>(y, code);
  if constexpr (kOutput == kGraded) return 0;
  return count_bits<N * V::kLanes*(is_bytes(kOutput) ? 1 : 2)>(y);
}

// Float output of one pixel with these membranes, in all N vectors. Returns the spikes, where they
// are asked for.
template <class V, int N>
FS_INLINE int64_t store_floats(const Rule<V>& rule, uint8_t* y, const typename V::Float (&v)[N]) {
  float* to = reinterpret_cast<float*>(y);
  if (!rule.neurons) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) V::store_float(to + n * V::kLanes, v[n]);
    return 0;
  }
  typename V::Int word[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    word[n] = V::positive(fired<V, kFloats>(rule, n, v[n]));
    V::store_float(to + n * V::kLanes, rule.scale(word[n]));
  }
  if (!rule.count) return 0;
  alignas(64) uint8_t words[2 * N * V::kLanes];
  V::store_u16(words, word);
  return count_bits<2 * N * V::kLanes>(words);
}

// The same for a pixel of fewer than all channels. Where the vectors are filled, no masks.
template <class V, int N>
FS_INLINE int64_t store_part_floats(const Rule<V>& rule, uint8_t* y,
                                    const typename V::Float (&v)[N], int64_t channels) {
  if (channels == N * V::kLanes) return store_floats(rule, y, v);
  alignas(64) uint8_t all[4 * N * V::kLanes];
  const int64_t spikes = store_floats(rule, all, v);
  __builtin_memcpy(y, all, 4 * channels);
  return spikes;
}

// Pixels of a tile whose sums are in memory.
struct Tile {
  const int32_t *sums, *sums2;
  int64_t sums2_pixel;  // in bytes
  const uint8_t* residual;
  uint8_t* y;
  int pixels;
};

template <class V, int kOutput, int N>
__attribute__((noinline)) void finish(const ConvTask& t, const Tile& tile, int64_t* total) {
  constexpr int64_t kBytes = kOutput == kFloats ? 4 : is_bytes(kOutput) ? 1 : 2;
  const Rule<V> rule = rule_of<V>(t);
  const int64_t bytes = t.channels * kBytes, y_pixel = t.y_pixel;
  const int64_t residual_pixel = t.residual_pixel, residual_bytes = t.channels * t.residual_bytes;
  const bool whole = t.channels == N * V::kLanes;
  const int32_t *sums = tile.sums, *sums2 = tile.sums2;
  const uint8_t* residual = tile.residual;
  uint8_t* y = tile.y;
  // The last vector may be partly filled: neither read nor write beyond the channels. The lanes
  // behind them have weight, multiplier, bias and largest word 0, so they give no spike.
  alignas(64) uint8_t in[2 * N * V::kLanes] = {}, out[kBytes * N * V::kLanes];
  int64_t spikes = 0;
  [[maybe_unused]] typename V::Int fires = V::zero();
  for (int p = tile.pixels; p > 0; --p) {
    typename V::Int sum[N];
    for (int n = 0; n < N; ++n) sum[n] = V::load(sums + n * V::kLanes);
    if (residual && !whole) __builtin_memcpy(in, residual, residual_bytes);
    const uint8_t* x = residual && !whole ? in : residual;
    if constexpr (kOutput == kFloats) {
      typename V::Float v[N];
      for (int n = 0; n < N; ++n) v[n] = membrane_of<V, kOutput, kAny>(rule, n, sum[n], sums2, x);
      spikes += store_floats(rule, whole ? y : out, v);
    } else if constexpr (is_fitted(kOutput)) {
      typename V::Float v[N];
      typename V::Int code[N];
      for (int n = 0; n < N; ++n) v[n] = membrane_of<V, kOutput, kAny>(rule, n, sum[n], sums2, x);
      fit_all<V>(rule.fitted, v, fires);
      for (int n = 0; n < N; ++n) code[n] = fired<V, kOutput>(rule, n, v[n]);
      store_codes<V, kOutput>(whole ? y : out, code);
    } else {
      typename V::Int code[N];
      codes_of<V, kOutput, kAny>(rule, sum, sums2, x, code);
      spikes += store_and_count<V, kOutput>(whole ? y : out, code);
    }
    if (!whole) __builtin_memcpy(y, out, bytes);
    sums += N * V::kLanes;
    y += y_pixel;
    if (sums2)
      sums2 = reinterpret_cast<const int32_t*>(reinterpret_cast<const uint8_t*>(sums2) +
                                               tile.sums2_pixel);
    if (residual) residual += residual_pixel;
  }
  if constexpr (is_fitted(kOutput)) spikes = V::lane_sum(fires);
  *total += spikes;
}

using Finish = void (*)(const ConvTask&, const Tile&, int64_t* spikes);

template <class V, int N>
Finish finish_for(const ConvTask& t, int n) {
  if (n == N) {
    if (t.y_bytes == 4) return &finish<V, kFloats, N>;
    if (t.K == 0) return &finish<V, kGraded, N>;
    if (t.shape.table) return t.y_bytes == 1 ? &finish<V, kShapedU8, N> : &finish<V, kShapedS16, N>;
    if (t.fitted.lines)
      return t.y_bytes == 1 ? &finish<V, kFittedU8, N> : &finish<V, kFittedS16, N>;
    return t.y_bytes == 1 ? &finish<V, kWordsU8, N> : &finish<V, kWordsS16, N>;
  }
  if constexpr (N > 1)
    return finish_for<V, N - 1>(t, n);
  else
    return nullptr;
}

}  // namespace
}  // namespace fskernel
