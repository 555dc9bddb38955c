// Maps as a convolution's kernel can read them: with the padding around them, in operands of its
// type.
#pragma once

#include "../executor.h"
#include "../map.h"
#include "conv_layer.h"

namespace fskernel {

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

}  // namespace fskernel
