// The FS convolution, as a template over a vector class V (vec_*.h) and a tile shape. A tile is P
// consecutive output pixels of one output row times N vectors of output channels; its sums stay in
// registers while the k-loop walks over the runs, then `finish` turns them into spike words.
//
//   operands of pixel p   x + p*pixel_stride, one 32-bit operand broadcast at a time
//   weights of the block  [run][dword][N vectors], one sequential stream
//
// Everything here has internal linkage: each instruction set compiles its own copy.
#pragma once

#include "bits.h"

// The loops over a tile's accumulators must be unrolled, or they would not stay in registers. Where
// there are no such registers, FS_NO_UNROLL saves the compiler minutes.
#ifdef FS_NO_UNROLL
#define FS_UNROLL
#else
#define FS_UNROLL _Pragma("GCC unroll 8")
#endif

namespace fskernel {
namespace {

template <class V, int kFamily, bool kPlanes>
FS_INLINE typename V::Int operand(const uint8_t* x, int shift, uint32_t mask) {
  if constexpr (kFamily == kDepthU8 || kFamily == kDepthS16) {
    typename V::Int lanes;
    if constexpr (kFamily == kDepthU8)
      lanes = V::widen_u8(x);
    else
      lanes = V::widen_s16(x);
    if constexpr (kPlanes) lanes = V::shift_mask(lanes, shift, mask);
    return lanes;
  } else {
    uint32_t dword;
    __builtin_memcpy(&dword, x, sizeof dword);
    if constexpr (kPlanes) dword = dword >> shift & mask;
    return V::broadcast(dword);
  }
}

template <class V, int kFamily>
FS_INLINE typename V::Int dot(typename V::Int acc, typename V::Int x, typename V::Int w) {
  if constexpr (kFamily == kU8S8)
    return V::dot_u8s8(acc, x, w);
  else
    return V::dot_s16(acc, x, w);  // depthwise: the upper half of every weight is zero
}

// A mask of `bits` ones in every element of a 32-bit operand.
FS_INLINE uint32_t plane_mask(int family, int bits) {
  const uint32_t ones = (1u << bits) - 1;
  return family == kU8S8 ? ones * 0x01010101u : family == kS16S16 ? ones * 0x00010001u : ones;
}

template <class V, int P, int N, int kFamily, bool kPlanes>
__attribute__((noinline)) void accumulate(const TaskGroup& g, const uint8_t* x, int32_t* sums) {
  typename V::Int acc[P][N];
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) acc[p][n] = V::zero();
  }

  constexpr bool kDepth = kFamily == kDepthU8 || kFamily == kDepthS16;
  constexpr int64_t kVectorX = kFamily == kDepthU8 ? V::kLanes : 2 * V::kLanes;
  // Where accumulators, weights and one operand are more than the registers, the last weight stays
  // in memory: an operand of the instruction.
  constexpr int kHeld = P * N + N + 1 > V::kRegisters ? N - 1 : N;
  const int64_t s = g.pixel_stride;
  for (int plane = kPlanes ? g.plane_groups - 1 : 0; plane >= 0; --plane) {
    const int shift = kPlanes ? plane * g.plane_bits : 0;
    const uint32_t mask = kPlanes ? plane_mask(kFamily, g.plane_bits) : 0;
    if constexpr (kPlanes) {  // Horner; the first shift moves zeros
      FS_UNROLL
      for (int p = 0; p < P; ++p) {
        FS_UNROLL
        for (int n = 0; n < N; ++n) acc[p][n] = V::shift_left(acc[p][n], g.plane_bits);
      }
    }
    const uint8_t* w = g.weights;
    const uint8_t* row = x;
    for (int64_t outer = g.outer_runs; outer > 0; --outer, row += g.outer_step) {
      const uint8_t* start = row;
      for (int64_t inner = g.inner_runs; inner > 0; --inner, start += g.inner_step) {
        const uint8_t* run = start;
        for (int64_t i = g.dwords; i > 0; --i, run += 4, w += 4 * V::kLanes * N) {
          typename V::Int weight[N];
          FS_UNROLL
          for (int n = 0; n < kHeld; ++n) weight[n] = V::load(w + 4 * V::kLanes * n);
          FS_UNROLL
          for (int p = 0; p < P; ++p) {
            typename V::Int value;
            if constexpr (!kDepth) value = operand<V, kFamily, kPlanes>(run + p * s, shift, mask);
            FS_UNROLL
            for (int n = 0; n < N; ++n) {
              if constexpr (kDepth)
                value = operand<V, kFamily, kPlanes>(run + p * s + n * kVectorX, shift, mask);
              if (n < kHeld) {
                acc[p][n] = dot<V, kFamily>(acc[p][n], value, weight[n]);
              } else {
                const uint8_t* last = w + 4 * V::kLanes * n;
                asm volatile("" : "+r"(last));  // else it would be kept, and something else spilled
                acc[p][n] = dot<V, kFamily>(acc[p][n], value, V::load(last));
              }
            }
          }
        }
      }
    }
  }
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) V::store(sums + (p * N + n) * V::kLanes, acc[p][n]);
  }
}

