// Maps of bytes, the form in which the tensor-core kernels read activations and leave them for each
// other: byte planes with a halo around every image. Host only.
#pragma once

#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>

#include "../conv_call.h"
#include "kernel/tensor/tensor_args.h"

namespace fskernel::cuda {

// An input as a map of bytes: [plane][image][rows][cols][channels], halo included.
struct ByteMap {
  int32_t planes;  // 1, or 2: high bytes, low bytes
  bool is_signed;  // the topmost plane
  int64_t images, rows, cols, channels;
  int64_t top, left;  // halo before the first row and pixel
  int64_t image() const { return rows * row(); }
  int64_t row() const { return cols * channels; }
  int64_t plane() const { return images * image(); }
  int64_t bytes() const { return planes * plane() + kSlack; }  // as memory for it has to be

  static constexpr int64_t kSlack = 64;  // the last k-step of the last pixel may read as far behind
};

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// So many that every row begins at a multiple of 16 bytes.
inline int64_t whole_columns(int64_t columns, int64_t stored) {
  return round_up(columns, 16 / std::gcd(stored, int64_t{16}));
}

// Byte planes of codes in [x_min, x_max].
constexpr int32_t planes_of(int32_t x_min, int32_t x_max) {
  return (x_min < 0 ? x_min >= -128 && x_max <= 127 : x_max <= 255) ? 1 : 2;
}

// Channels of a pixel in a map; weights are packed for that many. Copies take 16 bytes:
// neighbouring output pixels and taps have to be multiples of that apart.
inline int64_t stored_channels(const Geometry& g, int64_t channels) {
  const bool half =
      g.stride_w % 2 == 0 && (g.dilation_w % 2 == 0 || g.kernel_w == 1 || g.dilation_w == 1);
  return channels <= 8 && half ? 8 : round_up(channels, 16);
}

// The map that a layer of this geometry reads, made of codes in [x_min, x_max].
inline ByteMap byte_map(const Geometry& g, int64_t images, int64_t height, int64_t width,
                        int64_t channels, int32_t x_min, int32_t x_max) {
  ByteMap map{};
  map.is_signed = x_min < 0;
  map.planes = planes_of(x_min, x_max);
  map.images = images;
  map.channels = stored_channels(g, channels);
  map.rows = height + g.pad_top + g.pad_bottom;
  map.cols = whole_columns(width + g.pad_left + g.pad_right, map.channels);
  map.top = g.pad_top;
  map.left = g.pad_left;
  return map;
}

// The map in which an output of `bytes` an element is kept for the layers that read it. Throws
// std::invalid_argument for a plane that 32-bit offsets do not reach.
inline ByteMap kept_map(const Kept& kept, int64_t images, int64_t height, int64_t width,
                        int64_t channels, int32_t bytes) {
  ByteMap map{};
  map.planes = bytes;
  map.images = images;
  map.channels = kept.stored ? kept.stored : round_up(channels, 16);
  if (map.channels < channels)
    throw std::invalid_argument("a map of " + std::to_string(map.channels) +
                                " stored channels does not hold " + std::to_string(channels));
  map.rows = kept.top + height + kept.bottom;
  map.cols = whole_columns(kept.left + width + kept.right, map.channels);
  map.top = kept.top;
  map.left = kept.left;
  const double bytes_of_plane = static_cast<double>(images) * static_cast<double>(map.rows) *
                                static_cast<double>(map.cols) * static_cast<double>(map.channels);
  if (bytes_of_plane > UINT32_MAX)
    throw std::invalid_argument("a byte plane of a map takes " + std::to_string(bytes_of_plane) +
                                " bytes with its halo: split the batch, at most " +
                                std::to_string(UINT32_MAX) + " are supported");
  return map;
}

// The dense tensor [images, height, width, channels] of 1 or 2 bytes an element, aligned to
// `alignment` bytes, is that map already.
inline bool is_byte_map(const ByteMap& map, int64_t height, int64_t width, int64_t channels,
                        int32_t x_bytes, int64_t alignment) {
  // Without slack behind it, no step may read beyond its last pixel.
  return x_bytes == 1 && map.planes == 1 && !map.is_signed && map.rows == height &&
         map.cols == width && map.channels == channels && channels % 64 == 0 && alignment % 16 == 0;
}

// Where a layer's output of that form lies inside the map that the next layer reads, from its first
// pixel on, which is `first` bytes behind the map's begin.
inline Place place_in(const ByteMap& map, int64_t& first) {
  first = map.top * map.row() + map.left * map.channels;
  return {map.planes == 2 ? kPlanes : kBytes,
          map.channels % 16 == 0,
          map.plane(),
          static_cast<uint32_t>(map.image()),
          static_cast<uint32_t>(map.row()),
          static_cast<uint32_t>(map.channels)};
}

}  // namespace fskernel::cuda
