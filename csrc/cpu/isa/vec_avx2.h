// AVX2 + FMA: 8 lanes. The exact 16-bit product is vpmaddwd followed by vpaddd (vpmaddubsw
// saturates, so 8-bit words are widened to 16 bits beforehand).
#pragma once

#include "../tile/bits.h"

namespace fskernel {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8, kWideLanes = 4, kRegisters = 16;
  static constexpr bool kHasU8S8 = false, kCountsVectors = false, kSaturates = false;
  static constexpr int kNarrowPixels = 0;
  static constexpr EventCosts kEventCosts = {22, 10, 0.9, 1.4};
  using Int = __m256i;   // 8 x int32
  using Float = __m256;  // 8 x float32
  using Wide = __m256i;  // 4 x int64

  // Ends a value's life in one loop nest and begins it anew, so that the code behind the nest
  // cannot make the compiler keep it in memory inside.
  static inline void renew(Int& v) { asm volatile("" : "+x"(v)); }
  static inline Int zero() { return _mm256_setzero_si256(); }
  static inline Int load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static inline void store(void* p, Int v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  static inline Int broadcast(uint32_t v) { return _mm256_set1_epi32(static_cast<int32_t>(v)); }
  static inline Int dot_s16(Int acc, Int x, Int w) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(x, w));
  }
  static inline Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static inline Int multiply(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static inline Int add_s16(Int a, Int b) { return _mm256_add_epi16(a, b); }
  static inline Int max_s32(Int a, Int b) { return _mm256_max_epi32(a, b); }
  static inline Int max_u8(Int a, Int b) { return _mm256_max_epu8(a, b); }
  static inline Int max_s16(Int a, Int b) { return _mm256_max_epi16(a, b); }
  static inline Int widen_u8(const void* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  }
  static inline Int widen_s16(const void* p) {
    return _mm256_cvtepi16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static inline Int low_s16(Int v) { return _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v)); }
  static inline Int high_s16(Int v) {
    return _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1));
  }
  static inline Int shift_mask(Int x, int shift, uint32_t mask) {
    return _mm256_and_si256(_mm256_srl_epi32(x, _mm_cvtsi32_si128(shift)), broadcast(mask));
  }
  static inline Int shift_left(Int x, int shift) {
    return _mm256_sll_epi32(x, _mm_cvtsi32_si128(shift));
  }

  static inline Float load_float(const float* p) { return _mm256_loadu_ps(p); }
  static inline void store_float(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static inline Float splat(float v) { return _mm256_set1_ps(v); }
  static inline Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  static inline Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static inline Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  // The word once it has been stored: floor(min(v, top)), below zero still negative. vminps gives
  // its second operand for a NaN, whose conversion is INT_MIN, like that of -inf.
  static inline Int fire(Float v, Float top) { return _mm256_cvttps_epi32(_mm256_min_ps(top, v)); }
  // Of shaped neurons: the membrane inside its table (vmaxps gives its second operand for a NaN),
  // and the numbers of a table at these places, each lane's own in the second form.
  static inline Float in_table(Float v, Float last) {
    return _mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), last);
  }
  static inline Int truncated(Float v) { return _mm256_cvttps_epi32(v); }
  template <int N>
  static inline void look_up(const float* table, int segments, const Int (&at)[N],
                             Float (&slope)[N], Float (&offset)[N]) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      slope[n] = _mm256_i32gather_ps(table, at[n], 4);
      offset[n] = _mm256_i32gather_ps(table + segments, at[n], 4);
    }
  }
  static inline Float look_up_own(const float* table, int32_t row, Int at) {
    const Int lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const Int place = _mm256_add_epi32(_mm256_mullo_epi32(lane, broadcast(row)), at);
    return _mm256_i32gather_ps(table, place, 4);
  }
  // Of fitted neurons, one time step: those at their threshold fire, which lowers them by `reset`
  // and adds `worth` to what they give.
  static inline void fit_step(Float& v, Float& code, Int& fired, Float threshold, Float reset,
                              Float worth) {
    const Float fires = _mm256_cmp_ps(v, threshold, _CMP_GE_OQ);
    v = _mm256_sub_ps(v, _mm256_and_ps(fires, reset));
    code = _mm256_add_ps(code, _mm256_and_ps(fires, worth));
    fired = _mm256_sub_epi32(fired, _mm256_castps_si256(fires));
  }
  static inline Float smaller(Float a, Float b) { return _mm256_min_ps(a, b); }  // b for a NaN
  static inline Int count_above(Int count, Float v, Float bound) {
    return _mm256_sub_epi32(count, _mm256_castps_si256(_mm256_cmp_ps(v, bound, _CMP_GT_OQ)));
  }
  static inline int64_t lane_sum(Int v) {
    alignas(32) int32_t lane[8];
    store(lane, v);
    int64_t sum = 0;
    for (const int32_t one : lane) sum += one;
    return sum;
  }
  static inline Int positive(Int v) { return _mm256_max_epi32(v, zero()); }

  // Rate-coded neurons: those at their threshold, 1, fire, which lowers them by it and sets `bit`.
  static inline void fire_step(Float& u, Int& train, uint32_t bit) {
    const Float one = _mm256_set1_ps(1.0f), fires = _mm256_cmp_ps(u, one, _CMP_GE_OQ);
    u = _mm256_sub_ps(u, _mm256_and_ps(fires, one));
    train = _mm256_or_si256(train, _mm256_and_si256(_mm256_castps_si256(fires), broadcast(bit)));
  }
  // Which of 64 spike trains have a spike at this step, and base + place*scale of those in a mask,
  // written one after the other.
  static inline uint64_t fired_at(const uint8_t* trains, int step) {
    const __m128i up = _mm_cvtsi32_si128(7 - step);  // to the sign of the byte
    const auto half = [&](const uint8_t* p) {
      return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(load(p), up)));
    };
    return half(trains) | uint64_t{half(trains + 32)} << 32;
  }
  static inline uint32_t* append(uint32_t* to, uint64_t mask, uint32_t base, uint32_t scale) {
    for (; mask; mask &= mask - 1)
      *to++ = base + static_cast<uint32_t>(__builtin_ctzll(mask)) * scale;
    return to;
  }
  // The product in float64, rounded once.
  static inline Float scaled(Int v, double step) {
    const __m256d s = _mm256_set1_pd(step);
    const __m256d low = _mm256_cvtepi32_pd(_mm256_castsi256_si128(v));
    const __m256d high = _mm256_cvtepi32_pd(_mm256_extracti128_si256(v, 1));
    return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_mul_pd(high, s)),
                           _mm256_cvtpd_ps(_mm256_mul_pd(low, s)));
  }
  // clip(rint(v), -limit, limit), NaN -> 0. The limit is an integer, so clipping may come first.
  static inline Int graded(Float v, Float limit) {
    const Float number = _mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q));
    const Float low = _mm256_sub_ps(_mm256_setzero_ps(), limit);
    const Float clipped = _mm256_min_ps(_mm256_max_ps(number, low), limit);
    return _mm256_cvtps_epi32(
        _mm256_round_ps(clipped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  // Words of N vectors of channels, side by side; what is negative becomes 0.
  static inline __m128i words(Int v) {
    return _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  }
  template <int N>
  static inline void store_u8(void* p, const Int (&v)[N]) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const __m128i half = words(v[n]);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(static_cast<char*>(p) + 8 * n),
                       _mm_packus_epi16(half, half));
    }
  }
  template <int N>
  static inline void store_u16(void* p, const Int (&v)[N]) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<char*>(p) + 16 * n), words(v[n]));
  }
  template <int N>
  static inline void store_s16(void* p, const Int (&v)[N]) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      _mm_storeu_si128(
          reinterpret_cast<__m128i*>(static_cast<char*>(p) + 16 * n),
          _mm_packs_epi32(_mm256_castsi256_si128(v[n]), _mm256_extracti128_si256(v[n], 1)));
  }

  // Depthwise: parts of at most 32 bytes, and taps brought side by side, value[tap] of all channels
  // to value[vector] of all taps, in depth_order.
  using Part = int64_t;
  static inline Part part(int64_t bytes) { return bytes; }
  static inline Int load_part(const void* p, Part part) {
    if (part >= 32) return load(p);
    alignas(32) uint8_t bytes[32] = {};
    __builtin_memcpy(bytes, p, part);
    return load(bytes);
  }
  static inline void interleave(Int (&value)[2]) {
    const Int low = _mm256_unpacklo_epi16(value[0], value[1]);
    value[1] = _mm256_unpackhi_epi16(value[0], value[1]);
    value[0] = low;
  }
  // Codes of one pixel in depth_order; those beyond `channels` are 0.
  template <bool kBytes, bool kGraded>
  static inline void store_depth(uint8_t* y, const Int (&code)[2], int64_t channels,
                                 int64_t* spikes) {
    Int words =
        kGraded ? _mm256_packs_epi32(code[0], code[1]) : _mm256_packus_epi32(code[0], code[1]);
    if constexpr (kBytes) words = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0xd8);
    constexpr int64_t kAll = kBytes ? 16 : 32;
    alignas(32) uint8_t bytes[32];
    store(bytes, words);
    if (channels == 16)
      __builtin_memcpy(y, bytes, kAll);
    else
      __builtin_memcpy(y, bytes, channels * (kBytes ? 1 : 2));
    if (!kGraded && spikes) *spikes += count_bits<kAll>(bytes);
  }

  // 16 products of 16-bit values with 8- or 16-bit weights, added to 8 lanes.
  static inline Int dot_row(Int acc, const int16_t* x, const int8_t* w) {
    return dot_s16(acc, load(x),
                   _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w))));
  }
  static inline Int dot_row(Int acc, const int16_t* x, const int16_t* w) {
    return dot_s16(acc, load(x), load(w));
  }

  static inline Wide wide_zero() { return _mm256_setzero_si256(); }
  static inline Wide wide_dot(Wide acc, const int64_t* x, Wide w) {
    return _mm256_add_epi64(acc, _mm256_mul_epi32(load(x), w));
  }
  static inline Wide wide_load(const int16_t* p) {
    return _mm256_cvtepi16_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static inline Wide wide_load(const int8_t* p) { return _mm256_cvtepi8_epi64(_mm_loadu_si32(p)); }
  static inline int64_t wide_sum(Wide v) {
    alignas(32) int64_t lane[4];
    store(lane, v);
    return lane[0] + lane[1] + lane[2] + lane[3];
  }
};

}  // namespace
}  // namespace fskernel
