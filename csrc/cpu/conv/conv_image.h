// One image through a layer: cuts the work into tasks and runs an instruction set's kernel on them.
#pragma once

#include "../executor.h"
#include "../map.h"
#include "conv_layer.h"

namespace fskernel {

// What one image brings to a layer. x begins at the padding's first row and column.
struct ConvImage {
  Map x[2], residual, y;
  int32_t* sums;  // for a separate second group: out_h*out_w*channels and a vector more
  int32_t plane_bits;
  bool count;        // else the spikes that are returned mean nothing, and cost less
  Stretch ahead[2];  // weights of the next layer
  // Of rate-coded neurons, as in ConvTask; 0 steps: FS neurons. x are the spikes of the first time
  // step, those of the next lie x_step bytes further; sums have room for all steps.
  int32_t steps;
  int64_t x_step[2];
  float* membrane;  // [y.height, y.width, y.channels]
};

// Writes image.y and returns its spikes, where they are counted.
int64_t conv_image(const Kernels& kernels, const ConvLayer& layer, const ConvImage& image,
                   const Executor& executor);

// Weights that the first task of a layer reads: what is worth fetching ahead. In the order in which
// they are read.
void leading_weights(const Kernels& kernels, const ConvLayer& layer, Stretch (&to)[2]);

}  // namespace fskernel
