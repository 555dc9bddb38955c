// The FS convolution over a vector class V (../isa/vec_*.h) and a tile of at most kMaxP pixels x
// kMaxN vectors of channels. Whole tiles of the two dense families never leave the registers
// between the first product and the spike word; what is rarer (ragged channels, depthwise, plane
// groups, mixed residuals) takes its sums through a small tile in the first cache level.
#pragma once

#include "conv_finish.h"
#include "conv_sums.h"

namespace fskernel {
namespace {

// Spikes are added to kSpikeSums numbers, whose sum is the count.
constexpr int kSpikeSums = 8;

template <class V, int P, int N, int kFamily, int kOutput, int kExtra>
__attribute__((noinline)) void fused(const ConvTask& t, const uint8_t* x, Ahead ahead,
                                     const Tile& tile, int64_t* total) {
  if constexpr (kExtra == kResidual) {  // of the next tile but one, too far apart to be foreseen
    FS_UNROLL
    for (int p = 0; p < P; ++p) __builtin_prefetch(tile.residual + (2 * P + p) * t.residual_pixel);
  }
  typename V::Int acc[P][N];
  add_up<V, P, N, kFamily, false>(t.group[0], x, ahead, acc);
  const Rule<V> rule = rule_of<V>(t);
  const int64_t y_pixel = t.y_pixel, residual_pixel = t.residual_pixel;
  const int64_t sums2_pixel = tile.sums2_pixel;
  uint8_t* y = tile.y;
  const uint8_t *residual = tile.residual, *sums2 = reinterpret_cast<const uint8_t*>(tile.sums2);
  constexpr bool kVectors = V::kCountsVectors && kOutput != kGraded && kOutput != kFloats;
  constexpr int kPer = is_bytes(kOutput) ? N / 4 : N / 2;  // vectors of words in a pixel
  typename V::Int word[kVectors ? P * kPer : 1];
  int64_t spikes = 0;
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    [[maybe_unused]] typename V::Int code[N];
    if constexpr (kOutput != kFloats)
      codes_of<V, kOutput, kExtra>(rule, acc[p], reinterpret_cast<const int32_t*>(sums2), residual,
                                   code);
    if constexpr (kOutput == kFloats) {
      typename V::Float v[N];
      FS_UNROLL
      for (int n = 0; n < N; ++n) v[n] = potential(rule, n, acc[p][n]);
      spikes += store_floats(rule, y, v);
    } else if constexpr (!kVectors) {
      spikes += store_and_count<V, kOutput>(y, code);
    } else if constexpr (is_bytes(kOutput)) {
      V::store(y, word[p] = V::pack_u8(code));
    } else {
      FS_UNROLL
      for (int i = 0; i < kPer; ++i)
        V::store(y + 4 * V::kLanes * i,
                 word[p * kPer + i] = V::pack_u16(code[2 * i], code[2 * i + 1]));
    }
    y += y_pixel;
    if (kExtra == kResidual) residual += residual_pixel;
    if (kExtra == kSecond) sums2 += sums2_pixel;
  }
  if constexpr (kVectors) {
    if (t.count) V::add_spikes(word, total);
  } else {
    *total += spikes;
  }
}

// The same for a block of fewer vectors of channels, of which the last may be partly filled: every
// pixel's words are stored up to its last channel. Bytes, graded values or floats.
template <class V, int P, int N, int kFamily, int kOutput, int kExtra>
__attribute__((noinline)) void narrow(const ConvTask& t, const uint8_t* x, Ahead ahead,
                                      const Tile& tile, int64_t* total) {
  constexpr int64_t kBytes = is_bytes(kOutput) ? 1 : 2;
  typename V::Int acc[P][N];
  add_up<V, P, N, kFamily, false>(t.group[0], x, ahead, acc);
  const Rule<V> rule = rule_of<V>(t);
  const int64_t y_pixel = t.y_pixel, residual_pixel = t.residual_pixel;
  const int64_t channels = t.channels;
  const bool count = t.count && kOutput != kGraded;
  uint8_t* y = tile.y;
  const uint8_t* residual = tile.residual;
  if constexpr (kOutput == kFloats) {
    int64_t spikes = 0;
    FS_UNROLL
    for (int p = 0; p < P; ++p, y += y_pixel) {
      typename V::Float v[N];
      FS_UNROLL
      for (int n = 0; n < N; ++n) v[n] = potential(rule, n, acc[p][n]);
      spikes += store_part_floats(rule, y, v, channels);
    }
    *total += spikes;
    return;
  }
  // All residuals are read before anything is stored: a masked store in place would hold up reading
  // the pixel behind it.
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    if constexpr (is_shaped(kOutput)) {
      codes_of<V, kOutput, kNone>(rule, acc[p], nullptr, nullptr, acc[p]);
      continue;
    }
    FS_UNROLL
    for (int n = 0; n < N; ++n) {
      typename V::Float v = potential(rule, n, acc[p][n]);
      if constexpr (kExtra == kResidual) {
        const uint8_t* at = residual + n * V::kLanes * kBytes;
        const int64_t lanes = channels - n * V::kLanes;
        v = V::fma(V::to_float(V::template widen_part<kBytes>(at, lanes)), rule.residual_scale, v);
      }
      acc[p][n] = fired<V, kOutput>(rule, n, v);
    }
    if (kExtra == kResidual) residual += residual_pixel;
  }
  typename V::Int word[is_bytes(kOutput) ? P : 1];
  FS_UNROLL
  for (int p = 0; p < P; ++p, y += y_pixel) {
    if constexpr (is_bytes(kOutput))
      word[p] = V::store_part_u8(y, acc[p], channels);
    else
      V::store_part_s16(y, acc[p], channels);
  }
  if constexpr (is_bytes(kOutput))
    if (count) V::add_spikes(word, total);
}

