// What stands in front of packed weights. Plain data, for host and device.
#pragma once

#include <cstdint>

#include "geometry.h"

namespace fskernel {

// Front of every packed weight tensor: a kernel refuses weights packed for another layout.
struct PackHeader {
  char magic[8];
  char backend[32];  // an instruction set of the CPU, or "cuda"
  Geometry geometry;
  int64_t out_channels, in_channels_per_group;
  int32_t x_min, x_max;
  int32_t layout;        // one of the backend's own: Family, or cuda::PackedParts
  int32_t weight_bytes;  // of one weight before it was packed
  uint64_t seal;         // of all that stands before it: a changed byte is noticed
};
constexpr char kPackMagic[8] = {'F', 'S', 'P', 'A', 'C', 'K', '0', '2'};
constexpr int64_t kPackHeaderBytes = 128;  // weights behind it start on a cache line
static_assert(sizeof(PackHeader) <= kPackHeaderBytes);

}  // namespace fskernel
