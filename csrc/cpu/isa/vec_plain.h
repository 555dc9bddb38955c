// The vector operations in plain C++, for any number of lanes: what the portable kernel runs on,
// and, with 16 lanes, what stands in for AVX-512 where the machine has none.
#pragma once

#include "../../neuron.h"
#include "../tasks.h"
#include "../tile/bits.h"

namespace fskernel {
namespace {

template <int kLaneCount, bool kWithU8S8>
struct Plain {
  static constexpr int kLanes = kLaneCount, kWideLanes = kLaneCount / 2;
  static constexpr int kRegisters = 1 << 20;  // memory, as much as it takes
  static constexpr bool kHasU8S8 = kWithU8S8, kCountsVectors = false, kSaturates = false;
  static constexpr EventCosts kEventCosts = {60, 60, 3, 1};  // estimated, not measured
  // Pixels of a tile of one or two vectors of channels; 0: as of whole blocks, and blocks that are
  // not whole take their sums through memory.
  static constexpr int kNarrowPixels = kLaneCount == 16 ? 14 : 0;
  struct Int {
    int32_t lane[kLanes];
  };
  struct Float {
    float lane[kLanes];
  };
  struct Wide {
    int64_t lane[kWideLanes];
  };

  template <class Result, class Function>
  static inline Result each(Function f) {
    Result r;
    for (int i = 0; i < kLanes; ++i) r.lane[i] = f(i);
    return r;
  }
  // Signed overflow is undefined in C++; the contract's sums wrap.
  static inline int32_t wrap(uint32_t v) { return static_cast<int32_t>(v); }

