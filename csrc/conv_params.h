// What a kernel is told: sizes, strides and raw pointers. No torch and no standard containers, so
// that any file, whatever instruction set it is compiled for, may include it.
#pragma once

#include <cstdint>

namespace fskernel {

// How the operands of one multiplication are laid out in a 32-bit lane.
enum Family : int32_t {
  kU8S8 = 0,      // 4 spike words of 8 bits x 4 int8 weights
  kS16S16 = 1,    // 2 signed 16-bit values x 2 int16 weights
  kDepthU8 = 2,   // depthwise: one 8-bit spike word per lane, widened on load
  kDepthS16 = 3,  // depthwise: one signed 16-bit value per lane, widened on load
};

struct Geometry {
  int32_t kernel_h, kernel_w, stride_h, stride_w;
  int32_t pad_top, pad_bottom, pad_left, pad_right;
  int32_t dilation_h, dilation_w, groups, pad_code;
};

// Front of every packed weight tensor: a kernel refuses weights packed for another layout.
struct PackHeader {
  char magic[8];
  char isa[32];
  Geometry geometry;
  int64_t out_channels, in_channels_per_group;
  int32_t x_min, x_max, family, lanes;
};
constexpr char kPackMagic[8] = {'F', 'S', 'P', 'A', 'C', 'K', '0', '1'};
constexpr int64_t kPackHeaderBytes = 128;  // weights behind it start on a cache line
static_assert(sizeof(PackHeader) <= kPackHeaderBytes);

// One synapse group inside a task. The kernel walks, for every output pixel, over
// outer_runs x inner_runs runs of `dwords` contiguous 32-bit operands.
struct TaskGroup {
  const uint8_t* x;                  // first operand of output pixel (0, 0)
  int64_t pixel_stride, row_stride;  // bytes between neighbouring output pixels and rows
  int64_t outer_runs, outer_step, inner_runs, inner_step, dwords;
  const uint8_t* weights;  // of this task's block of output channels
  const float* m;          // membrane units per unit of the sum, padded to whole vectors
  int32_t family;
  int32_t plane_groups;  // 1 = the whole operand in one multiplication
  int32_t plane_bits;    // bit-planes in each plane group
};

// One block of output channels of one image, rows [row_begin, row_end) of `cols` pixels each (the
// last row may be shorter, because an image of affine addresses is cut into rows at will).
struct ConvTask {
  TaskGroup group[2];
  int32_t group_count;
  const int32_t* sums2;  // sums of a second group that was computed beforehand, or null
  int64_t sums2_stride;  // in int32, between pixels
  const float* bias;     // padded like m
  const uint8_t* residual;
  int64_t residual_bytes;  // of one element: 0 = no residual, 1 = uint8, 2 = int16
  float residual_scale;
  uint8_t* y;        // first output channel of pixel (0, 0)
  int32_t* raw;      // if not null: store the sums of group[0] here and nothing else
  int64_t y_stride;  // elements between pixels: of y, residual and raw
  int64_t row_begin, row_end, cols, pixels;
  int32_t vectors;   // vectors in the block
  int32_t channels;  // output channels in the block, the last vector may be partly filled
  int32_t K;         // 0 = graded output
  int32_t limit;     // of graded output
};

struct PoolTask {
  const void* x;
  void* y;
  int64_t height, width, channels, out_h, out_w;
  Geometry geometry;
  int32_t x_bytes;  // 1 = uint8, 2 = int16
  int64_t row_begin, row_end;
};

struct ReadoutTask {
  const int64_t* x;    // [features], widened or summed beforehand
  const void* weight;  // [out, features]
  int32_t weight_bytes;
  int64_t features;
  const float *m, *bias;
  float* y;
  int64_t begin, end;  // output channels
};

struct EncodeTask {
  const float* x;                        // one image
  int64_t stride_c, stride_h, stride_w;  // in floats
  int64_t channels, width;
  float inv_step, offset;
  int32_t K;  // 0 = graded
  int32_t limit;
  void* y;
  int64_t row_begin, row_end;
};

// Blocks of output channels that one call of a convolution kernel may take.
constexpr int32_t kMaxParts = 8;

// What one instruction set offers.
struct Kernels {
  const char* name;
  bool (*supported)();
  bool automatic;  // false: runs only when it is asked for by name
  bool has_u8s8;
  int32_t lanes, max_vectors, max_pixels;
  // Runs `parts` blocks of output channels over the same pixels, tile by tile, so that neighbouring
  // channels of a pixel are written while its cache line is at hand. Returns the spikes.
  int64_t (*conv)(const ConvTask* part, int32_t parts);
  void (*max_pool)(const PoolTask&);
  void (*sum_pool)(const PoolTask&);
  void (*channel_sums)(const void* x, int32_t x_bytes, int64_t pixels, int64_t channels,
                       int64_t* sums);
  void (*readout)(const ReadoutTask&);
  void (*encode)(const EncodeTask&);
  void (*convert)(const void* from, int32_t from_bytes, void* to, int32_t to_bytes, int64_t n);
  int64_t (*spikes_in)(const void* words, int64_t bytes);
};

}  // namespace fskernel
