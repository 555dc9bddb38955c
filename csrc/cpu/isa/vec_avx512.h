// AVX512-VNNI: 16 lanes. vpdpbusd adds four u8 x s8 products to a lane, vpdpwssd two s16 x s16;
// both wrap modulo 2^32 (their saturating forms, vpdpbusds and vpdpwssds, are not what we want).
#pragma once

namespace fskernel {
namespace {

struct Avx512Vnni {
  static constexpr int kLanes = 16, kWideLanes = 8, kRegisters = 32;
  static constexpr bool kHasU8S8 = true;
  static constexpr bool kCountsVectors = true, kSaturates = true;
  static constexpr EventCosts kEventCosts = {30, 23, 0.4, 2.6};
  static constexpr int kNarrowPixels = 14;  // x 2 vectors: 28 accumulators, like 7 x 4
  using Int = __m512i;                      // 16 x int32
  using Float = __m512;                     // 16 x float32
  using Wide = __m512i;                     // 8 x int64

  // Ends a value's life in one loop nest and begins it anew, so that the code behind the nest
  // cannot make the compiler keep it in memory inside.
  static inline void renew(Int& v) { asm volatile("" : "+v"(v)); }
  static inline Int zero() { return _mm512_setzero_si512(); }
  static inline Int load(const void* p) { return _mm512_loadu_si512(p); }
  static inline void store(void* p, Int v) { _mm512_storeu_si512(p, v); }
  static inline Int broadcast(uint32_t v) { return _mm512_set1_epi32(static_cast<int32_t>(v)); }
  static inline Int dot_u8s8(Int acc, Int x, Int w) { return _mm512_dpbusd_epi32(acc, x, w); }
  static inline Int dot_s16(Int acc, Int x, Int w) { return _mm512_dpwssd_epi32(acc, x, w); }
  static inline Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static inline Int multiply(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static inline Int add_s16(Int a, Int b) { return _mm512_add_epi16(a, b); }
  static inline Int max_s32(Int a, Int b) { return _mm512_max_epi32(a, b); }
  static inline Int max_u8(Int a, Int b) { return _mm512_max_epu8(a, b); }
  static inline Int max_s16(Int a, Int b) { return _mm512_max_epi16(a, b); }
  static inline Int widen_u8(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static inline Int widen_s16(const void* p) {
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static inline Int low_s16(Int v) { return _mm512_cvtepi16_epi32(_mm512_castsi512_si256(v)); }
  static inline Int high_s16(Int v) {
    return _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1));
  }
  static inline Int shift_mask(Int x, int shift, uint32_t mask) {
    return _mm512_and_si512(_mm512_srl_epi32(x, _mm_cvtsi32_si128(shift)), broadcast(mask));
  }
  static inline Int shift_left(Int x, int shift) {
    return _mm512_sll_epi32(x, _mm_cvtsi32_si128(shift));
  }

  static inline Float load_float(const float* p) { return _mm512_loadu_ps(p); }
  static inline void store_float(float* p, Float v) { _mm512_storeu_ps(p, v); }
  static inline Float splat(float v) { return _mm512_set1_ps(v); }
  static inline Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static inline Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  // The word once it has been stored: floor(min(v, top)), below zero still negative. vminps gives
  // its second operand for a NaN, whose conversion is INT_MIN, like that of -inf.
  static inline Int fire(Float v, Float top) { return _mm512_cvttps_epi32(_mm512_min_ps(top, v)); }
  // The same without the upper clip, for |v| < 2^31 or NaN and a store that saturates.
  static inline Int fire_low(Float v) { return _mm512_cvttps_epi32(v); }
  // Of shaped neurons: the membrane inside its table (vmaxps gives its second operand for a NaN),
  // and the numbers of a table at these places, each lane's own in the second form.
  static inline Float in_table(Float v, Float last) {
    return _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), last);
  }
  static inline Int truncated(Float v) { return _mm512_cvttps_epi32(v); }
  template <int N>
  static inline void look_up(const float* table, int segments, const Int (&at)[N],
                             Float (&slope)[N], Float (&offset)[N]) {
    const float* offsets = table + segments;
    Float low = load_float(table), high = load_float(table + 16);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) slope[n] = _mm512_permutex2var_ps(low, at[n], high);
    low = load_float(offsets), high = load_float(offsets + 16);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) offset[n] = _mm512_permutex2var_ps(low, at[n], high);
    for (int first = 32; first < segments; first += 32) {
      __mmask16 beyond[N];
      low = load_float(table + first), high = load_float(table + first + 16);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        beyond[n] = _mm512_cmpge_epi32_mask(at[n], broadcast(first));
        slope[n] =
            _mm512_mask_mov_ps(slope[n], beyond[n], _mm512_permutex2var_ps(low, at[n], high));
      }
      low = load_float(offsets + first), high = load_float(offsets + first + 16);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n)
        offset[n] =
            _mm512_mask_mov_ps(offset[n], beyond[n], _mm512_permutex2var_ps(low, at[n], high));
    }
  }
  static inline Float look_up_own(const float* table, int32_t row, Int at) {
    const Int lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Int place = _mm512_add_epi32(_mm512_mullo_epi32(lane, broadcast(row)), at);
    return _mm512_i32gather_ps(place, table, 4);
  }
  // Of fitted neurons, one time step: those at their threshold fire, which lowers them by `reset`
  // and adds `worth` to what they give.
  static inline void fit_step(Float& v, Float& code, Int& fired, Float threshold, Float reset,
                              Float worth) {
    const __mmask16 fires = _mm512_cmp_ps_mask(v, threshold, _CMP_GE_OQ);
    v = _mm512_mask_sub_ps(v, fires, v, reset);
    code = _mm512_mask_add_ps(code, fires, code, worth);
    fired = _mm512_mask_sub_epi32(fired, fires, fired, _mm512_set1_epi32(-1));
  }
  static inline Float smaller(Float a, Float b) { return _mm512_min_ps(a, b); }  // b for a NaN
  static inline Int count_above(Int count, Float v, Float bound) {
    return _mm512_mask_sub_epi32(count, _mm512_cmp_ps_mask(v, bound, _CMP_GT_OQ), count,
                                 _mm512_set1_epi32(-1));
  }
  static inline int64_t lane_sum(Int v) {
    return _mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(v)),
                         _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1))));
  }
  static inline Int positive(Int v) { return _mm512_max_epi32(v, zero()); }

  // Rate-coded neurons: those at their threshold, 1, fire, which lowers them by it and sets `bit`.
  static inline void fire_step(Float& u, Int& train, uint32_t bit) {
    const Float one = _mm512_set1_ps(1.0f);
    const __mmask16 fires = _mm512_cmp_ps_mask(u, one, _CMP_GE_OQ);
    u = _mm512_mask_sub_ps(u, fires, u, one);
    train = _mm512_mask_or_epi32(train, fires, train, broadcast(bit));
  }
  // Which of 64 spike trains have a spike at this step, and base + place*scale of those in a mask,
  // written one after the other; a vector behind the last one may be overwritten.
  static inline uint64_t fired_at(const uint8_t* trains, int step) {
    return _mm512_test_epi8_mask(load(trains), _mm512_set1_epi8(static_cast<char>(1 << step)));
  }
  static inline uint32_t* append(uint32_t* to, uint64_t mask, uint32_t base, uint32_t scale) {
    const Int lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Int ladder = _mm512_mullo_epi32(lane, broadcast(scale)), next = broadcast(16 * scale);
    Int value = _mm512_add_epi32(ladder, broadcast(base));
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; ++i, mask >>= 16) {
      const auto part = static_cast<__mmask16>(mask);
      store(to, _mm512_maskz_compress_epi32(part, value));
      to += __builtin_popcount(part);
      value = _mm512_add_epi32(value, next);
    }
    return to;
  }
  // The product in float64, rounded once.
  static inline Float scaled(Int v, double step) {
    const __m512d s = _mm512_set1_pd(step);
    const __m512d low = _mm512_cvtepi32_pd(_mm512_castsi512_si256(v));
    const __m512d high = _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(v, 1));
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(_mm512_mul_pd(low, s))),
                              _mm512_cvtpd_ps(_mm512_mul_pd(high, s)), 1);
  }
  // clip(rint(v), -limit, limit), NaN -> 0. The limit is an integer, so clipping may come first.
  static inline Int graded(Float v, Float limit) {
    const Float number = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v);
    const Float low = _mm512_sub_ps(_mm512_setzero_ps(), limit);
    return _mm512_cvt_roundps_epi32(_mm512_min_ps(_mm512_max_ps(number, low), limit),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // Words of N vectors of channels, side by side; what is negative becomes 0, and what is larger
  // than a byte 255. The packs interleave
  // 128-bit lanes, one permutation puts them in order.
  template <int N>
  static inline Int pack_u8(const Int (&v)[N]) {
    const Int low = _mm512_packs_epi32(v[0], v[N > 1 ? 1 : 0]);
    const Int high = N > 2 ? _mm512_packs_epi32(v[N > 2 ? 2 : 0], v[N > 3 ? 3 : 0]) : low;
    const Int order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
  }
  static inline Int pack_u16(Int a, Int b) {
    const Int order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_packus_epi32(a, b));
  }
  template <int N>
  static inline void store_u8(void* p, const Int (&v)[N]) {
    if constexpr (N == 4)
      store(p, pack_u8(v));
    else
      _mm512_mask_storeu_epi8(p, (uint64_t{1} << 16 * N) - 1, pack_u8(v));
  }
  template <int N>
  static inline void store_u16(void* p, const Int (&v)[N]) {
#pragma GCC unroll 4
    for (int n = 0; n + 1 < N; n += 2)
      store(static_cast<char*>(p) + 32 * n, pack_u16(v[n], v[n + 1]));
    if constexpr (N % 2) {
      const Int last = _mm512_max_epi32(v[N - 1], zero());
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<char*>(p) + 32 * (N - 1)),
                          _mm512_cvtepi32_epi16(last));
    }
  }

  // Blocks of fewer vectors than a whole one.
  template <int kBytes>
  static inline Int widen_part(const void* p, int64_t lanes) {
    const __mmask16 part = lanes < 16 ? (1u << lanes) - 1 : 0xffff;
    if constexpr (kBytes == 1) return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(part, p));
    return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(part, p));
  }
  template <int N>
  static inline Int store_part_u8(void* p, const Int (&v)[N], int64_t channels) {
    const __mmask64 part = (uint64_t{1} << channels) - 1;
    const Int word = _mm512_maskz_mov_epi8(part, pack_u8(v));
    _mm512_mask_storeu_epi8(p, part, word);
    return word;
  }
  template <int N>
  static inline void store_part_s16(void* p, const Int (&v)[N], int64_t channels) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const int64_t lanes = channels - 16 * n;
      const __mmask16 part = lanes < 16 ? (1u << lanes) - 1 : 0xffff;
      _mm256_mask_storeu_epi16(static_cast<char*>(p) + 32 * n, part, _mm512_cvtepi32_epi16(v[n]));
    }
  }

  // Set bits of n vectors, added to 8 sums in memory. Full adders reduce vectors of one weight to a
  // few of rising weights, whose bits are then counted by table: no instruction for it is needed,
  // and the scalar one would have to wait for the vectors to come through memory.
  template <int n>
  static inline void add_spikes(const Int (&word)[n], int64_t* sums) {
    const Int bytes = count_bytes<n, 0>(word, zero());
    store(sums, _mm512_add_epi64(load(sums), _mm512_sad_epu8(bytes, zero())));
  }
  template <int n, int kShift>
  static inline Int count_bytes(const Int (&word)[n], Int bytes) {
    constexpr int kAdders = (n - 1) / 2;
    Int sum = word[0], carry[kAdders > 0 ? kAdders : 1];
#pragma GCC unroll 16
    for (int i = 0; i < kAdders; ++i) {
      const Int a = word[2 * i + 1], b = word[2 * i + 2];
      carry[i] = _mm512_ternarylogic_epi32(sum, a, b, 0xe8);  // majority
      sum = _mm512_ternarylogic_epi32(sum, a, b, 0x96);       // parity
    }
    Int count = bits_of_bytes(sum);
    if constexpr (n % 2 == 0) count = _mm512_add_epi8(count, bits_of_bytes(word[n - 1]));
    bytes = _mm512_add_epi8(bytes, _mm512_slli_epi16(count, kShift));  // at most 112 in a byte
    if constexpr (kAdders > 0)
      return count_bytes<kAdders, kShift + 1>(carry, bytes);
    else
      return bytes;
  }
  static inline Int bits_of_bytes(Int v) {
    const Int table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const Int nibble = _mm512_set1_epi8(15);
    return _mm512_add_epi8(
        _mm512_shuffle_epi8(table, _mm512_and_si512(v, nibble)),
        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble)));
  }

  template <int N>
  static inline void store_s16(void* p, const Int (&v)[N]) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<char*>(p) + 32 * n),
                          _mm512_cvtepi32_epi16(v[n]));
  }

  // Depthwise: parts of at most 64 bytes, and taps brought side by side, value[tap] of all channels
  // to value[vector] of all taps, in depth_order.
  using Part = __mmask64;
  static inline Part part(int64_t bytes) {
    return bytes < 64 ? (uint64_t{1} << bytes) - 1 : ~uint64_t{0};
  }
  static inline Int load_part(const void* p, Part part) { return _mm512_maskz_loadu_epi8(part, p); }
  static inline void interleave(Int (&value)[4]) {
    const Int low01 = _mm512_unpacklo_epi8(value[0], value[1]);
    const Int high01 = _mm512_unpackhi_epi8(value[0], value[1]);
    const Int low23 = _mm512_unpacklo_epi8(value[2], value[3]);
    const Int high23 = _mm512_unpackhi_epi8(value[2], value[3]);
    value[0] = _mm512_unpacklo_epi16(low01, low23);
    value[1] = _mm512_unpackhi_epi16(low01, low23);
    value[2] = _mm512_unpacklo_epi16(high01, high23);
    value[3] = _mm512_unpackhi_epi16(high01, high23);
  }
  static inline void interleave(Int (&value)[2]) {
    const Int low = _mm512_unpacklo_epi16(value[0], value[1]);
    value[1] = _mm512_unpackhi_epi16(value[0], value[1]);
    value[0] = low;
  }
  template <bool kGraded>
  static inline Int pack_16(Int a, Int b) {  // channels of 4 lanes stay in 4 lanes
    return kGraded ? _mm512_packs_epi32(a, b) : _mm512_packus_epi32(a, b);
  }
  template <bool kGraded>
  static inline void store_words(uint8_t* y, Int word, int64_t bytes, int64_t* spikes) {
    _mm512_mask_storeu_epi8(y, part(bytes), word);
    if (!kGraded && spikes) {
      const Int counted[1] = {word};
      add_spikes(counted, spikes);
    }
  }
  // Codes of one pixel in depth_order; those beyond `channels` are 0.
  template <bool kBytes, bool kGraded>
  static inline void store_depth(uint8_t* y, const Int (&code)[4], int64_t channels,
                                 int64_t* spikes) {
    const Int low = pack_16<kGraded>(code[0], code[1]), high = pack_16<kGraded>(code[2], code[3]);
    if constexpr (kBytes) {
      store_words<kGraded>(y, _mm512_packus_epi16(low, high), channels, spikes);
    } else {
      const Int first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
      const Int second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
      store_words<kGraded>(y, _mm512_permutex2var_epi64(low, first, high), 2 * channels, spikes);
      if (channels > 32)
        store_words<kGraded>(y + 64, _mm512_permutex2var_epi64(low, second, high),
                             2 * channels - 64, spikes);
    }
  }
  template <bool kBytes, bool kGraded>
  static inline void store_depth(uint8_t* y, const Int (&code)[2], int64_t channels,
                                 int64_t* spikes) {
    const Int words = pack_16<kGraded>(code[0], code[1]);
    if constexpr (kBytes)
      store_words<kGraded>(y, _mm512_zextsi256_si512(_mm512_cvtepi16_epi8(words)), channels,
                           spikes);
    else
      store_words<kGraded>(y, words, 2 * channels, spikes);
  }

  // 32 products of 16-bit values with 8- or 16-bit weights, added to 16 lanes.
  static inline Int dot_row(Int acc, const int16_t* x, const int8_t* w) {
    return dot_s16(acc, load(x),
                   _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w))));
  }
  static inline Int dot_row(Int acc, const int16_t* x, const int16_t* w) {
    return dot_s16(acc, load(x), load(w));
  }

  static inline Wide wide_zero() { return _mm512_setzero_si512(); }
  static inline Wide wide_dot(Wide acc, const int64_t* x, Wide w) {
    return _mm512_add_epi64(acc, _mm512_mul_epi32(load(x), w));
  }
  static inline Wide wide_load(const int16_t* p) {
    return _mm512_cvtepi16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static inline Wide wide_load(const int8_t* p) {
    return _mm512_cvtepi8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static inline int64_t wide_sum(Wide v) { return _mm512_reduce_add_epi64(v); }
};

}  // namespace
}  // namespace fskernel
