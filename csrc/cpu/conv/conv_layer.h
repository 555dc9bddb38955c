// A layer of neurons, ready to run: packed weights, and parameters as its kernels read them.
#pragma once

#include <string>

#include "pack.h"

namespace fskernel {

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
  Shape shape;              // tables of channels' own are padded, too
  Fitted fitted;            // stays where it is
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

// Throws std::invalid_argument unless a table of shaped neurons is finite and has 32, 64, 128 or
// 256 segments.
void check_shape(const Shape& shape, int64_t tables, int32_t K, const std::string& name);

// Throws std::invalid_argument unless fitted neurons have 1 to 16 steps of finite numbers, whole
// worths up to 2^15 in magnitude, and a zero among codes of K bits.
void check_fitted(const Fitted& fitted, int32_t K, const std::string& name);

// Floats that pad_parameters needs, and the padding itself: fills in m, bias and top, and may
// forget what it is given. top: null for neurons of no ceiling. Of layer.shape, tables of channels'
// own are replaced by padded ones; one table for all stays where it is.
int64_t parameter_floats(const Kernels& kernels, const ConvLayer& layer);
void pad_parameters(const Kernels& kernels, ConvLayer& layer, const float* const m[2],
                    const float* bias, const float* top, float* to);

// Reads the header of weights that check_packed has accepted.
ConvGroup conv_group(const Kernels& kernels, const uint8_t* packed);

// Have the layer's two groups different blocks of output channels?
inline bool separate(const ConvLayer& layer) {
  return layer.group_count > 1 && layer.group[0].layout.groups != layer.group[1].layout.groups;
}

// Operand family of a layer's first group and the tile that its whole blocks run in.
std::string describe(const Kernels& kernels, const ConvLayer& layer);

}  // namespace fskernel
