// Items 4 and 5 of the contract on the sums of one pixel: membrane potential, neuron, store, count.
#pragma once

#include "bits.h"

namespace fskernel {
namespace {

// kWordsU8Full: all 8 bits, so that saturation in the store stands for the neuron's upper clip.
enum Output { kWordsU8, kWordsS16, kGraded, kWordsU8Full };
constexpr bool is_bytes(int output) { return output == kWordsU8 || output == kWordsU8Full; }
// What is added to the membrane beside the first sum. kResidual: words of the output's own type;
// kAny: whatever the task says.
enum Extra { kNone, kSecond, kResidual, kAny };

// What one block of channels needs. Copies: a store through uint8_t* might, for all the compiler
// knows, change the task.
template <class V>
struct Rule {
  const float *m, *m2, *bias;
  typename V::Float top, residual_scale;
  int64_t residual_bytes;
};

template <class V, int kOutput>
FS_INLINE Rule<V> rule_of(const ConvTask& t) {
  return {t.group[0].m,
          t.group[1].m,
          t.bias,
          V::splat(static_cast<float>(kOutput == kGraded ? t.limit : (1 << t.K) - 1)),
          V::splat(t.residual_scale),
          t.residual_bytes};
}

// The membrane potential of vector n of channels, from its sums.
template <class V>
FS_INLINE typename V::Float potential(const Rule<V>& rule, int n, typename V::Int sum) {
  const int channel = n * V::kLanes;
  return V::fma(V::to_float(sum), V::load_float(rule.m + channel),
                V::load_float(rule.bias + channel));
}

// Its code.
template <class V, int kOutput>
FS_INLINE typename V::Int fired(const Rule<V>& rule, typename V::Float v) {
  if constexpr (kOutput == kGraded)
    return V::graded(v, rule.top);
  else if constexpr (kOutput == kWordsU8Full)
    return V::fire_low(v);
  else
    return V::fire(v, rule.top);
}

// The code of vector n of channels, from everything that reaches its neurons.
template <class V, int kOutput, int kExtra>
FS_INLINE typename V::Int code_of(const Rule<V>& rule, int n, typename V::Int sum,
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
  return fired<V, kOutput>(rule, v);
}

template <class V, int kOutput, int N>
FS_INLINE void store_codes(uint8_t* y, const typename V::Int (&code)[N]) {
  if constexpr (kOutput == kWordsU8)
    V::store_u8(y, code);
  else if constexpr (kOutput == kWordsS16)
    V::store_u16(y, code);
  else
    V::store_s16(y, code);
}

// The codes of one pixel whose N vectors are filled to the last lane.
template <class V, int kOutput, int kExtra, int N>
FS_INLINE void codes_of(const Rule<V>& rule, const typename V::Int (&sum)[N], const int32_t* sums2,
                        const uint8_t* residual, typename V::Int (&code)[N]) {
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
    code[n] = code_of<V, kOutput, kExtra>(rule, n, sum[n], sums2, residual);
}

// Stores them and returns their spikes.
template <class V, int kOutput, int N>
FS_INLINE int64_t store_and_count(uint8_t* y, const typename V::Int (&code)[N]) {
  store_codes<V, kOutput>(y, code);
  if constexpr (kOutput == kGraded) return 0;
  return count_bits<N * V::kLanes*(kOutput == kWordsU8 ? 1 : 2)>(y);
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
  constexpr int64_t kBytes = kOutput == kWordsU8 ? 1 : 2;
  const Rule<V> rule = rule_of<V, kOutput>(t);
  const int64_t bytes = t.channels * kBytes, y_pixel = t.y_pixel;
  const int64_t residual_pixel = t.residual_pixel, residual_bytes = t.channels * t.residual_bytes;
  const bool whole = t.channels == N * V::kLanes;
  const int32_t *sums = tile.sums, *sums2 = tile.sums2;
  const uint8_t* residual = tile.residual;
  uint8_t* y = tile.y;
  // The last vector may be partly filled: neither read nor write beyond the channels. The lanes
  // behind them have weight, multiplier and bias 0, so they give no spike.
  alignas(64) uint8_t in[2 * N * V::kLanes] = {}, out[2 * N * V::kLanes];
  int64_t spikes = 0;
  for (int p = tile.pixels; p > 0; --p) {
    typename V::Int sum[N];
    typename V::Int code[N];
    for (int n = 0; n < N; ++n) sum[n] = V::load(sums + n * V::kLanes);
    if (residual && !whole) __builtin_memcpy(in, residual, residual_bytes);
    codes_of<V, kOutput, kAny>(rule, sum, sums2, residual && !whole ? in : residual, code);
    spikes += store_and_count<V, kOutput>(whole ? y : out, code);
    if (!whole) __builtin_memcpy(y, out, bytes);
    sums += N * V::kLanes;
    y += y_pixel;
    if (sums2)
      sums2 = reinterpret_cast<const int32_t*>(reinterpret_cast<const uint8_t*>(sums2) +
                                               tile.sums2_pixel);
    if (residual) residual += residual_pixel;
  }
  *total += spikes;
}

using Finish = void (*)(const ConvTask&, const Tile&, int64_t* spikes);

template <class V, int N>
Finish finish_for(const ConvTask& t, int n) {
  if (n == N) {
    if (t.K == 0) return &finish<V, kGraded, N>;
    return t.y_bytes == 1 ? &finish<V, kWordsU8, N> : &finish<V, kWordsS16, N>;
  }
  if constexpr (N > 1)
    return finish_for<V, N - 1>(t, n);
  else
    return nullptr;
}

}  // namespace
}  // namespace fskernel