  static inline void renew(Int&) {}
  static inline Int zero() { return {}; }
  static inline Int load(const void* p) {
    Int r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static inline void store(void* p, Int v) { __builtin_memcpy(p, &v, sizeof v); }
  static inline Int broadcast(uint32_t v) {
    return each<Int>([&](int) { return wrap(v); });
  }
  static inline Int dot_u8s8(Int acc, Int x, Int w) {
    const uint8_t* a = reinterpret_cast<const uint8_t*>(&x);
    const int8_t* b = reinterpret_cast<const int8_t*>(&w);
    return each<Int>([&](int i) {
      const int32_t sum = a[4 * i] * b[4 * i] + a[4 * i + 1] * b[4 * i + 1] +
                          a[4 * i + 2] * b[4 * i + 2] + a[4 * i + 3] * b[4 * i + 3];
      return wrap(static_cast<uint32_t>(acc.lane[i]) + static_cast<uint32_t>(sum));
    });
  }
  static inline Int dot_s16(Int acc, Int x, Int w) {
    return each<Int>([&](int i) {
      const int32_t low = static_cast<int16_t>(x.lane[i]) * static_cast<int16_t>(w.lane[i]);
      const int32_t high = (x.lane[i] >> 16) * (w.lane[i] >> 16);
      return wrap(static_cast<uint32_t>(acc.lane[i]) + static_cast<uint32_t>(low) +
                  static_cast<uint32_t>(high));
    });
  }
  static inline Int add(Int a, Int b) {
    return each<Int>([&](int i) {
      return wrap(static_cast<uint32_t>(a.lane[i]) + static_cast<uint32_t>(b.lane[i]));
    });
  }
  static inline Int multiply(Int a, Int b) {
    return each<Int>([&](int i) {
      return wrap(static_cast<uint32_t>(a.lane[i]) * static_cast<uint32_t>(b.lane[i]));
    });
  }
  template <class T>
  static inline Int larger(Int a, Int b) {
    T x[sizeof a / sizeof(T)], y[sizeof a / sizeof(T)];
    __builtin_memcpy(x, &a, sizeof a);
    __builtin_memcpy(y, &b, sizeof a);
    for (unsigned i = 0; i < sizeof a / sizeof(T); ++i) x[i] = x[i] > y[i] ? x[i] : y[i];
    return load(x);
  }
  static inline Int add_s16(Int a, Int b) {
    uint16_t x[sizeof a / 2], y[sizeof a / 2];
    __builtin_memcpy(x, &a, sizeof a);
    __builtin_memcpy(y, &b, sizeof a);
    for (unsigned i = 0; i < sizeof a / 2; ++i) x[i] = static_cast<uint16_t>(x[i] + y[i]);
    return load(x);
  }
  static inline Int max_s32(Int a, Int b) { return larger<int32_t>(a, b); }
  static inline Int max_u8(Int a, Int b) { return larger<uint8_t>(a, b); }
  static inline Int max_s16(Int a, Int b) { return larger<int16_t>(a, b); }
  static inline Int widen_u8(const void* p) {
    uint8_t v[kLanes];
    __builtin_memcpy(v, p, sizeof v);
    return each<Int>([&](int i) { return v[i]; });
  }
  static inline Int widen_s16(const void* p) {
    int16_t v[kLanes];
    __builtin_memcpy(v, p, sizeof v);
    return each<Int>([&](int i) { return v[i]; });
  }
  static inline Int half_s16(Int v, int first) {
    int16_t from[2 * kLanes];
    __builtin_memcpy(from, &v, sizeof from);
    return each<Int>([&](int i) { return from[first + i]; });
  }
  static inline Int low_s16(Int v) { return half_s16(v, 0); }
  static inline Int high_s16(Int v) { return half_s16(v, kLanes); }
  static inline Int shift_mask(Int x, int shift, uint32_t mask) {
    return each<Int>([&](int i) { return wrap(static_cast<uint32_t>(x.lane[i]) >> shift & mask); });
  }
  static inline Int shift_left(Int x, int shift) {
    return each<Int>([&](int i) { return wrap(static_cast<uint32_t>(x.lane[i]) << shift); });
  }

  static inline Float load_float(const float* p) {
    Float r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static inline void store_float(float* p, Float v) { __builtin_memcpy(p, &v, sizeof v); }
  static inline Float splat(float v) {
    return each<Float>([&](int) { return v; });
  }
  static inline Float to_float(Int v) {
    return each<Float>([&](int i) { return static_cast<float>(v.lane[i]); });
  }
  static inline Float fma(Float a, Float b, Float c) {
    return each<Float>([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static inline Float mul(Float a, Float b) {
    return each<Float>([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static inline Int fire(Float v, Float top) {
    return each<Int>([&](int i) { return fskernel::fire(v.lane[i], top.lane[i]); });
  }
  // Of shaped neurons: the membrane inside its table, and the numbers of a table at these places,
  // each lane's own in the second form.
  static inline Float in_table(Float v, Float last) {
    return each<Float>([&](int i) {
      const float positive = v.lane[i] > 0.0f ? v.lane[i] : 0.0f;
      return positive < last.lane[i] ? positive : last.lane[i];
    });
  }
  static inline Int truncated(Float v) {
    return each<Int>([&](int i) { return static_cast<int32_t>(v.lane[i]); });
  }
  template <int N>
  static inline void look_up(const float* table, int segments, const Int (&at)[N],
                             Float (&slope)[N], Float (&offset)[N]) {
    for (int n = 0; n < N; ++n) {
      slope[n] = each<Float>([&](int i) { return table[at[n].lane[i]]; });
      offset[n] = each<Float>([&](int i) { return table[segments + at[n].lane[i]]; });
    }
  }
  static inline Float look_up_own(const float* table, int32_t row, Int at) {
    return each<Float>([&](int i) { return table[i * row + at.lane[i]]; });
  }
  // Of fitted neurons, one time step: those at their threshold fire, which lowers them by `reset`
  // and adds `worth` to what they give.
  static inline void fit_step(Float& v, Float& code, Int& fired, Float threshold, Float reset,
                              Float worth) {
    for (int i = 0; i < kLanes; ++i) {
      if (!(v.lane[i] >= threshold.lane[i])) continue;
      v.lane[i] -= reset.lane[i];
      code.lane[i] += worth.lane[i];
      ++fired.lane[i];
    }
  }
  static inline Float smaller(Float a, Float b) {  // b for a NaN
    return each<Float>([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static inline Int count_above(Int count, Float v, Float bound) {
    return each<Int>([&](int i) { return count.lane[i] + (v.lane[i] > bound.lane[i]); });
  }
  static inline int64_t lane_sum(Int v) {
    int64_t sum = 0;
    for (const int32_t one : v.lane) sum += one;
    return sum;
  }
  static inline Int positive(Int v) {
    return each<Int>([&](int i) { return v.lane[i] > 0 ? v.lane[i] : 0; });
  }

  // Rate-coded neurons: those at their threshold, 1, fire, which lowers them by it and sets `bit`.
  static inline void fire_step(Float& u, Int& train, uint32_t bit) {
    for (int i = 0; i < kLanes; ++i) {
      if (!(u.lane[i] >= 1.0f)) continue;
      u.lane[i] -= 1.0f;
      train.lane[i] |= static_cast<int32_t>(bit);
    }
  }
  // Which of 64 spike trains have a spike at this step, and base + place*scale of those in a mask,
  // written one after the other.
  static inline uint64_t fired_at(const uint8_t* trains, int step) {
    uint64_t mask = 0;
    for (int i = 0; i < 64; ++i) mask |= uint64_t{trains[i] >> step & 1u} << i;
    return mask;
  }
  static inline uint32_t* append(uint32_t* to, uint64_t mask, uint32_t base, uint32_t scale) {
    for (uint32_t i = 0; i < 64; ++i)
      if (mask >> i & 1) *to++ = base + i * scale;
    return to;
  }
  // The product in float64, rounded once.
  static inline Float scaled(Int v, double step) {
    return each<Float>([&](int i) { return static_cast<float>(v.lane[i] * step); });
  }
  static inline Int graded(Float v, Float limit) {
    return each<Int>([&](int i) { return fskernel::graded(v.lane[i], limit.lane[i]); });
  }
  template <class T, int N>
  static inline void store_as(void* p, const Int (&v)[N]) {
    T r[N * kLanes];
    for (int i = 0; i < N * kLanes; ++i) r[i] = static_cast<T>(v[i / kLanes].lane[i % kLanes]);
    __builtin_memcpy(p, r, sizeof r);
  }
  template <int N>
  static inline void store_u8(void* p, const Int (&v)[N]) {
    store_as<uint8_t>(p, v);
  }
  template <int N>
  static inline void store_u16(void* p, const Int (&v)[N]) {
    store_as<uint16_t>(p, v);
  }
  template <int N>
  static inline void store_s16(void* p, const Int (&v)[N]) {
    store_as<int16_t>(p, v);
  }

  // Blocks of fewer vectors than a whole one: the first `lanes` elements of kBytes bytes, the
  // others 0; words of N vectors up to the last channel, and what was stored; the set bits of n of
  // these.
  template <int kBytes>
  static inline Int widen_part(const void* p, int64_t lanes) {
    const int64_t n = lanes < kLanes ? lanes : kLanes;
    return each<Int>([&](int i) -> int32_t {
      if (i >= n) return 0;
      return kBytes == 1 ? static_cast<const uint8_t*>(p)[i] : static_cast<const int16_t*>(p)[i];
    });
  }
  template <int N>
  static inline Int store_part_u8(void* p, const Int (&v)[N], int64_t channels) {
    uint8_t r[4 * kLanes] = {};
    for (int i = 0; i < N * kLanes; ++i)
      if (i < channels) r[i] = static_cast<uint8_t>(v[i / kLanes].lane[i % kLanes]);
    __builtin_memcpy(p, r, channels);
    return load(r);
  }
  template <int N>
  static inline void store_part_s16(void* p, const Int (&v)[N], int64_t channels) {
    int16_t r[N * kLanes];
    store_as<int16_t>(r, v);
    __builtin_memcpy(p, r, 2 * channels);
  }
  template <int n>
  static inline void add_spikes(const Int (&word)[n], int64_t* sums) {
    *sums += count_bits<n * kLanes * 4>(reinterpret_cast<const uint8_t*>(word));
  }

  // Depthwise: parts of at most 4*kLanes bytes, and taps brought side by side, value[tap] of all
  // channels to value[vector] of all taps, in depth_order.
  using Part = int64_t;
  static inline Part part(int64_t bytes) { return bytes; }
  static inline Int load_part(const void* p, Part part) {
    Int r = {};
    __builtin_memcpy(&r, p, part < static_cast<Part>(sizeof r) ? part : sizeof r);
    return r;
  }
  template <int kTaps>
  static inline void interleave(Int (&value)[kTaps]) {
    constexpr int kBytes = 4 / kTaps, kFamily = kTaps == 4 ? kDepthU8 : kDepthS16;
    uint8_t from[kTaps][4 * kLanes], to[kTaps][4 * kLanes];
    __builtin_memcpy(from, value, sizeof from);
    for (int vector = 0; vector < kTaps; ++vector)
      for (int lane = 0; lane < kLanes; ++lane)
        for (int tap = 0; tap < kTaps; ++tap)
          __builtin_memcpy(to[vector] + 4 * lane + tap * kBytes,
                           from[tap] + kBytes * depth_order(kFamily, vector, lane), kBytes);
    __builtin_memcpy(value, to, sizeof to);
  }
  // Codes of one pixel in depth_order; those beyond `channels` are 0.
  template <bool kBytes, bool kGraded, int kVectors>
  static inline void store_depth(uint8_t* y, const Int (&code)[kVectors], int64_t channels,
                                 int64_t* spikes) {
    constexpr int kFamily = kVectors == 4 ? kDepthU8 : kDepthS16;
    uint8_t bytes[2 * kVectors * kLanes] = {};
    for (int vector = 0; vector < kVectors; ++vector)
      for (int lane = 0; lane < kLanes; ++lane) {
        const int at = depth_order(kFamily, vector, lane);
        const int16_t word = static_cast<int16_t>(code[vector].lane[lane]);
        __builtin_memcpy(bytes + (kBytes ? 1 : 2) * at, &word, kBytes ? 1 : 2);
      }
    __builtin_memcpy(y, bytes, channels * (kBytes ? 1 : 2));
    if (!kGraded && spikes) *spikes += count_bits(bytes, channels * (kBytes ? 1 : 2));
  }

  // 2*kLanes products of 16-bit values with 8- or 16-bit weights, added to kLanes lanes.
  template <class Weight>
  static inline Int dot_row(Int acc, const int16_t* x, const Weight* w) {
    return each<Int>([&](int i) {
      const int32_t low = x[2 * i] * w[2 * i], high = x[2 * i + 1] * w[2 * i + 1];
      return wrap(static_cast<uint32_t>(acc.lane[i]) + static_cast<uint32_t>(low) +
                  static_cast<uint32_t>(high));
    });
  }

  static inline Wide wide_zero() { return {}; }
  static inline Wide wide_dot(Wide acc, const int64_t* x, Wide w) {
    for (int i = 0; i < kWideLanes; ++i) acc.lane[i] += x[i] * w.lane[i];
    return acc;
  }
  template <class Weight>
  static inline Wide wide_load(const Weight* p) {
    Wide r;
    for (int i = 0; i < kWideLanes; ++i) r.lane[i] = p[i];
    return r;
  }
  static inline int64_t wide_sum(Wide v) {
    int64_t sum = 0;
    for (int i = 0; i < kWideLanes; ++i) sum += v.lane[i];
    return sum;
  }
};

}  // namespace
}  // namespace fskernel