using Fused = void (*)(const ConvTask&, const uint8_t*, Ahead, const Tile&, int64_t* spikes);

template <class V, int N, int kFamily, int kOutput, int kExtra, int P>
Fused fused_of(int p) {
  if (p == P) return &fused<V, P, N, kFamily, kOutput, kExtra>;
  if constexpr (P > 1 && FS_FUSE_RAGGED)
    return fused_of<V, N, kFamily, kOutput, kExtra, P - 1>(p);
  else
    return nullptr;
}

template <class V, int N, int kFamily, int kOutput, int P>
Fused fused_of(const ConvTask& t, bool second, int p) {
  if constexpr (kOutput == kFloats || is_shaped(kOutput))
    return fused_of<V, N, kFamily, kOutput, kNone, P>(p);
  if (second) return fused_of<V, N, kFamily, kOutput, kSecond, P>(p);
  if (t.residual) return fused_of<V, N, kFamily, kOutput, kResidual, P>(p);
  return fused_of<V, N, kFamily, kOutput, kNone, P>(p);
}

template <class V, int N, int kFamily, int P>
Fused fused_of(const ConvTask& t, bool second, int p) {
  if (t.y_bytes == 4) return fused_of<V, N, kFamily, kFloats, P>(t, second, p);
  if (t.K == 0) return fused_of<V, N, kFamily, kGraded, P>(t, second, p);
  if (t.shape.table) {
    if constexpr (V::kSaturates)
      if (t.y_bytes == 1 && t.saturates)
        return fused_of<V, N, kFamily, kShapedU8Full, P>(t, second, p);
    return t.y_bytes == 1 ? fused_of<V, N, kFamily, kShapedU8, P>(t, second, p)
                          : fused_of<V, N, kFamily, kShapedS16, P>(t, second, p);
  }
  if constexpr (V::kSaturates)
    if (t.y_bytes == 1 && t.saturates)
      return fused_of<V, N, kFamily, kWordsU8Full, P>(t, second, p);
  return t.y_bytes == 1 ? fused_of<V, N, kFamily, kWordsU8, P>(t, second, p)
                        : fused_of<V, N, kFamily, kWordsS16, P>(t, second, p);
}