using Accumulate = void (*)(const TaskGroup&, const uint8_t*, int32_t*);

// The instance for p pixels and n vectors, found among those of at most P and N.
template <class V, int kMaxN, int kFamily, bool kPlanes, int P, int N = kMaxN>
Accumulate instance(int p, int n) {
  if (p == P && n == N) return &accumulate<V, P, N, kFamily, kPlanes>;
  if constexpr (N > 1)
    return instance<V, kMaxN, kFamily, kPlanes, P, N - 1>(p, n);
  else if constexpr (P > 1)
    return instance<V, kMaxN, kFamily, kPlanes, P - 1>(p, n);
  else
    return nullptr;
}

template <class V, int kMaxP, int kMaxN>
Accumulate instance(const TaskGroup& g, int p, int n) {
  const bool planes = g.plane_groups > 1;
  if constexpr (V::kHasU8S8)
    if (g.family == kU8S8)
      return planes ? instance<V, kMaxN, kU8S8, true, kMaxP>(p, n)
                    : instance<V, kMaxN, kU8S8, false, kMaxP>(p, n);
  if (g.family == kS16S16)
    return planes ? instance<V, kMaxN, kS16S16, true, kMaxP>(p, n)
                  : instance<V, kMaxN, kS16S16, false, kMaxP>(p, n);
  if (g.family == kDepthU8)
    return planes ? instance<V, kMaxN, kDepthU8, true, kMaxP>(p, n)
                  : instance<V, kMaxN, kDepthU8, false, kMaxP>(p, n);
  return planes ? instance<V, kMaxN, kDepthS16, true, kMaxP>(p, n)
                : instance<V, kMaxN, kDepthS16, false, kMaxP>(p, n);
}

enum Output { kWordsU8, kWordsS16, kGraded };

// The sums of a tile, and where its first pixel lies in the output, in elements.
struct Tile {
  const int32_t* sums;
  const int32_t* sums2;     // second synapse group, or null
  int64_t stride, stride2;  // int32 between pixels
  int64_t at;
  int pixels;
};

// What one vector of channels of one pixel needs for item 4 of the contract.
struct Membrane {
  const float *m, *m2, *bias;
  float residual_scale;
  int64_t residual_bytes;
};

// v = fma(acc, m, bias), fma(acc2, m2, v), fma(x_res, r, v), then the neuron or the graded output.
template <class V, int kOutput, bool kExtra>
FS_INLINE typename V::Int membrane_to_code(const Membrane& k, const int32_t* sums,
                                           const int32_t* sums2, const uint8_t* residual,
                                           int64_t channel, typename V::Float top) {
  typename V::Float v = V::fma(V::to_float(V::load(sums)), V::load_float(k.m + channel),
                               V::load_float(k.bias + channel));
  if constexpr (kExtra) {
    if (sums2) v = V::fma(V::to_float(V::load(sums2)), V::load_float(k.m2 + channel), v);
    if (residual)
      v = V::fma(
          V::to_float(k.residual_bytes == 1 ? V::widen_u8(residual) : V::widen_s16(residual)),
          V::splat(k.residual_scale), v);
  }
  if constexpr (kOutput == kGraded)
    return V::graded(v, top);
  else
    return V::fire(v, top);
}

