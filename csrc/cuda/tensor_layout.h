// How the tensor-core convolution wants its operands: the input as a byte map, the weights in the
// order of the k-steps, and which products make up the sum. Host only.
#pragma once

#include "byte_map.h"
#include "kernel/tensor/tensor_args.h"
#include "tensor_tile.h"

namespace fskernel::cuda {

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