// Instances of `narrow` for tiles of kLow to P pixels.
template <class V, int N, int kLow, int P>
Fused narrow_of(const ConvTask& t, int p) {
  if (p == P) {
    if (t.group[0].family == kU8S8) {
      if (t.y_bytes == 4) return &narrow<V, P, N, kU8S8, kFloats, kNone>;
      if (t.K == 0)
        return t.residual ? &narrow<V, P, N, kU8S8, kGraded, kResidual>
                          : &narrow<V, P, N, kU8S8, kGraded, kNone>;
      if (t.shape.table) return &narrow<V, P, N, kU8S8, kShapedU8, kNone>;
      return t.residual ? &narrow<V, P, N, kU8S8, kWordsU8, kResidual>
                        : &narrow<V, P, N, kU8S8, kWordsU8, kNone>;
    }
    if (t.y_bytes == 4) return &narrow<V, P, N, kS16S16, kFloats, kNone>;
    if (t.K == 0)
      return t.residual ? &narrow<V, P, N, kS16S16, kGraded, kResidual>
                        : &narrow<V, P, N, kS16S16, kGraded, kNone>;
    if (t.shape.table) return &narrow<V, P, N, kS16S16, kShapedU8, kNone>;
    return t.residual ? &narrow<V, P, N, kS16S16, kWordsU8, kResidual>
                      : &narrow<V, P, N, kS16S16, kWordsU8, kNone>;
  }
  if constexpr (P > kLow)
    return narrow_of<V, N, kLow, P - 1>(t, p);
  else
    return nullptr;
}

// Pixels of a tile of n vectors of channels: fewer vectors leave registers for more pixels. Where
// they may be more than those of whole blocks, rows are cut into tiles of at least half of that.
template <class V>
constexpr int wide_pixels(int n) {
  return V::kNarrowPixels && n <= 2 ? V::kNarrowPixels : 0;
}

template <class V, int kMaxP, int N>
Fused narrow_of(const ConvTask& t, int p) {
  constexpr int kWide = wide_pixels<V>(N);
  if constexpr (kWide > 0)
    return narrow_of<V, N, kWide / 2, kWide>(t, p);
  else
    return narrow_of<V, N, (kMaxP + 1) / 2, kMaxP>(t, p);
}

template <class V, int kMaxP, int N>
Fused narrow_for(const ConvTask& t, int p) {
  if (t.vectors == N) return narrow_of<V, kMaxP, N>(t, p);
  if constexpr (N > 1)
    return narrow_for<V, kMaxP, N - 1>(t, p);
  else
    return nullptr;
}

// The fused instance for tiles of p pixels, or null where the sums go through memory.
template <class V, int kMaxP, int kMaxN>
Fused fused_for(const ConvTask& t, int p) {
  const TaskGroup& g = t.group[0];
  const bool second = t.group_count > 1 || t.sums2;
  const bool floats = t.y_bytes == 4;
  const bool alone = floats || t.shape.table;  // instances with one synapse group and no residual
  if (t.raw || g.plane_groups > 1 || t.shape.row || t.fitted.lines ||
      (alone && (second || t.residual)))
    return nullptr;
  if constexpr (V::kNarrowPixels > 0)
    if (t.vectors < kMaxN && !second && (t.y_bytes == 1 || t.K == 0 || floats) &&
        (!t.residual || t.residual_bytes == t.y_bytes) &&
        (g.family == kU8S8 || g.family == kS16S16))
      return narrow_for<V, kMaxP, kMaxN - 1>(t, p);
  if (p > kMaxP || t.vectors != kMaxN || t.channels != kMaxN * V::kLanes) return nullptr;
  if (t.residual && (second || t.residual_bytes != t.y_bytes)) return nullptr;
  if constexpr (V::kHasU8S8)
    if (g.family == kU8S8) return fused_of<V, kMaxN, kU8S8, kMaxP>(t, second, p);
  return g.family == kS16S16 ? fused_of<V, kMaxN, kS16S16, kMaxP>(t, second, p) : nullptr;
}

// Widest tile of any block.
template <class V, int kMaxP>
constexpr int widest() {
  return V::kNarrowPixels > kMaxP ? V::kNarrowPixels : kMaxP;
}

// How one block of output channels is computed, for each width of a tile.
template <class V, int kMaxP>
struct Part {
  Fused fused[widest<V, kMaxP>()];
  Accumulate first[kMaxP], second[kMaxP];
  Finish finish;
};

