#include "map.h"

#include <algorithm>
#include <cstring>

namespace fskernel {

Map dense_map(const void* data, int32_t bytes, int64_t height, int64_t width, int64_t channels) {
  auto* at = const_cast<uint8_t*>(static_cast<const uint8_t*>(data));
  return {at, channels * bytes, width * channels * bytes, bytes, height, width, channels};
}

void fill(uint8_t* to, int32_t bytes, int32_t code, int64_t n) {
  if (bytes == 1)
    std::memset(to, code, n);
  else
    std::fill_n(reinterpret_cast<int16_t*>(to), n, static_cast<int16_t>(code));
}

}  // namespace fskernel
