// Set bits of a stretch of memory. Internal linkage: compiled anew for each instruction set.
#pragma once

#define FS_INLINE __attribute__((always_inline)) inline

namespace fskernel {
namespace {

FS_INLINE int64_t count_bits(const void* words, int64_t bytes) {
  const uint8_t* p = static_cast<const uint8_t*>(words);
  int64_t sum = 0;
  uint64_t chunk;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    __builtin_memcpy(&chunk, p, 8);
    sum += __builtin_popcountll(chunk);
  }
  for (; bytes > 0; --bytes, ++p) sum += __builtin_popcount(*p);
  return sum;
}

// The same for a number of bytes that the compiler knows.
template <int kBytes>
FS_INLINE int64_t count_bits(const uint8_t* words) {
  int64_t sum = 0;
#pragma GCC unroll 32
  for (int i = 0; i + 8 <= kBytes; i += 8) {
    uint64_t chunk;
    __builtin_memcpy(&chunk, words + i, 8);
    sum += __builtin_popcountll(chunk);
  }
  if constexpr (kBytes % 8) sum += count_bits(words + kBytes / 8 * 8, kBytes % 8);
  return sum;
}

}  // namespace
}  // namespace fskernel
