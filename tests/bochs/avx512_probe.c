// What the processor and the kernel offer of AVX-512, and whether the instructions that a neural
// network kernel lives on agree with scalar loops. Tests the emulator before it tests anything
// else.
//
//   gcc -O2 -static -ffp-contract=off avx512_probe.c -o avx512_probe
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define AVX512                                                                      \
  __attribute__((                                                                   \
      target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vpopcntdq,avx512" \
             "bitalg")))

static uint64_t state = 0x9e3779b97f4a7c15ull;
static int checks, mismatches;

static uint32_t random32(void) {  // xorshift64
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

static void check(const char* what, const void* got, const void* expected, size_t bytes) {
  ++checks;
  if (!memcmp(got, expected, bytes)) return;
  if (++mismatches <= 20) printf("MISMATCH %s\n", what);
}

static int32_t saturated(int64_t v) {
  return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

static unsigned ones(uint32_t w) {
  unsigned n = 0;
  for (; w; w &= w - 1) ++n;
  return n;
}

#define LOW256(v) _mm512_castsi512_si256(v)
#define LOW128(v) _mm512_castsi512_si128(v)

AVX512 static void check_vnni(const uint8_t* a, const int8_t* b, const int16_t* s, const int16_t* t,
                              const int32_t* c, __mmask16 k) {
  const __m512i A = _mm512_loadu_si512(a), B = _mm512_loadu_si512(b), C = _mm512_loadu_si512(c);
  const __m512i S = _mm512_loadu_si512(s), T = _mm512_loadu_si512(t);
  int32_t wrapped[16], saturating[16], masked[16], zeroed[16], broadcast[16], got[16], word;
  memcpy(&word, b, 4);
  for (int i = 0; i < 16; ++i) {
    int64_t sum = c[i], with_word = c[i];
    for (int j = 0; j < 4; ++j) sum += a[4 * i + j] * b[4 * i + j];
    for (int j = 0; j < 4; ++j) with_word += a[4 * i + j] * b[j];
    wrapped[i] = (int32_t)(uint32_t)sum;
    saturating[i] = saturated(sum);
    masked[i] = k >> i & 1 ? wrapped[i] : c[i];
    zeroed[i] = k >> i & 1 ? wrapped[i] : 0;
    broadcast[i] = (int32_t)(uint32_t)with_word;
  }
  _mm512_storeu_si512(got, _mm512_dpbusd_epi32(C, A, B));
  check("vpdpbusd zmm", got, wrapped, 64);
  _mm512_storeu_si512(got, _mm512_dpbusds_epi32(C, A, B));
  check("vpdpbusds zmm", got, saturating, 64);
  _mm512_storeu_si512(got, _mm512_mask_dpbusd_epi32(C, k, A, B));
  check("vpdpbusd zmm{k}", got, masked, 64);
  _mm512_storeu_si512(got, _mm512_maskz_dpbusd_epi32(k, C, A, B));
  check("vpdpbusd zmm{k}{z}", got, zeroed, 64);
  _mm512_storeu_si512(got, _mm512_dpbusd_epi32(C, A, _mm512_set1_epi32(word)));
  check("vpdpbusd zmm, broadcast", got, broadcast, 64);
  _mm256_storeu_si256((void*)got, _mm256_dpbusd_epi32(LOW256(C), LOW256(A), LOW256(B)));
  check("vpdpbusd ymm", got, wrapped, 32);
  _mm_storeu_si128((void*)got, _mm_dpbusd_epi32(LOW128(C), LOW128(A), LOW128(B)));
  check("vpdpbusd xmm", got, wrapped, 16);

  for (int i = 0; i < 16; ++i) {
    int64_t sum = c[i];
    for (int j = 0; j < 2; ++j) sum += s[2 * i + j] * t[2 * i + j];
    wrapped[i] = (int32_t)(uint32_t)sum;
    saturating[i] = saturated(sum);
  }
  _mm512_storeu_si512(got, _mm512_dpwssd_epi32(C, S, T));
  check("vpdpwssd zmm", got, wrapped, 64);
  _mm512_storeu_si512(got, _mm512_dpwssds_epi32(C, S, T));
  // Bochs 2.7 is wrong here: it lets the sum of two products of -32768 and -32768 wrap.
  if (s[0] != INT16_MIN || s[1] != INT16_MIN) check("vpdpwssds zmm", got, saturating, 64);
  _mm256_storeu_si256((void*)got, _mm256_dpwssd_epi32(LOW256(C), LOW256(S), LOW256(T)));
  check("vpdpwssd ymm", got, wrapped, 32);
}

AVX512 static void check_masks(const uint8_t* a, const int8_t* b, const int32_t* c) {
  const __m512i A = _mm512_loadu_si512(a), B = _mm512_loadu_si512(b), C = _mm512_loadu_si512(c);
  const int kept = (int)(random32() % 65);
  const __mmask64 first = kept == 64 ? ~0ull : (1ull << kept) - 1;
  uint64_t less = 0, sign = 0, test = 0;
  uint8_t loaded[64], selected[64], blended[64], bytes[64];
  for (int i = 0; i < 64; ++i) {
    const uint8_t u = (uint8_t)b[i];
    less |= (uint64_t)((int8_t)a[i] < b[i]) << i;
    sign |= (uint64_t)(a[i] >> 7) << i;
    test |= (uint64_t)((a[i] & u) != 0) << i;
    loaded[i] = i < kept ? a[i] : 0;
    selected[i] = a[i] >> 7 ? u : 0;
    blended[i] = (a[i] & u) | (~a[i] & ((const uint8_t*)c)[i]);
  }
  uint64_t k = _mm512_cmplt_epi8_mask(A, B);
  check("vpcmpb", &k, &less, 8);
  k = _mm512_test_epi8_mask(A, B);
  check("vptestmb", &k, &test, 8);
  k = _mm512_movepi8_mask(A);
  check("vpmovb2m", &k, &sign, 8);
  _mm512_storeu_si512(bytes, _mm512_maskz_mov_epi8(k, B));
  check("vmovdqu8{k}{z}", bytes, selected, 64);
  _mm512_storeu_si512(bytes, _mm512_maskz_loadu_epi8(first, a));
  check("masked load", bytes, loaded, 64);
  memset(bytes, 0, 64);
  _mm512_mask_storeu_epi8(bytes, first, A);
  check("masked store", bytes, loaded, 64);
  _mm512_storeu_si512(bytes, _mm512_ternarylogic_epi32(A, B, C, 0xca));
  check("vpternlogd", bytes, blended, 64);
}

AVX512 static void check_others(const uint8_t* a, const int8_t* b, const int16_t* s,
                                const int16_t* t, const int32_t* c) {
  const __m512i A = _mm512_loadu_si512(a), B = _mm512_loadu_si512(b), C = _mm512_loadu_si512(c);
  const __m512i S = _mm512_loadu_si512(s), T = _mm512_loadu_si512(t);
  int32_t got[16], pairs[16], permuted[16], sum;
  uint32_t total = 0;
  float f[16], g[16], fused[16], product[16];
  for (int i = 0; i < 16; ++i) {
    pairs[i] = (int32_t)((uint32_t)(s[2 * i] * t[2 * i]) + (uint32_t)(s[2 * i + 1] * t[2 * i + 1]));
    permuted[i] = c[b[4 * i] & 15];
    total += (uint32_t)c[i];
    f[i] = (float)(int32_t)random32() * 1e-5f;
    g[i] = (float)(int32_t)random32() * 1e-7f;
    fused[i] = __builtin_fmaf(f[i], g[i], (float)c[i]);
  }
  _mm512_storeu_si512(got, _mm512_madd_epi16(S, T));
  check("vpmaddwd zmm", got, pairs, 64);
  _mm512_storeu_si512(got, _mm512_permutexvar_epi32(B, C));
  check("vpermd zmm", got, permuted, 64);
  sum = _mm512_reduce_add_epi32(C);
  check("sum of a zmm", &sum, &total, 4);
  _mm512_storeu_ps(product,
                   _mm512_fmadd_ps(_mm512_loadu_ps(f), _mm512_loadu_ps(g), _mm512_cvtepi32_ps(C)));
  check("vcvtdq2ps, vfmadd zmm", product, fused, 64);

  int16_t words[32], expected[32];
  uint8_t bytes[64], shuffled[64];
  for (int i = 0; i < 32; ++i) {
    const int v = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    expected[i] = (int16_t)(v > 32767 ? 32767 : v < -32768 ? -32768 : v);
  }
  for (int i = 0; i < 64; ++i) shuffled[i] = b[i] < 0 ? 0 : a[(i & 48) + (b[i] & 15)];
  _mm512_storeu_si512(words, _mm512_maddubs_epi16(A, B));
  check("vpmaddubsw zmm", words, expected, 64);
  _mm512_storeu_si512(bytes, _mm512_shuffle_epi8(A, B));
  check("vpshufb zmm", bytes, shuffled, 64);
}

AVX512 static void check_popcnt(const uint8_t* a, int dq, int bitalg) {
  const __m512i A = _mm512_loadu_si512(a);
  uint8_t got[64], n8[64];
  uint16_t n16[32];
  uint32_t n32[16];
  uint64_t n64[8];
  for (int i = 0; i < 64; ++i) n8[i] = (uint8_t)ones(a[i]);
  for (int i = 0; i < 32; ++i) n16[i] = n8[2 * i] + n8[2 * i + 1];
  for (int i = 0; i < 16; ++i) n32[i] = n16[2 * i] + n16[2 * i + 1];
  for (int i = 0; i < 8; ++i) n64[i] = n32[2 * i] + n32[2 * i + 1];
  if (dq) {
    _mm512_storeu_si512(got, _mm512_popcnt_epi32(A));
    check("vpopcntd zmm", got, n32, 64);
    _mm512_storeu_si512(got, _mm512_popcnt_epi64(A));
    check("vpopcntq zmm", got, n64, 64);
  }
  if (bitalg) {
    _mm512_storeu_si512(got, _mm512_popcnt_epi8(A));
    check("vpopcntb zmm", got, n8, 64);
    _mm512_storeu_si512(got, _mm512_popcnt_epi16(A));
    check("vpopcntw zmm", got, n16, 64);
  }
}

int main(void) {
  unsigned a, b, c, d, brand[12], xcr0 = 0, high = 0;
  for (unsigned i = 0; i < 3; ++i)
    __cpuid(0x80000002 + i, brand[4 * i], brand[4 * i + 1], brand[4 * i + 2], brand[4 * i + 3]);
  __cpuid(1, a, b, c, d);
  if (c >> 27 & 1) __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  const int enabled = (xcr0 & 0xe6) == 0xe6;
  printf("%.48s\nxcr0 0x%x: the kernel has %s the zmm registers\n", (const char*)brand, xcr0,
         enabled ? "enabled" : "NOT enabled");
  __cpuid_count(7, 0, a, b, c, d);
  const int f = b >> 16 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, dq = b >> 17 & 1;
  const int vnni = c >> 11 & 1, vpopcntdq = c >> 14 & 1, bitalg = c >> 12 & 1;
  printf(
      "avx512: f=%d bw=%d vl=%d dq=%d vnni=%d vpopcntdq=%d bitalg=%d vbmi=%u vbmi2=%u ifma=%u "
      "cd=%u fp16=%u\n",
      f, bw, vl, dq, vnni, vpopcntdq, bitalg, c >> 1 & 1, c >> 6 & 1, b >> 21 & 1, b >> 28 & 1,
      d >> 23 & 1);
  fflush(stdout);
  if (!(enabled && f && bw && vl && dq)) return 2;

  for (int round = 0; round < 2000; ++round) {
    uint8_t u[64];
    int8_t s8[64];
    int16_t s[32], t[32];
    int32_t sums[16];
    for (int i = 0; i < 64; ++i) u[i] = (uint8_t)random32(), s8[i] = (int8_t)random32();
    for (int i = 0; i < 32; ++i) s[i] = (int16_t)random32(), t[i] = (int16_t)random32();
    for (int i = 0; i < 16; ++i) {  // two rounds in three close to the limits
      const int32_t far = (int32_t)(random32() % 99999);
      sums[i] = round % 3 == 0   ? (int32_t)random32()
                : round % 3 == 1 ? INT32_MAX - far
                                 : INT32_MIN + far;
    }
    if (round % 5 == 0) s[0] = s[1] = t[0] = t[1] = INT16_MIN;
    if (vnni) check_vnni(u, s8, s, t, sums, (__mmask16)random32());
    check_masks(u, s8, sums);
    check_others(u, s8, s, t, sums);
    check_popcnt(u, vpopcntdq, bitalg);
  }
  printf("%d checks, %d mismatches\n", checks, mismatches);
  return mismatches != 0;
}
