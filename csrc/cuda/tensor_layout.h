// How the tensor-core convolution wants its operands: the input as byte planes with a halo, the
// weights in the order of the k-steps, and which products make up the sum. Host only.
#pragma once

#include "../conv_call.h"
#include "kernel/tensor_args.h"
#include "tensor_tile.h"

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

// Byte planes of codes in [x_min, x_max].
constexpr int32_t planes_of(int32_t x_min, int32_t x_max) {
  return (x_min < 0 ? x_min >= -128 && x_max <= 127 : x_max <= 255) ? 1 : 2;
}

// The map that a layer of this geometry reads, made of codes in [x_min, x_max].
ByteMap byte_map(const Geometry& geometry, int64_t images, int64_t height, int64_t width,
                 int64_t channels, int32_t x_min, int32_t x_max);

// The map in which an output of `bytes` an element is kept for the layers that read it. Throws
// std::invalid_argument for a plane that 32-bit offsets do not reach.
ByteMap kept_map(const Kept& kept, int64_t images, int64_t height, int64_t width, int64_t channels,
                 int32_t bytes);

// The dense tensor [images, height, width, channels] of 1 or 2 bytes an element, aligned to
// `alignment` bytes, is that map already.
bool is_byte_map(const ByteMap& map, int64_t height, int64_t width, int64_t channels,
                 int32_t x_bytes, int64_t alignment);

// Where a layer's output of that form lies inside the map that the next layer reads, from its first
// pixel on, which is `first` bytes behind the map's begin.
Place place_in(const ByteMap& map, int64_t& first);

// Channels of a pixel in a map; weights are packed for that many.
int64_t stored_channels(const Geometry& geometry, int64_t channels);

// `row` = bytes of a row of the map.
StepOrder step_order(const Geometry& geometry, int64_t stored_channels, int64_t row);

// Products whose sum, in Horner's order, is x*w. Returns their number.
int32_t horner_passes(const ByteMap& map, int32_t x_max, int32_t weight_bytes, int32_t plane_bits,
                      ConvPass (&pass)[kMaxPasses]);

// Packed weights are a header and behind it TensorGroup::weights. weight: int8 or int16 [O, I, kh,
// kw]; packed: tensor_packed_bytes() bytes.
int64_t tensor_packed_bytes(const PackHeader& header);
void pack_tensor_weights(const PackHeader& header, const void* weight, uint8_t* packed);

// Lets a group read from a map that has at least the halo that the geometry asks for. The first tap
// is the returned number of bytes behind the map's begin.
int64_t read_from(const ByteMap& map, const Geometry& geometry, TensorGroup& group);

// All that a call says except where the maps of its dense inputs are; `map` receives the maps that
// its inputs are, or are wanted as. Throws std::invalid_argument for sizes that the kernel's 32-bit
// offsets do not reach, and for kept maps that do not serve the call.
TensorConvArgs tensor_conv_args(const ConvCall& call, const PackHeader (&headers)[2],
                                ByteMap (&map)[2]);

}  // namespace fskernel::cuda
