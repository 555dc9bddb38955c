// Weights in the order in which a kernel reads them:
//   header | [group][block of output channels][run][dword][vector][lane] 32-bit operands
// A run is the stretch of operands that lie side by side in the input: kernel_w*channels of them
// when groups and dilation_w are 1, else the channels of one tap. Runs are padded to whole dwords,
// and the last vector of a group to whole lanes, with zero weights.
#pragma once

#include <string>

#include "../../conv_call.h"
#include "../../pack_header.h"
#include "../tasks.h"

namespace fskernel {

struct Layout {
  int32_t family;
  int32_t x_bytes;  // element of the prepared input: 1 = uint8, 2 = int16
  bool depthwise;
  int64_t groups;    // 1 for depthwise, whose channels are lanes
  int64_t channels;  // output channels of a group
  int64_t vectors;   // of a group
  int64_t blocks;    // of a group; their numbers of vectors differ by at most one
  int64_t outer_runs, inner_runs, run_length, dwords;
  int64_t vector_bytes;  // packed weights of one vector of output channels
  // Depthwise weights follow a second time, as DepthTask wants them; 0 operands: they do not.
  int64_t depth_outputs, depth_operands, depth_blocks, depth_at;
  int64_t bytes;  // header included
};

// First vector of a block; that of block `blocks` is the end.
inline int64_t block_begin(const Layout& l, int64_t block) { return l.vectors * block / l.blocks; }

// Output channels in a block of DepthTask.
inline int64_t depth_channels(const Kernels& kernels, const Layout& l) {
  return depth_vectors(l.family) * kernels.lanes;
}

// What the header of `packed` must say for these sizes, and where everything lies.
Layout layout_of(const Kernels& kernels, const Geometry& geometry, int64_t out_channels,
                 int64_t in_channels_per_group, int32_t weight_bytes, int32_t x_min, int32_t x_max);
Layout layout_of(const Kernels& kernels, const PackHeader& header);

// weight: int8 or int16 [O, I/groups, kh, kw]; packed: layout.bytes bytes.
void pack(const Kernels& kernels, const Layout& layout, const Geometry& geometry,
          int64_t out_channels, int64_t in_channels_per_group, int32_t x_min, int32_t x_max,
          const void* weight, int32_t weight_bytes, uint8_t* packed);

// Throws std::invalid_argument if packed weights were made for other kernels, shapes or geometry.
// `name` is the argument's name in the message. Returns the header.
PackHeader check_packed(const Kernels& kernels, const ConvInput& input, int64_t out_channels,
                        const std::string& name);

}  // namespace fskernel
