// The AVX-VNNI kernel with the two products in AVX-512's encoding of the same instructions: proves
// avxvnni.cpp on processors that have only that encoding. Never chosen automatically.
#include "../tasks.h"

#if FSKERNEL_HAVE_AVXVNNI && \
    FSKERNEL_HAVE_AVX512VNNI  // setup.py defines it where the compiler knows the set
#include <immintrin.h>

#include <cstdint>

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,popcnt,avx512f,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt,avx512f,avx512vl,avx512vnni")
#endif
#define FS_EVEX
#include "vec_avxvnni.h"
//
#include "../tile/kernels_of.h"

namespace fskernel {
namespace {
constexpr int kPixels = 6, kVectors = 2;

bool supported() {
  return __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("popcnt");
}
}  // namespace

extern const Kernels kernels_avxvnni_evex;
constinit const Kernels kernels_avxvnni_evex =
    kernels_of<AvxVnni, kPixels, kVectors>("avxvnni_evex", &supported, false);
}  // namespace fskernel

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
