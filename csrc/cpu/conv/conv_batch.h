// Convolutions on batches, as an operator hands them over: dense tensors, or float values that are
// encoded, and decoded, image by image.
#pragma once

#include <string>

#include "../../conv_call.h"
#include "../../float_types.h"
#include "../executor.h"
#include "../tasks.h"

namespace fskernel {

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
