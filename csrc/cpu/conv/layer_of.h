// The layer that a call on tensors describes.
#pragma once

#include "../../conv_call.h"
#include "../scratch.h"
#include "conv_layer.h"

namespace fskernel {

// Its parameters, padded, lie in `parameters`, and it is valid until those are used again.
ConvLayer layer_of(const Kernels& kernels, const ConvCall& call, Scratch& parameters);

}  // namespace fskernel
