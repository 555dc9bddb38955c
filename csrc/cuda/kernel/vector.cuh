// A few neighbouring elements of 8 or 16 bits, moved in one access.
#pragma once

#include "gpu.h"

namespace fskernel::cuda {

// n elements from `from`, which is aligned to all of them; n is 1 or 4.
template <class T, int n>
FS_DEVICE void load_vector(const T* from, int (&to)[n]) {
  static_assert(n == 1 || n == 4);
  if constexpr (n == 1) {
    to[0] = gpu::load_readonly(from);
  } else if constexpr (sizeof(T) == 1) {
    const uint32_t word = gpu::load_readonly(reinterpret_cast<const uint32_t*>(from));
    FS_UNROLL
    for (int i = 0; i < n; ++i) to[i] = static_cast<T>(word >> 8 * i);
  } else {
    const gpu::Bytes8 words = gpu::load_readonly(reinterpret_cast<const gpu::Bytes8*>(from));
    FS_UNROLL
    for (int i = 0; i < n; ++i) to[i] = static_cast<T>(words.word[i / 2] >> 16 * (i % 2));
  }
}

// n elements of 1 or 2 bytes to `to`, which is aligned to all of them.
template <class T, int n>
FS_DEVICE void store_vector(T* to, const int (&from)[n]) {
  static_assert(n == 1 || n == 4);
  if constexpr (n == 1) {
    gpu::store_global<T>(to, static_cast<T>(from[0]));
  } else if constexpr (sizeof(T) == 1) {
    uint32_t word = 0;
    FS_UNROLL
    for (int i = 0; i < n; ++i) word |= (static_cast<uint32_t>(from[i]) & 255u) << 8 * i;
    gpu::store_global<uint32_t>(reinterpret_cast<uint32_t*>(to), word);
  } else {
    gpu::Bytes8 words{};
    FS_UNROLL
    for (int i = 0; i < n; ++i)
      words.word[i / 2] |= (static_cast<uint32_t>(from[i]) & 65535u) << 16 * (i % 2);
    gpu::store_global<gpu::Bytes8>(reinterpret_cast<gpu::Bytes8*>(to), words);
  }
}

// The same for activations whose size is known at run time: 1 = uint8, 2 = int16. `at` counts
// elements.
template <int n>
FS_DEVICE void load_codes(const uint8_t* from, int bytes, int64_t at, int (&to)[n]) {
  if (bytes == 1)
    load_vector(from + at, to);
  else
    load_vector(reinterpret_cast<const int16_t*>(from) + at, to);
}
template <int n>
FS_DEVICE void store_codes(uint8_t* to, int bytes, int64_t at, const int (&from)[n]) {
  if (bytes == 1)
    store_vector(to + at, from);
  else
    store_vector(reinterpret_cast<int16_t*>(to) + at, from);
}

// N bytes, N = 8 or 16, in one piece.
template <int N>
FS_DEVICE void load_bytes(const uint8_t* from, uint32_t (&to)[N / 4]) {
  if constexpr (N == 16) {
    const gpu::Bytes16 v = gpu::load_global(reinterpret_cast<const gpu::Bytes16*>(from));
    FS_UNROLL
    for (int i = 0; i < 4; ++i) to[i] = v.word[i];
  } else {
    const gpu::Bytes8 v = gpu::load_global(reinterpret_cast<const gpu::Bytes8*>(from));
    FS_UNROLL
    for (int i = 0; i < 2; ++i) to[i] = v.word[i];
  }
}
template <int N>
FS_DEVICE void store_bytes(uint8_t* to, const uint32_t (&from)[N / 4]) {
  if constexpr (N == 16)
    gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to),
                      gpu::Bytes16{{from[0], from[1], from[2], from[3]}});
  else
    gpu::store_global(reinterpret_cast<gpu::Bytes8*>(to), gpu::Bytes8{{from[0], from[1]}});
}

}  // namespace fskernel::cuda
