// Depthwise convolution over a vector class V (../isa/vec_*.h): taps of a kernel row are
// interleaved, so that one dot product takes several of them for every channel, and serve two
// outputs at once.
#pragma once

#include "conv_finish.h"
#include "conv_sums.h"

namespace fskernel {
namespace {

// Offsets of the taps of one kernel row. Behind the last tap that any output needs, whose weights
// are zero, it is read again, so that nothing outside the window is.
struct TapOffsets {
  int64_t at[2 * kMaxDepthWidth];  // sharing operands never doubles their number
  TapOffsets(const DepthTask& t, int64_t taps, int64_t outputs) {
    const int64_t last = t.kernel_w - 1 + (outputs - 1) * (t.pixel_stride / t.tap_stride);
    for (int64_t i = 0; i < t.operands * taps; ++i) at[i] = (i < last ? i : last) * t.tap_stride;
  }
};

template <class V, int kFamily, int T>
FS_INLINE void add_up_depth(const DepthTask& t, const uint8_t* x, const int64_t* offset,
                            typename V::Part part, const uint8_t* w,
                            typename V::Int (&acc)[T][depth_vectors(kFamily)]) {
  constexpr int kTaps = depth_taps(kFamily), kVectors = depth_vectors(kFamily);
  FS_UNROLL
  for (int j = 0; j < T; ++j) {
    FS_UNROLL
    for (int q = 0; q < kVectors; ++q) acc[j][q] = V::zero();
  }
  for (int64_t ky = t.kernel_h; ky > 0; --ky, x += t.kernel_stride) {
    const int64_t* at = offset;
    for (int64_t g = t.operands; g > 0; --g, at += kTaps) {
      typename V::Int value[kTaps];
      FS_UNROLL
      for (int i = 0; i < kTaps; ++i) value[i] = V::load_part(x + at[i], part);
      V::interleave(value);
      FS_UNROLL
      for (int j = 0; j < T; ++j) {
        FS_UNROLL
        for (int q = 0; q < kVectors; ++q, w += 4 * V::kLanes) {
          if constexpr (kFamily == kDepthU8)
            acc[j][q] = V::dot_u8s8(acc[j][q], value[q], V::load(w));
          else
            acc[j][q] = V::dot_s16(acc[j][q], value[q], V::load(w));
        }
      }
    }
  }
}

// Float output of one pixel's channels with these membranes, in depth_order. Returns the spikes.
template <class V, int kVectors>
FS_INLINE int64_t store_depth_floats(const DepthTask& t, uint8_t* y,
                                     const typename V::Float (&v)[kVectors], const float* top,
                                     const Scale<V>& scale, int64_t channels) {
  alignas(64) float values[kVectors][V::kLanes];
  int64_t spikes = 0;
  FS_UNROLL
  for (int q = 0; q < kVectors; ++q) {
    if (t.K == 0) {
      V::store_float(values[q], v[q]);
      continue;
    }
    const typename V::Int word[1] = {
        V::positive(V::fire(v[q], V::load_float(top + q * V::kLanes)))};
    V::store_float(values[q], scale(word[0]));
    if (!t.count) continue;
    alignas(64) uint8_t words[2 * V::kLanes];
    V::store_u16(words, word);
    spikes += count_bits<2 * V::kLanes>(words);
  }
  // Four channels that follow each other lie in a quarter of one vector, the next four in
  // another's.
  const auto piece = [&](int64_t i) { return &values[i % kVectors][i / kVectors * 4]; };
  if (channels == kVectors * V::kLanes) {
    FS_UNROLL
    for (int i = 0; i < kVectors * V::kLanes / 4; ++i) __builtin_memcpy(y + 16 * i, piece(i), 16);
    return spikes;
  }
  for (int64_t i = 0; i < channels / 4; ++i) __builtin_memcpy(y + 16 * i, piece(i), 16);
  if (channels % 4) __builtin_memcpy(y + channels / 4 * 16, piece(channels / 4), channels % 4 * 4);
  return spikes;
}

template <class V, int kFamily, int T, int kOutput>
int64_t depth_rows(const DepthTask& task) {
  constexpr int kVectors = depth_vectors(kFamily), kChannels = kVectors * V::kLanes;
  constexpr int64_t kXBytes = kFamily == kDepthU8 ? 1 : 2;
  constexpr int64_t kYBytes = kOutput == kFloats ? 4 : is_bytes(kOutput) ? 1 : 2;
  const DepthTask t = task;  // a store through uint8_t* might change the original
  const TapOffsets all(t, depth_taps(kFamily), T), single(t, depth_taps(kFamily), 1);
  const auto limit = V::splat(static_cast<float>(t.limit));
  const Scale<V> scale(t.step);
  const int64_t block_bytes = t.kernel_h * t.operands * T * kChannels * 4;
  alignas(64) int64_t spikes[8] = {};
  [[maybe_unused]] typename V::Int fires = V::zero();
  for (int64_t row = t.row_begin; row < t.row_end; ++row)
    for (int64_t col = 0; col < t.out_w; col += T) {
      const int64_t outputs = t.out_w - col < T ? t.out_w - col : T;
      const int64_t* offset = (outputs == T ? all : single).at;
      const uint8_t* x = t.x + row * t.row_stride + col * t.pixel_stride;
      uint8_t* y = t.y + row * t.y_row + col * t.y_pixel;
      const uint8_t* w = t.weights;
      for (int64_t c = 0; c < t.channels; c += kChannels, w += block_bytes) {
        const int64_t channels = t.channels - c < kChannels ? t.channels - c : kChannels;
        typename V::Int acc[T][kVectors];
        add_up_depth<V, kFamily, T>(t, x + c * kXBytes, offset, V::part(channels * kXBytes), w,
                                    acc);
        FS_UNROLL
        for (int j = 0; j < T; ++j) {
          if (j >= outputs) break;
          uint8_t* to = y + j * t.y_pixel + c * kYBytes;
          typename V::Float v[kVectors];
          [[maybe_unused]] typename V::Int code[kVectors];
          FS_UNROLL
          for (int q = 0; q < kVectors; ++q) {
            const int64_t at = c + q * V::kLanes;
            v[q] =
                V::fma(V::to_float(acc[j][q]), V::load_float(t.m + at), V::load_float(t.bias + at));
          }
          if constexpr (is_shaped(kOutput)) shape_all<V>(t.shape, v);
          if constexpr (is_fitted(kOutput)) fit_all<V>(t.fitted, v, fires);
          if constexpr (kOutput != kFloats) {
            FS_UNROLL
            for (int q = 0; q < kVectors; ++q)
              code[q] = kOutput == kGraded
                            ? V::graded(v[q], limit)
                            : V::fire(v[q], V::load_float(t.top + c + q * V::kLanes));
          }
          if constexpr (kOutput == kFloats)
            spikes[0] += store_depth_floats<V>(t, to, v, t.top + c, scale, channels);
          else
            V::template store_depth<is_bytes(kOutput), kOutput == kGraded>(
                to, code, channels, t.count && !is_fitted(kOutput) ? spikes : nullptr);
        }
      }
    }
  int64_t total = 0;
  if constexpr (is_fitted(kOutput)) total = V::lane_sum(fires);
  for (const int64_t sum : spikes) total += sum;
  return total;
}

template <class V, int kFamily, int T>
int64_t depth_of(const DepthTask& t) {
  if (t.y_bytes == 4) return depth_rows<V, kFamily, T, kFloats>(t);
  if (t.K == 0) return depth_rows<V, kFamily, T, kGraded>(t);
  if (t.shape.table)
    return t.y_bytes == 1 ? depth_rows<V, kFamily, T, kShapedU8>(t)
                          : depth_rows<V, kFamily, T, kShapedS16>(t);
  if (t.fitted.lines)
    return t.y_bytes == 1 ? depth_rows<V, kFamily, T, kFittedU8>(t)
                          : depth_rows<V, kFamily, T, kFittedS16>(t);
  return t.y_bytes == 1 ? depth_rows<V, kFamily, T, kWordsU8>(t)
                        : depth_rows<V, kFamily, T, kWordsS16>(t);
}

template <class V>
int64_t depth_task(const DepthTask& t) {
  if constexpr (V::kHasU8S8)
    if (t.family == kDepthU8)
      return t.outputs == 2 ? depth_of<V, kDepthU8, 2>(t) : depth_of<V, kDepthU8, 1>(t);
  return t.outputs == 2 ? depth_of<V, kDepthS16, 2>(t) : depth_of<V, kDepthS16, 1>(t);
}

}  // namespace
}  // namespace fskernel
