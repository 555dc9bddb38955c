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

}  // namespace
}  // namespace fskernel
