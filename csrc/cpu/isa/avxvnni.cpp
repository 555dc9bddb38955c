// AVX-VNNI, of processors that have VNNI but not AVX-512. Tile: 6 pixels x 2 vectors = 12
// accumulators, 2 weights, 1 operand: 15 of 16 registers.
//
//   instruction   what it does here                            per tile and 32-bit operand
//   vpbroadcastd  four u8 or two s16 of one pixel to all lanes   6
//   vpdpbusd      4 products u8 x s8 a lane, accumulated         12
//   vpdpwssd      2 products s16 x s16 a lane, accumulated       12
#include "../tasks.h"

#if FSKERNEL_HAVE_AVXVNNI  // setup.py defines it where the compiler knows the set
#include <cpuid.h>
#include <immintrin.h>

#include <cstdint>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,popcnt,avxvnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt,avxvnni")
#endif

#include "vec_avxvnni.h"
//
#include "../tile/kernels_of.h"

namespace fskernel {
namespace {
constexpr int kPixels = 6, kVectors = 2;

bool supported() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool vnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
  return vnni && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("popcnt");
}
}  // namespace

extern const Kernels kernels_avxvnni;
constinit const Kernels kernels_avxvnni =
    kernels_of<AvxVnni, kPixels, kVectors>("avxvnni", &supported, true);
}  // namespace fskernel

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
