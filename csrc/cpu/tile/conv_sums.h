// The k-loop: sums of a tile of P consecutive output pixels of one row times N vectors of output
// channels, kept in registers while it walks over the runs.
//
//   operands of pixel p   x + p*pixel_stride, one 32-bit operand broadcast at a time
//   weights of the block  [run][dword][N vectors], one sequential stream
//
// Everything here has internal linkage: each instruction set compiles its own copy.
#pragma once

#include "bits.h"

// The loops over a tile's accumulators must be unrolled, or they would not stay in registers. Where
// there are no such registers, FS_NO_UNROLL saves the compiler minutes, also by fusing whole tiles
// only.
#ifdef FS_NO_UNROLL
#define FS_UNROLL
#define FS_FUSE_RAGGED false
#else
#define FS_UNROLL _Pragma("GCC unroll 16")
#define FS_FUSE_RAGGED true
#endif

namespace fskernel {
namespace {

// Weights of the next block or layer, fetched into the second cache level while this tile computes:
// `step` bytes further with every operand, so that the fetches spread evenly over the work.
struct Ahead {
  const uint8_t* at;
  int64_t step;
};

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
FS_INLINE void add_up(const TaskGroup& g, const uint8_t* x, Ahead ahead,
                      typename V::Int (&acc)[P][N]) {
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
          __builtin_prefetch(ahead.at, 0, 2);
          ahead.at += ahead.step;
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
    for (int n = 0; n < N; ++n) V::renew(acc[p][n]);
  }
}

// The same, with the sums left in memory, [P][N][lane], or added to those that are there.
template <class V, int P, int N, int kFamily, bool kPlanes>
__attribute__((noinline)) void accumulate(const TaskGroup& g, const uint8_t* x, Ahead ahead,
                                          int32_t* sums) {
  typename V::Int acc[P][N];
  add_up<V, P, N, kFamily, kPlanes>(g, x, ahead, acc);
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) {
      int32_t* to = sums + (p * N + n) * V::kLanes;
      V::store(to, g.adds ? V::add(acc[p][n], V::load(to)) : acc[p][n]);
    }
  }
}

template <class V, int P, int N, int kFamily>
__attribute__((noinline)) int64_t peak_of(int64_t rounds) {
  volatile uint32_t one = 1;  // known to nobody: nothing is computed beforehand, or only once
  typename V::Int acc[P][N];
  const typename V::Int weight = V::broadcast(one);
  typename V::Int x = V::broadcast(one);
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) acc[p][n] = V::broadcast(one);
  }
  for (int64_t i = rounds; i > 0; --i) {
    FS_UNROLL
    for (int p = 0; p < P; ++p) {
      FS_UNROLL
      for (int n = 0; n < N; ++n) {
        V::renew(x);  // else a product that takes two instructions would lose the first
        acc[p][n] = dot<V, kFamily>(acc[p][n], x, weight);
      }
    }
    asm volatile("" ::: "memory");
  }
  int32_t sink[V::kLanes];
  FS_UNROLL
  for (int p = 0; p < P; ++p) {
    FS_UNROLL
    for (int n = 0; n < N; ++n) {
      V::store(sink, acc[p][n]);
      asm volatile("" ::"r"(sink) : "memory");
    }
  }
  return rounds * P * N * V::kLanes * (kFamily == kU8S8 ? 4 : 2);
}

template <class V, int P, int N>
int64_t peak(int32_t family, int64_t rounds) {
  if constexpr (V::kHasU8S8)
    if (family == kU8S8) return peak_of<V, P, N, kU8S8>(rounds);
  return family == kS16S16 ? peak_of<V, P, N, kS16S16>(rounds) : 0;
}

using Accumulate = void (*)(const TaskGroup&, const uint8_t*, Ahead, int32_t*);

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

}  // namespace
}  // namespace fskernel
