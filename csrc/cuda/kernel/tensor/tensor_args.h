// What the tensor-core convolution is told. Plain data, for host and device; tensor_layout.h
// and tensor_launch.h fill it in.
#pragma once

#include <cstdint>

#include "../../../neuron.h"
#include "../seal.h"

namespace fskernel::cuda {

// The tensor core multiplies bytes. A 16-bit operand is two planes of bytes, the high one signed,
// the low one unsigned, so all four products of signed and unsigned bytes occur.
enum class Product : int8_t { kU8S8, kS8S8, kS8U8, kU8U8 };  // x, then weight

// One pass over all synapses of a group: a plane (or some bit-planes of it) of x times a plane of
// the weights. Passes are in Horner's order, the most significant first.
struct ConvPass {
  int8_t shift;             // of the sum so far, before this pass
  int8_t x_plane, w_plane;  // 0 = most significant
  int8_t first_bit;         // of the bit-planes of x that are taken
  Product product;
};
constexpr int kMaxPasses = 32;  // 16 single bit-planes x 2 weight planes

// The order in which the synapses of an output pixel are read, in k-steps of 64 bytes:
//   for every chunk: for every kernel row: `inner` steps, `step` bytes apart,
// and row_jump and chunk_jump bytes in between. Two orders occur:
//   bytes: a kernel row is one run of bytes, cut every 64; what the last step reads behind the run
//          meets weights of zero. A 1x1 convolution is one such run, without any jump.
//   taps:  a step is one tap's 64 channels; neighbouring taps follow each other, so that most of
//          what they read was read just before (first-level cache)
struct StepOrder {
  int32_t inner, rows, chunks, step, row_jump, chunk_jump;
  constexpr int32_t steps() const { return inner * rows * chunks; }
};

// A synapse group. x is a map of bytes that carries its own halo, so that no address of a tap needs
// to be checked and one loader serves every geometry. Weights: [plane][step][padded channel][64],
// 16-byte piece c of row n at c ^ (n/2 % 4), and row n holds channel channel_of_row(n).
struct TensorGroup {
  const uint8_t* x;  // plane 0, first tap of output pixel (0, 0) of image 0
  const uint8_t* weights;
  Seal seal;
  const float* m;                    // membrane units per unit of the sum
  int64_t x_plane, w_plane;          // bytes between planes
  uint32_t x_image, x_row, x_pixel;  // bytes between images, output rows, output pixels
  StepOrder order;
  int32_t steps, passes;  // order.steps(); of so many k-steps each
  ConvPass pass[kMaxPasses];
};

// How a tensor's elements lie in memory.
enum Form : int32_t {
  kNone,
  kBytes,   // one byte each
  kShorts,  // int16
  kPlanes,  // a plane of high bytes, a plane of low bytes
  kFloats,  // float32: what words stand for or, where K = 0, membrane potentials; output alone
};

// [image][row][pixel][channel]; strides in bytes.
struct Place {
  Form form;
  bool aligned;  // base and strides are multiples of 16 bytes
  int64_t plane;
  uint32_t image, row, pixel;
};

struct TensorConvArgs {
  TensorGroup group[2];
  int32_t groups;
  bool aligned;  // bias, m and tops are, to 16 bytes
  // Some channels are read or written one by one, because of alignment or of their number.
  bool one_by_one;
  const float* bias;
  Place y_at, residual_at;
  uint8_t* y;
  const uint8_t* residual;
  float residual_scale;
  int64_t* counts;                    // [image] spikes, added to; or null
  float* membrane;                    // [pixel][channel] of rate-coded neurons; or null
  bool membrane_aligned;              // base and pixels are multiples of 16 bytes
  int32_t out_h, out_w, pixels;       // pixels: of all images
  int32_t channels, padded_channels;  // of the output
  int32_t channel_blocks;             // blocks for the channels of one tile of pixels
  int32_t K;                          // 0 = graded output
  float top;                          // 2^K - 1, or the limit of graded output
  const float* tops;                  // largest word of each channel's neurons; null: top for all
  Shape shape;                        // of shaped neurons
  Fitted fitted;                      // of fitted ones
  double step;                        // of words as floats
};

// A thread of a warp ends up with the sums of columns 2t, 2t+1, 8+2t, 8+2t+1, ... of its tile.
// Weight rows are permuted within groups of 64 such that these are neighbouring channels, which it
// can store in one piece: row n holds the group's channel
constexpr int channel_of_row(int n) { return (n & ~63) | (n & 6) << 3 | (n & 56) >> 2 | (n & 1); }

}  // namespace fskernel::cuda