template <class V, int kMaxP, int kMaxN>
Part<V, kMaxP> part_of(const ConvTask& t) {
  Part<V, kMaxP> part;
  for (int p = 1; p <= widest<V, kMaxP>(); ++p)
    part.fused[p - 1] = fused_for<V, kMaxP, kMaxN>(t, p);
  for (int p = 1; p <= kMaxP; ++p) {
    part.first[p - 1] = instance<V, kMaxP, kMaxN>(t.group[0], p, t.vectors);
    part.second[p - 1] =
        t.group_count > 1 ? instance<V, kMaxP, kMaxN>(t.group[1], p, t.vectors) : nullptr;
  }
  part.finish = finish_for<V, kMaxN>(t, t.vectors);
  return part;
}

// Operands of one output pixel.
inline int64_t operands(const TaskGroup& g) {
  return g.plane_groups * g.outer_runs * g.inner_runs * g.dwords;
}

// What a tile of these pixels, with its sums in memory, becomes.
inline Tile tile_at(const ConvTask& t, int64_t row, int64_t col, int pixels, const int32_t* sums) {
  Tile tile = {sums, nullptr, 0, nullptr, t.y + row * t.y_row + col * t.y_pixel, pixels};
  if (t.residual) tile.residual = t.residual + row * t.residual_row + col * t.residual_pixel;
  if (t.sums2) {
    const auto* from = reinterpret_cast<const uint8_t*>(t.sums2);
    tile.sums2 = reinterpret_cast<const int32_t*>(from + row * t.sums2_row + col * t.sums2_pixel);
    tile.sums2_pixel = t.sums2_pixel;
  }
  return tile;
}

// From the sums in memory to the output.
template <class V, int kMaxP>
FS_INLINE void leave(const ConvTask& t, const Part<V, kMaxP>& part, const Tile& tile,
                     int64_t* spikes) {
  if (!t.raw) return part.finish(t, tile, spikes);
  for (int p = 0; p < tile.pixels; ++p)
    __builtin_memcpy(tile.y + p * t.y_pixel, tile.sums + p * t.vectors * V::kLanes, 4 * t.channels);
}

template <class V, int kMaxP, int kMaxN>
FS_INLINE void run_tile(const ConvTask& t, const Part<V, kMaxP>& part, Ahead ahead, int64_t row,
                        int64_t col, int pixels, int64_t* spikes) {
  alignas(64) int32_t sums[kMaxP * kMaxN * V::kLanes], sums2[kMaxP * kMaxN * V::kLanes];
  const TaskGroup &g = t.group[0], &h = t.group[1];
  const uint8_t* x = g.x + row * g.row_stride + col * g.pixel_stride;
  Tile tile = tile_at(t, row, col, pixels, sums);
  // First, because the fused kernel keeps nothing but group 0.
  if (pixels <= kMaxP && part.second[pixels - 1]) {
    part.second[pixels - 1](h, h.x + row * h.row_stride + col * h.pixel_stride, ahead, sums2);
    ahead.at += operands(h) * ahead.step;
    tile.sums2 = sums2;
    tile.sums2_pixel = 4 * t.vectors * V::kLanes;
  }
  if (part.fused[pixels - 1]) return part.fused[pixels - 1](t, x, ahead, tile, spikes);
  part.first[pixels - 1](g, x, ahead, sums);
  leave<V>(t, part, tile, spikes);
}

// Weights of a block that stay in the second cache level while tile after tile uses them.
constexpr int64_t kSliceBytes = 256 << 10;
constexpr int kSlicedTiles = 8;  // whose sums wait in memory

template <class V>
inline int64_t operand_bytes(const ConvTask& t) {
  return 4 * V::kLanes * t.vectors;
}

// Whether the weights of a block are so many that every tile would fetch all of them from afar.
template <class V, int kMaxP>
bool is_sliced(const ConvTask& t) {
  const TaskGroup& g = t.group[0];
  return t.group_count == 1 && g.plane_groups == 1 && g.outer_runs * g.inner_runs == 1 &&
         g.dwords * operand_bytes<V>(t) > 2 * kSliceBytes && t.pixels > kMaxP;
}

