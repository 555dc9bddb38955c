// Pseudo-random cases: one seed, one case, on every machine.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <random>
#include <vector>

#include "geometry.h"

namespace fskernel::testing {

struct Random {
  std::mt19937_64 engine;

  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine() % static_cast<uint64_t>(high - low + 1));
  }
  int32_t in32(int64_t low, int64_t high) { return static_cast<int32_t>(in(low, high)); }
  bool chance(int percent) { return in(1, 100) <= percent; }
  template <class T>
  T pick(std::initializer_list<T> from) {
    return from.begin()[in(0, static_cast<int64_t>(from.size()) - 1)];
  }
};

// Words of 1..15 steps, or graded values.
struct Kind {
  explicit Kind(Random& r) {
    K = r.in32(0, 15);
    x_max = K ? (1 << K) - 1 : r.pick({127, 2047, 32767});
    x_min = K ? 0 : -x_max;
    bytes = K && K <= 8 ? 1 : 2;
  }
  // Codes, often at the ends of the range.
  std::vector<int32_t> codes(Random& r, int64_t n) const {
    std::vector<int32_t> v(static_cast<size_t>(n));
    for (int32_t& x : v) x = r.chance(10) ? x_max : r.chance(10) ? x_min : r.in32(x_min, x_max);
    return v;
  }

  int32_t K, x_min, x_max, bytes;
};

// Codes in elements of one byte or two.
inline std::vector<uint8_t> as_bytes(const std::vector<int32_t>& codes, int32_t bytes) {
  std::vector<uint8_t> v;
  for (const int32_t x : codes) {
    v.push_back(static_cast<uint8_t>(x));
    if (bytes == 2) v.push_back(static_cast<uint8_t>(x >> 8));
  }
  return v;
}

// Such an element, as it was stored.
inline int32_t code_at(const std::vector<uint8_t>& v, int64_t i, int32_t bytes) {
  return bytes == 1 ? v[i] : static_cast<int16_t>(v[2 * i] | v[2 * i + 1] << 8);
}

// A window over [height, width] that gives [out_h, out_w].
struct Window {
  Window(Random& r, int64_t out_h, int64_t out_w, int32_t largest) {
    g.kernel_h = r.in32(1, largest), g.kernel_w = r.in32(1, largest);
    g.stride_h = r.in32(1, 3), g.stride_w = r.in32(1, 3);
    g.dilation_h = r.in32(1, 2), g.dilation_w = r.in32(1, 2);
    g.groups = 1;
    const int64_t need_h = (out_h - 1) * g.stride_h + g.dilation_h * (g.kernel_h - 1) + 1;
    const int64_t need_w = (out_w - 1) * g.stride_w + g.dilation_w * (g.kernel_w - 1) + 1;
    if (need_h > 4) g.pad_top = r.in32(0, 2), g.pad_bottom = r.in32(0, 1);
    if (need_w > 4) g.pad_left = r.in32(0, 2), g.pad_right = r.in32(0, 1);
    height = need_h - g.pad_top - g.pad_bottom + r.in(0, g.stride_h - 1);
    width = need_w - g.pad_left - g.pad_right + r.in(0, g.stride_w - 1);
  }

  Geometry g{};
  int64_t height, width;
};

}  // namespace fskernel::testing