template <class V, int kOutput, bool kExtra>
__attribute__((noinline)) int64_t finish(const ConvTask& t, const Tile& tile) {
  constexpr int64_t kBytes = kOutput == kWordsU8 ? 1 : 2;
  // Copies: a store through uint8_t* might, for all the compiler knows, change the task.
  const Membrane k = {t.group[0].m, t.group[1].m, t.bias, t.residual_scale, t.residual_bytes};
  const int64_t whole = t.channels / V::kLanes * V::kLanes, tail = t.channels - whole;
  const int64_t bytes = t.channels * kBytes, y_stride = t.y_stride;
  const int32_t *sums = tile.sums, *sums2 = kExtra ? tile.sums2 : nullptr;
  const int64_t stride = tile.stride, stride2 = tile.stride2;
  const uint8_t* residual =
      kExtra && t.residual ? t.residual + tile.at * k.residual_bytes : nullptr;
  uint8_t* y = t.y + tile.at * kBytes;
  const typename V::Float top =
      V::splat(static_cast<float>(kOutput == kGraded ? t.limit : (1 << t.K) - 1));
  int64_t spikes = 0;
  for (int p = tile.pixels; p > 0; --p) {
    for (int64_t c = 0; c < whole; c += V::kLanes) {
      const typename V::Int code = membrane_to_code<V, kOutput, kExtra>(
          k, sums + c, sums2 ? sums2 + c : nullptr,
          residual ? residual + c * k.residual_bytes : nullptr, c, top);
      if constexpr (kBytes == 1)
        V::store_u8(y + c, code);
      else
        V::store_s16(y + 2 * c, code);
    }
    if (tail) {  // the last vector is partly filled: neither read nor write beyond the channels
      alignas(64) uint8_t in[2 * V::kLanes] = {}, out[2 * V::kLanes];
      if (residual)
        __builtin_memcpy(in, residual + whole * k.residual_bytes, tail * k.residual_bytes);
      const typename V::Int code = membrane_to_code<V, kOutput, kExtra>(
          k, sums + whole, sums2 ? sums2 + whole : nullptr, residual ? in : nullptr, whole, top);
      if constexpr (kBytes == 1)
        V::store_u8(out, code);
      else
        V::store_s16(out, code);
      __builtin_memcpy(y + whole * kBytes, out, tail * kBytes);
    }
    if constexpr (kOutput != kGraded) spikes += count_bits(y, bytes);
    y += y_stride * kBytes;
    sums += stride;
    if (sums2) sums2 += stride2;
    if (residual) residual += y_stride * k.residual_bytes;
  }
  return spikes;
}

using Finish = int64_t (*)(const ConvTask&, const Tile&);

template <class V>
Finish finish_for(const ConvTask& t) {
  const bool extra = t.group_count > 1 || t.sums2 || t.residual;
  if (t.K == 0) return extra ? &finish<V, kGraded, true> : &finish<V, kGraded, false>;
  if (t.K <= 8) return extra ? &finish<V, kWordsU8, true> : &finish<V, kWordsU8, false>;
  return extra ? &finish<V, kWordsS16, true> : &finish<V, kWordsS16, false>;
}

// The sums of one tile of one part, then its codes (or, for t.raw, just the sums).
template <class V, int kMaxP, int kMaxN>
FS_INLINE int64_t run_tile(const ConvTask& t, Accumulate first, Accumulate second, Finish done,
                           int64_t row, int64_t col, int pixels) {
  alignas(64) int32_t sums[kMaxP * kMaxN * V::kLanes], sums2[kMaxP * kMaxN * V::kLanes];
  const TaskGroup& g = t.group[0];
  first(g, g.x + row * g.row_stride + col * g.pixel_stride, sums);
  const int64_t stride = t.vectors * V::kLanes, pixel = row * t.cols + col;
  Tile tile = {sums, nullptr, stride, stride, pixel * t.y_stride, pixels};
  if (t.raw) {
    for (int p = 0; p < pixels; ++p)
      __builtin_memcpy(t.raw + tile.at + p * t.y_stride, sums + p * stride, 4 * t.channels);
    return 0;
  }
  if (second) {
    const TaskGroup& h = t.group[1];
    second(h, h.x + row * h.row_stride + col * h.pixel_stride, sums2);
    tile.sums2 = sums2;
  } else if (t.sums2) {
    tile.sums2 = t.sums2 + pixel * t.sums2_stride;
    tile.stride2 = t.sums2_stride;
  }
  return done(t, tile);
}

template <class V, int kMaxP, int kMaxN>
int64_t conv_task(const ConvTask* part, int32_t parts) {
  const ConvTask& t = part[0];  // rows and pixels are the same for all parts
  Accumulate first[kMaxParts][kMaxP], second[kMaxParts][kMaxP];
  for (int32_t i = 0; i < parts; ++i)
    for (int p = 1; p <= kMaxP; ++p) {
      first[i][p - 1] = instance<V, kMaxP, kMaxN>(part[i].group[0], p, part[i].vectors);
      second[i][p - 1] = t.group_count < 2
                             ? nullptr
                             : instance<V, kMaxP, kMaxN>(part[i].group[1], p, part[i].vectors);
    }
  const Finish done = finish_for<V>(t);
  int64_t spikes = 0;
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    const int64_t left = t.pixels - row * t.cols, cols = left < t.cols ? left : t.cols;
    const int64_t tiles = (cols + kMaxP - 1) / kMaxP;
    for (int64_t i = 0; i < tiles; ++i) {  // tiles of a row differ by at most one pixel
      const int64_t col = cols * i / tiles;
      const int pixels = static_cast<int>(cols * (i + 1) / tiles - col);
      for (int32_t j = 0; j < parts; ++j)
        spikes += run_tile<V, kMaxP, kMaxN>(part[j], first[j][pixels - 1], second[j][pixels - 1],
                                            done, row, col, pixels);
    }
  }
  return spikes;
}

}  // namespace
}  // namespace fskernel