// A row of pixels, a stretch of tiles at a time: every slice of the weights for all of them.
template <class V, int kMaxP, int kMaxN>
void run_sliced(const ConvTask& t, const Part<V, kMaxP>& part, int64_t row, int64_t cols,
                int64_t* spikes) {
  constexpr int kTileSums = kMaxP * kMaxN * V::kLanes;
  alignas(64) int32_t sums[kSlicedTiles * kTileSums];
  const TaskGroup& g = t.group[0];
  const int64_t bytes = operand_bytes<V>(t), slice = kSliceBytes / bytes;
  for (int64_t begin = 0; begin < cols; begin += kSlicedTiles * kMaxP) {
    const int64_t left = cols - begin;
    const int64_t n = left < kSlicedTiles * kMaxP ? left : kSlicedTiles * kMaxP;
    const int64_t tiles = (n + kMaxP - 1) / kMaxP;
    const auto column = [&](int64_t i) { return begin + n * i / tiles; };
    for (int64_t k = 0; k < g.dwords; k += slice) {
      TaskGroup s = g;
      s.x += 4 * k;
      s.weights += k * bytes;
      s.dwords = g.dwords - k < slice ? g.dwords - k : slice;
      s.adds = k > 0;
      Ahead next = {s.weights + s.dwords * bytes, (bytes + tiles - 1) / tiles};
      for (int64_t i = 0; i < tiles; ++i, next.at += s.dwords * next.step) {
        const uint8_t* x = s.x + row * g.row_stride + column(i) * g.pixel_stride;
        part.first[column(i + 1) - column(i) - 1](s, x, next, sums + i * kTileSums);
      }
    }
    for (int64_t i = 0; i < tiles; ++i) {
      const int pixels = static_cast<int>(column(i + 1) - column(i));
      leave<V>(t, part, tile_at(t, row, column(i), pixels, sums + i * kTileSums), spikes);
    }
  }
}

// Where nothing is left to fetch, the same line of weights is fetched again and again.
inline Ahead next_stretch(const ConvTask& t, int stretch, int64_t step) {
  if (stretch < 2 && t.ahead[stretch].bytes) return {t.ahead[stretch].at, step};
  return {t.group[0].weights, 0};
}

template <class V, int kMaxP, int kMaxN>
int64_t conv_task(const ConvTask* task, int32_t parts) {
  const ConvTask& t = task[0];  // rows and pixels are the same for all parts
  Part<V, kMaxP> part[kMaxParts];
  int64_t width = widest<V, kMaxP>();  // the widest tile that every part has an instance for
  for (int32_t i = 0; i < parts; ++i) {
    part[i] = part_of<V, kMaxP, kMaxN>(task[i]);
    if (!part[i].fused[width - 1]) width = kMaxP;
  }
  const int64_t steps = operands(t.group[0]) + (t.group_count > 1 ? operands(t.group[1]) : 0);
  const int64_t tiles = (t.cols + width - 1) / width;
  const int64_t all = steps * tiles * (t.row_end - t.row_begin) * parts;
  // A step of at most a cache line: what takes longer steps than that is not worth the bandwidth.
  const int64_t wanted = t.ahead[0].bytes + t.ahead[1].bytes;
  const int64_t step = wanted >= 64 * all ? 64 : (wanted + all - 1) / all;
  int stretch = t.ahead[0].bytes ? 0 : 1;
  Ahead ahead = next_stretch(t, stretch, step);
  const bool sliced = is_sliced<V, kMaxP>(t);
  alignas(64) int64_t spikes[kSpikeSums] = {};
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    const int64_t left = t.pixels - row * t.cols, cols = left < t.cols ? left : t.cols;
    if (sliced) {
      for (int32_t j = 0; j < parts; ++j)
        run_sliced<V, kMaxP, kMaxN>(task[j], part[j], row, cols, spikes);
      continue;
    }
    const int64_t row_tiles = (cols + width - 1) / width;
    for (int64_t i = 0; i < row_tiles; ++i) {  // tiles of a row differ by at most one pixel
      const int64_t col = cols * i / row_tiles;
      const int pixels = static_cast<int>(cols * (i + 1) / row_tiles - col);
      for (int32_t j = 0; j < parts; ++j) {
        run_tile<V, kMaxP, kMaxN>(task[j], part[j], ahead, row, col, pixels, spikes);
        ahead.at += steps * ahead.step;
        if (ahead.step && ahead.at >= t.ahead[stretch].at + t.ahead[stretch].bytes)
          ahead = next_stretch(t, ++stretch, step);
      }
    }
  }
  int64_t total = 0;
  for (const int64_t sum : spikes) total += sum;
  return total;
}

}  // namespace
}  // namespace fskernel
