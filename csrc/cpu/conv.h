// A whole FS convolution: cuts the work into tasks and runs an ISA's kernel on them.
#pragma once

#include <stdexcept>
#include <string>

#include "../conv_call.h"
#include "../float_types.h"
#include "executor.h"
#include "pack.h"
#include "tasks.h"

namespace fskernel {

// One image's activations: element (y, x, c) lies at data + y*row + x*pixel + c*bytes.
struct Map {
  uint8_t* data;
  int64_t pixel, row;  // in bytes
  int32_t bytes;       // of one element
  int64_t height, width, channels;
};
Map dense_map(const void* data, int32_t bytes, int64_t height, int64_t width, int64_t channels);

// One image of float values [channels, height, width], of any float type; strides in elements.
struct Pixels {
  const void* x;
  FloatType type;
  int64_t stride_c, stride_h, stride_w;
};
struct FloatMap {
  void* data;
  FloatType type;
  int64_t stride_c, stride_h, stride_w;  // stride_c or stride_w is 1
};

// n elements of 1 or 2 bytes become `code`.
void fill(uint8_t* to, int32_t bytes, int32_t code, int64_t n);

constexpr int64_t kReadSlack = 64;  // kernels may read a vector beyond the end of prepared memory

// One synapse group of a layer, ready to run: m is padded to whole vectors.
struct ConvGroup {
  PackHeader header;
  Layout layout;
  const uint8_t* weights;
  const float* m;
};

struct ConvLayer {
  ConvGroup group[2];
  int32_t group_count;
  bool separate;            // the second group has other blocks: its sums are computed beforehand
  const float *bias, *top;  // padded
  int64_t out_channels;
  int32_t K, limit;
  double step;  // above 0: float output, as in ConvCall
  bool has_residual;
  float residual_scale;
  // Of a depthwise layer with nothing beside its one group, for DepthTask; else null.
  const float *depth_m, *depth_bias, *depth_top;
  bool saturates;  // as in ConvTask; set by pad_parameters
};

// Throws std::invalid_argument unless every top is a whole number from 0 to 2^K - 1.
void check_tops(const float* top, int64_t n, int32_t K, const std::string& name);

// Floats that pad_parameters needs, and the padding itself: fills in m, bias and top, and may
// forget what it is given. top: null for neurons of no ceiling.
int64_t parameter_floats(const Kernels& kernels, const ConvLayer& layer);
void pad_parameters(const Kernels& kernels, ConvLayer& layer, const float* const m[2],
                    const float* bias, const float* top, float* to);

// Reads the header of weights that check_packed has accepted.
ConvGroup conv_group(const Kernels& kernels, const uint8_t* packed);

// May the kernel read this map as it is? It must hold the group's padding in a halo of at least
// that size, operands of the group's type and, unless `slack` bytes may be read behind its end,
// runs of whole operands, and where taps of a row are read as one run, no gaps between pixels.
bool readable(const Kernels& kernels, const ConvGroup& group, const Map& x, int64_t halo,
              bool slack);
// Bytes of a prepared copy of x with the group's padding around it, and the copy itself. The map
// that is returned begins at the first row and column of the padding.
int64_t prepared_bytes(const ConvGroup& group, const Map& x);
Map prepare(const Kernels& kernels, const ConvGroup& group, const Map& x, uint8_t* to,
            const Executor& executor);

// The same with codes that are made of float values.
Map prepare(const Kernels& kernels, const ConvGroup& group, const Encoder& encoder, const Pixels& x,
            int64_t height, int64_t width, int64_t channels, uint8_t* to, const Executor& executor,
            Encoded& encoded);

// What one image brings to a layer. x begins at the padding's first row and column.
struct ConvImage {
  Map x[2], residual, y;
  int32_t* sums;  // for a separate second group: out_h*out_w*channels and a vector more
  int32_t plane_bits;
  bool count;        // else the spikes that are returned mean nothing, and cost less
  Stretch ahead[2];  // weights of the next layer
};

// Writes image.y and returns its spikes, where they are counted.
int64_t conv_image(const Kernels& kernels, const ConvLayer& layer, const ConvImage& image,
                   const Executor& executor);

// Have the layer's two groups different blocks of output channels?
inline bool separate(const ConvLayer& layer) {
  return layer.group_count > 1 && layer.group[0].layout.groups != layer.group[1].layout.groups;
}

// Weights that the first task of a layer reads: what is worth fetching ahead. In the order in which
// they are read.
void leading_weights(const Kernels& kernels, const ConvLayer& layer, Stretch (&to)[2]);

// Operand family of a layer's first group and the tile that its whole blocks run in.
std::string describe(const Kernels& kernels, const ConvLayer& layer);

// ---- a batch of dense tensors -------------------------------------------------------------------

// Throws std::invalid_argument if packed weights were made for other kernels, shapes or geometry.
// `name` is the argument's name in the message. Returns the header.
PackHeader check_packed(const Kernels& kernels, const ConvInput& input, int64_t out_channels,
                        const std::string& name);

// Returns what ran, as describe() does.
std::string conv(const Kernels& kernels, const ConvCall& call, const Executor& executor);

// A batch of float values in, and out: every image is encoded, goes through the layer and is
// written as floats while it is in the cache.
struct FloatConv {
  // One input, whose x, height, width and channels are the values'; step > 0; y is unused.
  ConvCall call;
  Encoder encoder;
  FloatType type;                                  // of both
  int64_t stride_n, stride_c, stride_h, stride_w;  // of the values, in elements
  void* y;  // [N, OH, OW, O] or, channels first, [N, O, OH, OW]
  bool channels_first;
};
// Returns what ran; `encoded` is what the encoder met.
std::string conv(const Kernels& kernels, const FloatConv& call, const Executor& executor,
                 Encoded& encoded);

}  // namespace fskernel
