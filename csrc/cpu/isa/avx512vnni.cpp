// AVX512-VNNI. Tile: 7 pixels x 4 vectors = 28 accumulators and up to 4 weights; the operand is
// broadcast from memory.
//
//   instruction   what it does here                           per tile and 32-bit operand
//   vpbroadcastd  four u8 or two s16 of one pixel to all lanes  7
//   vpdpbusd      4 products u8 x s8 a lane, accumulated        28
//   vpdpwssd      2 products s16 x s16 a lane, accumulated      28
#include "../tasks.h"

#if FSKERNEL_HAVE_AVX512VNNI  // setup.py defines it where the compiler knows the set
#include <immintrin.h>

#include <cstdint>

#if defined(__clang__)
#pragma clang attribute push(                                                                 \
    __attribute__((target("avx2,fma,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), \
    apply_to = function)
#else
#pragma GCC push_options
// gcc 12's own AVX-512 header trips these warnings (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC target("avx2,fma,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

#include "vec_avx512.h"
//
#include "../tile/kernels_of.h"

namespace fskernel {
namespace {
constexpr int kPixels = 7, kVectors = 4;

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}
}  // namespace

extern const Kernels kernels_avx512vnni;
constinit const Kernels kernels_avx512vnni =
    kernels_of<Avx512Vnni, kPixels, kVectors>("avx512vnni", &supported, true);
}  // namespace fskernel

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
