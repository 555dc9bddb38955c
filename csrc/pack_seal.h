// The checksum in the header of packed weights: kernels read the header's numbers as they are, so a
// byte of it that has changed has to be noticed.
#pragma once

#include <cstddef>
#include <cstring>

#include "conv_params.h"

namespace fskernel {

inline uint64_t seal_of(const PackHeader& header) {
  static_assert(offsetof(PackHeader, seal) % sizeof(uint64_t) == 0);
  uint64_t hash = 14695981039346656037u;  // FNV-1a, eight bytes at once
  for (size_t at = 0; at < offsetof(PackHeader, seal); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, reinterpret_cast<const char*>(&header) + at, sizeof word);
    hash = (hash ^ word) * 1099511628211u;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace fskernel
