// The header of packed weights against what it could be mistaken for. Its checksum: kernels read
// the header's numbers as they are, so a byte of it that has changed has to be noticed. And the
// range of codes that the weights were packed for, which decides how a kernel reads them.
#pragma once

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>

#include "conv_call.h"
#include "pack_header.h"

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

inline constexpr char kDamaged[] =
    " is damaged: its header does not fit the layer or its size; pack the weights again";

// Throws std::invalid_argument for a header of which a byte has changed: nothing is computed with
// its numbers before. `name` is the argument's.
inline void check_sealed(const PackHeader& header, const std::string& name) {
  if (header.seal != seal_of(header)) throw std::invalid_argument(name + kDamaged);
}

// Throws std::invalid_argument where the caller declares another range. `name` is the argument's.
inline void check_declared(const PackHeader& header, const ConvInput& in, const std::string& name) {
  if (!in.declared || (header.x_min == in.x_min && header.x_max == in.x_max)) return;
  const auto range = [](int32_t low, int32_t high) {
    return '[' + std::to_string(low) + ", " + std::to_string(high) + ']';
  };
  throw std::invalid_argument(name + " was packed for codes in " +
                              range(header.x_min, header.x_max) + ", but the call declares " +
                              range(in.x_min, in.x_max) + ": pack the weights for these codes");
}

}  // namespace fskernel
