// AVX2 + FMA. Tile: 6 pixels x 2 vectors = 12 accumulators, 2 weights, 1 operand, 1 product: all
// 16 registers.
//
//   instruction   what it does here                        per tile and 32-bit operand
//   vpbroadcastd  two s16 of one pixel to all lanes        6
//   vpmaddwd      2 products a lane, added                 12
//   vpaddd        into the accumulator                     12
#include "../tasks.h"

#if FSKERNEL_HAVE_AVX2  // setup.py defines it where the compiler knows the set
#include <immintrin.h>

#include <cstdint>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")
#endif

#include "vec_avx2.h"
//
#include "../tile/kernels_of.h"

namespace fskernel {
namespace {
constexpr int kPixels = 6, kVectors = 2;

bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("popcnt");
}
}  // namespace

extern const Kernels kernels_avx2;
constinit const Kernels kernels_avx2 =
    kernels_of<Avx2, kPixels, kVectors>("avx2", &supported, true);
}  // namespace fskernel

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
