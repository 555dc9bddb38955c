// Which packed weights a kernel is told to read. On the host they are told apart by their
// addresses, and memory changes hands: a kernel therefore compares the seal of the header that it
// was told with that of the header in front of the weights. Plain data, for host and device.
#pragma once

#include <cstddef>

#include "../../pack_header.h"

namespace fskernel::cuda {

struct Seal {
  const uint64_t* at;
  uint64_t value;
};

// packed: where the header lies.
inline Seal seal_at(const uint8_t* packed, const PackHeader& told) {
  return {reinterpret_cast<const uint64_t*>(packed + offsetof(PackHeader, seal)), told.seal};
}

}  // namespace fskernel::cuda
