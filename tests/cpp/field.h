// A map in guarded memory: the activations of one image, with a halo around them, gaps between
// pixels and rows, and slack behind.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/map.h"
#include "memory.h"

namespace fskernel::testing {

struct Frame {
  int64_t halo, pixel_gap, row_gap;  // in pixels, elements, elements
  int64_t slack;                     // in bytes
};

// Values as 1- or 2-byte elements, and back. The kernels' 1-byte elements are unsigned.
inline void put_element(uint8_t* to, int32_t bytes, int32_t value) {
  std::memcpy(to, &value, bytes);  // little-endian, as all machines that the kernels run on
}
inline int32_t element(const uint8_t* from, int32_t bytes) {
  int16_t v;
  if (bytes == 1) return *from;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// All of them in memory of their own, aligned as their type is.
inline const uint8_t* take_elements(Memory& memory, const std::vector<int32_t>& values,
                                    int32_t bytes) {
  const auto n = static_cast<int64_t>(values.size());
  uint8_t* to = memory.take(n * bytes, bytes);
  for (int64_t i = 0; i < n; ++i) put_element(to + i * bytes, bytes, values[i]);
  return to;
}

class Field {
 public:
  Field(Memory& memory, int64_t height, int64_t width, int64_t channels, int32_t bytes, Frame f)
      : frame_(f) {
    map_.bytes = bytes;
    map_.height = height;
    map_.width = width;
    map_.channels = channels;
    map_.pixel = (channels + f.pixel_gap) * bytes;
    map_.row = (width + 2 * f.halo) * map_.pixel + f.row_gap * bytes;
    // Ends with the last channel of the last pixel of the halo.
    size_ = (height + 2 * f.halo) * map_.row - (f.row_gap + f.pixel_gap) * bytes + f.slack;
    begin_ = memory.take(size_, bytes);
    map_.data = begin_ + f.halo * (map_.row + map_.pixel);
    std::memset(begin_, 0xc3, size_);  // what a gap holds must not matter
  }

  const Map& map() const { return map_; }

  // values [height, width, channels] inside, `code` in the halo.
  void put(const int32_t* values, int32_t code) {
    const int64_t h = frame_.halo;
    for (int64_t y = -h; y < map_.height + h; ++y)
      for (int64_t x = -h; x < map_.width + h; ++x) {
        const bool inside = y >= 0 && y < map_.height && x >= 0 && x < map_.width;
        for (int64_t c = 0; c < map_.channels; ++c)
          put_element(at(y, x, c), map_.bytes, inside ? *values++ : code);
      }
  }
  std::vector<int32_t> values() const {
    std::vector<int32_t> out;
    out.reserve(map_.height * map_.width * map_.channels);
    for (int64_t y = 0; y < map_.height; ++y)
      for (int64_t x = 0; x < map_.width; ++x)
        for (int64_t c = 0; c < map_.channels; ++c) out.push_back(element(at(y, x, c), map_.bytes));
    return out;
  }

  // Has anything changed since remember(), apart from the elements inside if they may?
  void remember() { before_.assign(begin_, begin_ + size_); }
  bool untouched(bool inside_may_change) {
    if (inside_may_change)
      for (int64_t y = 0; y < map_.height; ++y)
        for (int64_t x = 0; x < map_.width; ++x)
          std::copy_n(at(y, x, 0), map_.channels * map_.bytes,
                      before_.data() + (at(y, x, 0) - begin_));
    return std::equal(before_.begin(), before_.end(), begin_);
  }

 private:
  uint8_t* at(int64_t y, int64_t x, int64_t c) const {
    return map_.data + y * map_.row + x * map_.pixel + c * map_.bytes;
  }

  Frame frame_;
  Map map_{};
  uint8_t* begin_;
  int64_t size_;
  std::vector<uint8_t> before_;
};

}  // namespace fskernel::testing
