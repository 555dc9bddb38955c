// The product of two maps (item 9 of the contract) over a vector class V (../isa/vec_*.h).
#pragma once

#include "bits.h"
#include "conv_finish.h"

namespace fskernel {
namespace {

template <class V, class T>
FS_INLINE typename V::Int widened(const T* from) {
  return sizeof(T) == 1 ? V::widen_u8(from) : V::widen_s16(from);
}

template <class V>
struct ProductRule {
  typename V::Int minus_a, minus_b;  // the codes of zero, negative
  typename V::Float top;             // the largest word, or limit
  bool one_channel;
};

// The codes of N vectors of channels. only: of b, where it has one channel.
template <class V, int kOutput, int N, class A, class B>
FS_INLINE void multiply_codes(const ProductRule<V>& rule, const A* a, const B* b,
                              typename V::Int only, const float* m, const float* bias, uint8_t* y) {
  typename V::Int code[N];
  FS_UNROLL
  for (int n = 0; n < N; ++n) {
    const int channel = n * V::kLanes;
    const typename V::Int x = V::add(widened<V>(a + channel), rule.minus_a);
    const typename V::Int by =
        rule.one_channel ? only : V::add(widened<V>(b + channel), rule.minus_b);
    const typename V::Float v = V::fma(V::to_float(V::multiply(x, by)), V::load_float(m + channel),
                                       V::load_float(bias + channel));
    code[n] = kOutput == kGraded ? V::graded(v, rule.top) : V::fire(v, rule.top);
  }
  store_codes<V, kOutput>(y, code);
}

// Set bits of words, with the vector class's own means where it has some.
template <class V>
FS_INLINE int64_t count_spikes(const uint8_t* words, int64_t bytes) {
  int64_t spikes = 0;
  if constexpr (V::kCountsVectors) {
    constexpr int64_t kSide = 7, kVector = 4 * V::kLanes;
    alignas(64) int64_t sums[V::kLanes / 2] = {};
    for (; bytes >= kSide * kVector; bytes -= kSide * kVector, words += kSide * kVector) {
      typename V::Int word[kSide];
      FS_UNROLL
      for (int n = 0; n < kSide; ++n) word[n] = V::load(words + n * kVector);
      V::add_spikes(word, sums);
    }
    for (const int64_t sum : sums) spikes += sum;
  }
  return spikes + count_bits(words, bytes);
}

template <class V, int kOutput, class A, class B>
int64_t product_rows(const ProductTask& task) {
  constexpr int64_t kBytes = kOutput == kWordsU8 ? 1 : 2, kLanes = V::kLanes, kSide = 4;
  const ProductTask t = task;  // a copy, because a store through uint8_t* might change the task
  const auto largest = static_cast<float>(kOutput == kGraded ? t.limit : (1 << t.K) - 1);
  const ProductRule<V> rule{V::broadcast(static_cast<uint32_t>(-t.zero_a)),
                            V::broadcast(static_cast<uint32_t>(-t.zero_b)), V::splat(largest),
                            t.one_channel};
  // Neither read nor write beyond the channels: the last vector ends with the last of them, so that
  // it may give some codes a second time; where they do not fill one, they are copied.
  const int64_t last = t.channels - kLanes;
  const bool copied = last < 0;
  alignas(64) float m[kLanes] = {}, bias[kLanes] = {};
  alignas(64) uint8_t y_rest[2 * kLanes];
  A a_rest[kLanes] = {};
  B b_rest[kLanes] = {};
  if (copied) {
    __builtin_memcpy(m, t.m, t.channels * sizeof(float));
    __builtin_memcpy(bias, t.bias, t.channels * sizeof(float));
  }
  int64_t spikes = 0;
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    for (int64_t col = 0; col < t.width; ++col) {
      const A* a = reinterpret_cast<const A*>(t.a + row * t.a_row + col * t.a_pixel);
      const B* b = reinterpret_cast<const B*>(t.b + row * t.b_row + col * t.b_pixel);
      uint8_t* y = t.y + row * t.y_row + col * t.y_pixel;
      const auto only = V::add(V::broadcast(static_cast<uint32_t>(int32_t{*b})), rule.minus_b);
      if (copied) {
        __builtin_memcpy(a_rest, a, t.channels * sizeof(A));
        if (!t.one_channel) __builtin_memcpy(b_rest, b, t.channels * sizeof(B));
        multiply_codes<V, kOutput, 1>(rule, a_rest, b_rest, only, m, bias, y_rest);
        __builtin_memcpy(y, y_rest, t.channels * kBytes);
        continue;
      }
      int64_t c = 0;
      for (; c + kSide * kLanes <= t.channels; c += kSide * kLanes)
        multiply_codes<V, kOutput, kSide>(rule, a + c, b + c, only, t.m + c, t.bias + c,
                                          y + c * kBytes);
      for (; c < t.channels; c += kLanes) {
        const int64_t at = c < last ? c : last;
        multiply_codes<V, kOutput, 1>(rule, a + at, b + at, only, t.m + at, t.bias + at,
                                      y + at * kBytes);
      }
    }
    if (kOutput == kGraded || !t.count) continue;
    const int64_t pixel = t.channels * kBytes, dense = t.y_pixel == pixel ? t.width : 1;
    for (int64_t col = 0; col < t.width; col += dense)
      spikes += count_spikes<V>(t.y + row * t.y_row + col * t.y_pixel, dense * pixel);
  }
  return spikes;
}

template <class V, int kOutput>
int64_t product_of(const ProductTask& t) {
  if (t.a_bytes == 1)
    return t.b_bytes == 1 ? product_rows<V, kOutput, uint8_t, uint8_t>(t)
                          : product_rows<V, kOutput, uint8_t, int16_t>(t);
  return t.b_bytes == 1 ? product_rows<V, kOutput, int16_t, uint8_t>(t)
                        : product_rows<V, kOutput, int16_t, int16_t>(t);
}

template <class V>
int64_t product(const ProductTask& t) {
  if (t.K == 0) return product_of<V, kGraded>(t);
  return t.y_bytes == 1 ? product_of<V, kWordsU8>(t) : product_of<V, kWordsS16>(t);
}

}  // namespace
}  // namespace fskernel
