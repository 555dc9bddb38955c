// AVX512-VNNI: 16 lanes. vpdpbusd adds four u8 x s8 products to a lane, vpdpwssd two s16 x s16;
// both wrap modulo 2^32 (their saturating forms, vpdpbusds and vpdpwssds, are not what we want).
#pragma once

namespace fskernel {
namespace {

struct Avx512Vnni {
  static constexpr int kLanes = 16, kWideLanes = 8, kRegisters = 32;
  static constexpr bool kHasU8S8 = true;
  using Int = __m512i;   // 16 x int32
  using Float = __m512;  // 16 x float32
  using Wide = __m512i;  // 8 x int64

  static inline Int zero() { return _mm512_setzero_si512(); }
  static inline Int load(const void* p) { return _mm512_loadu_si512(p); }
  static inline void store(void* p, Int v) { _mm512_storeu_si512(p, v); }
  static inline Int broadcast(uint32_t v) { return _mm512_set1_epi32(static_cast<int32_t>(v)); }
  static inline Int dot_u8s8(Int acc, Int x, Int w) { return _mm512_dpbusd_epi32(acc, x, w); }
  static inline Int dot_s16(Int acc, Int x, Int w) { return _mm512_dpwssd_epi32(acc, x, w); }
  static inline Int widen_u8(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static inline Int widen_s16(const void* p) {
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static inline Int shift_mask(Int x, int shift, uint32_t mask) {
    return _mm512_and_si512(_mm512_srl_epi32(x, _mm_cvtsi32_si128(shift)), broadcast(mask));
  }
  static inline Int shift_left(Int x, int shift) {
    return _mm512_sll_epi32(x, _mm_cvtsi32_si128(shift));
  }

  static inline Float load_float(const float* p) { return _mm512_loadu_ps(p); }
  static inline Float splat(float v) { return _mm512_set1_ps(v); }
  static inline Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static inline Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  // floor(clip(v, 0, top)); vmaxps returns its second operand for a NaN, so NaN -> 0.
  static inline Int fire(Float v, Float top) {
    return _mm512_cvttps_epi32(_mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), top));
  }
  // clip(rint(v), -limit, limit), NaN -> 0. The limit is an integer, so clipping may come first.
  static inline Int graded(Float v, Float limit) {
    const Float number = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v);
    const Float low = _mm512_sub_ps(_mm512_setzero_ps(), limit);
    return _mm512_cvt_roundps_epi32(_mm512_min_ps(_mm512_max_ps(number, low), limit),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static inline void store_u8(void* p, Int v) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
  static inline void store_s16(void* p, Int v) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
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
