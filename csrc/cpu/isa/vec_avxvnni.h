// AVX2 with VNNI: 8 lanes, exact products of 8-bit words without widening. With FS_EVEX the same
// instructions in AVX-512's encoding, by which a processor without AVX-VNNI can prove this code.
#pragma once

#include "vec_avx2.h"

namespace fskernel {
namespace {

struct AvxVnni : Avx2 {
  static constexpr bool kHasU8S8 = true;
  static constexpr EventCosts kEventCosts = {21, 28, 0.8, 1.7};

  static inline Int dot_u8s8(Int acc, Int x, Int w) {
#ifdef FS_EVEX
    return _mm256_dpbusd_epi32(acc, x, w);
#else
    return _mm256_dpbusd_avx_epi32(acc, x, w);
#endif
  }
  static inline Int dot_s16(Int acc, Int x, Int w) {
#ifdef FS_EVEX
    return _mm256_dpwssd_epi32(acc, x, w);
#else
    return _mm256_dpwssd_avx_epi32(acc, x, w);
#endif
  }
  static inline Int dot_row(Int acc, const int16_t* x, const int8_t* w) {
    return dot_s16(acc, load(x),
                   _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w))));
  }
  static inline Int dot_row(Int acc, const int16_t* x, const int16_t* w) {
    return dot_s16(acc, load(x), load(w));
  }

  using Avx2::interleave;
  static inline void interleave(Int (&value)[4]) {
    const Int low01 = _mm256_unpacklo_epi8(value[0], value[1]);
    const Int high01 = _mm256_unpackhi_epi8(value[0], value[1]);
    const Int low23 = _mm256_unpacklo_epi8(value[2], value[3]);
    const Int high23 = _mm256_unpackhi_epi8(value[2], value[3]);
    value[0] = _mm256_unpacklo_epi16(low01, low23);
    value[1] = _mm256_unpackhi_epi16(low01, low23);
    value[2] = _mm256_unpacklo_epi16(high01, high23);
    value[3] = _mm256_unpackhi_epi16(high01, high23);
  }
  template <bool kBytes, bool kGraded>
  static inline void store_depth(uint8_t* y, const Int (&code)[2], int64_t channels,
                                 int64_t* spikes) {
    Avx2::store_depth<kBytes, kGraded>(y, code, channels, spikes);
  }
  template <bool kBytes, bool kGraded>
  static inline void store_depth(uint8_t* y, const Int (&code)[4], int64_t channels,
                                 int64_t* spikes) {
    const Int low =
        kGraded ? _mm256_packs_epi32(code[0], code[1]) : _mm256_packus_epi32(code[0], code[1]);
    const Int high =
        kGraded ? _mm256_packs_epi32(code[2], code[3]) : _mm256_packus_epi32(code[2], code[3]);
    alignas(32) uint8_t bytes[64];
    if constexpr (kBytes) {
      store(bytes, _mm256_packus_epi16(low, high));
    } else {
      store(bytes, _mm256_permute2x128_si256(low, high, 0x20));
      store(bytes + 32, _mm256_permute2x128_si256(low, high, 0x31));
    }
    constexpr int64_t kAll = kBytes ? 32 : 64;
    if (channels == 32)
      __builtin_memcpy(y, bytes, kAll);
    else
      __builtin_memcpy(y, bytes, channels * (kBytes ? 1 : 2));
    if (!kGraded && spikes) *spikes += count_bits<kAll>(bytes);
  }
};

}  // namespace
}  // namespace fskernel
