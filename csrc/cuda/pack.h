// Weights as the CUDA kernels read them, packed on the host:
//   header | [kernel_h][kernel_w][I/groups][O], for the direct kernels
//   and, unless the convolution is grouped, from a multiple of 128 bytes on,
//   header | in the order of k-steps (tensor_layout.h), for the tensor-core kernels
// Both, because a neuron's two synapse groups have to run in one kernel.
#pragma once

#include <string>

#include "../conv_call.h"
#include "../pack_header.h"

namespace fskernel::cuda {

// What stands in the headers of these weights where the CPU's have an instruction set's name.
constexpr char kPackName[] = "cuda";

// `layout` of the header: which parts there are.
enum PackedParts : int32_t { kDirectWeights = 0, kTensorWeights = 1 };
inline bool has_tensor_weights(const PackHeader& header) { return header.layout == kTensorWeights; }

// The parts that a convolution of this geometry has.
inline PackedParts packed_parts(const Geometry& geometry) {
  // Also for the image's three channels: with a third (7x7) or a seventh (3x3) of its products in
  // use, the tensor core is still ahead of the direct kernel's 3.4 instructions a product.
  return geometry.groups == 1 ? kTensorWeights : kDirectWeights;
}

// Where the second part begins.
int64_t tensor_part(const PackHeader& header);

PackHeader pack_header(const Geometry& geometry, int64_t out_channels,
                       int64_t in_channels_per_group, int32_t weight_bytes, int32_t x_min,
                       int32_t x_max);

int64_t packed_bytes(const PackHeader& header);

// weight: int8 or int16 [O, I/groups, kh, kw]; packed: packed_bytes(header) bytes.
void pack(const PackHeader& header, const void* weight, uint8_t* packed);

// Throws std::invalid_argument if weights with this header cannot serve this input. `name` is the
// argument's name in the message.
void check_header(const PackHeader& header, const ConvInput& input, int64_t out_channels,
                  const std::string& name);

}  // namespace fskernel::cuda
