// What a CPU kernel is told: sizes, strides and raw pointers. No torch and no standard containers,
// so that any file, whatever instruction set it is compiled for, may include it.
#pragma once

#include <cstdint>

#include "../float_types.h"
#include "../geometry.h"
#include "../neuron.h"

namespace fskernel {

// How the operands of one multiplication are laid out in a 32-bit lane.
enum Family : int32_t {
  kU8S8 = 0,      // 4 spike words of 8 bits x 4 int8 weights
  kS16S16 = 1,    // 2 signed 16-bit values x 2 int16 weights
  kDepthU8 = 2,   // depthwise: 4 taps of a channel, 8-bit spike words x int8 weights
  kDepthS16 = 3,  // depthwise: 2 taps of a channel, signed 16-bit values x int16 weights
};

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
  bool adds;             // the sums go to those in memory; only where they do go to memory
  int64_t x_step;        // of rate-coded neurons: bytes from the input of a time step to the next
};

struct Stretch {
  const uint8_t* at;
  int64_t bytes;
};

// One block of output channels of one image, rows [row_begin, row_end) of `cols` pixels each (the
// last row may be shorter, because an image of affine addresses is cut into rows at will). Strides
// are in bytes, between neighbouring pixels and between rows; a halo may lie between two rows.
struct ConvTask {
  TaskGroup group[2];
  int32_t group_count;
  const int32_t* sums2;  // sums of a second group that was computed beforehand, or null
  int64_t sums2_pixel, sums2_row;
  const float* bias;  // padded like m
  const float* top;   // largest word of each neuron, padded like m; not read where K = 0
  Shape shape;        // tables of channels' own are padded like m
  Fitted fitted;
  const uint8_t* residual;
  int64_t residual_pixel, residual_row;
  int64_t residual_bytes;  // of one element: 0 = no residual, 1 = uint8, 2 = int16
  float residual_scale;
  uint8_t* y;  // first output channel of pixel (0, 0); where `raw`, int32 sums
  int64_t y_pixel, y_row;
  int64_t y_bytes;  // of one element: 1 or 2; 4: floats, words * step or, K = 0, the membranes
  double step;      // of the float output
  bool raw;         // store the sums of group[0] and nothing else
  bool count;       // spikes are asked for; else any number may be returned
  bool saturates;   // storing a byte that saturates clips as the neuron does: every top is 255 and
                    // no membrane potential, or what its table gives, reaches 2^31; it may be NaN
  int64_t row_begin, row_end, cols, pixels;
  int32_t vectors;   // vectors in the block
  int32_t channels;  // output channels in the block, the last vector may be partly filled
  int32_t K;         // 0 = no neurons: graded values, or membranes as floats
  int32_t limit;     // of graded output
  Stretch ahead[2];  // what will be read after this task, in this order, fetched meanwhile
  // Of rate-coded neurons, which simulate `steps` time steps; 0: FS neurons. y and residual are
  // spike trains, one byte a neuron, bit s = step s.
  int32_t steps;
  int64_t sums2_step;  // bytes from the sums2 of a time step to the next
  float* membrane;     // first output channel of pixel (0, 0), in thresholds
  int64_t membrane_pixel, membrane_row;
};

// A depthwise layer without anything beside its one synapse group, rows [row_begin, row_end). One
// operand holds the same channel of `depth_taps` neighbouring taps of a kernel row; it serves
// `outputs` neighbouring output pixels, whose weights are shifted against each other. Channels are
// taken in blocks of depth_channels(), in depth_order(). Strides in bytes.
struct DepthTask {
  const uint8_t* x;                   // first operand of output pixel (0, 0)
  int64_t pixel_stride, row_stride;   // between neighbouring output pixels and rows
  int64_t tap_stride, kernel_stride;  // between taps of a kernel row, and between kernel rows
  int64_t kernel_h, kernel_w, outputs, operands;  // operands: of a kernel row
  const uint8_t* weights;                         // [block][kernel row][operand][output][vector]
  const float *m, *bias, *top;                    // [block][vector], in depth_order
  Shape shape;                                    // one table for all
  Fitted fitted;
  uint8_t* y;
  int64_t y_pixel, y_row;
  double step;  // as in ConvTask
  int32_t y_bytes, family, K, limit;
  bool count;  // as in ConvTask
  int64_t channels, out_w, row_begin, row_end;
};
constexpr int64_t kMaxDepthWidth = 32;  // of a kernel; a wider one is computed tap by tap

// Taps in an operand, and vectors in a block of channels.
constexpr int32_t depth_taps(int32_t family) { return family == kDepthU8 ? 4 : 2; }
constexpr int32_t depth_vectors(int32_t family) { return depth_taps(family); }
// Channel, inside its block, of a lane of a vector: what interleaving taps inside parts of 4 lanes
// leads to.
constexpr int32_t depth_order(int32_t family, int32_t vector, int32_t lane) {
  return 4 * depth_vectors(family) * (lane / 4) + 4 * vector + lane % 4;
}

constexpr int32_t kTrainSteps = 8;  // time steps in a spike train: the bits of a byte

// Where the spikes of some rows of spike trains are written down, one after the other: by row, time
// step, column and channel, each as the position of its weights, (column*channels + channel) *
// scale modulo 2^32.
struct ListTask {
  const uint8_t* x;    // first row of them, dense
  const uint8_t* end;  // of the memory that may be read
  int64_t row;         // bytes from one row to the next
  int64_t rows, width, channels;
  int32_t steps;
  uint32_t scale;
  uint32_t* events;  // room for all neurons in all steps and a vector more
  uint32_t* starts;  // [rows][steps][width + 1]: where in `events` a column's begin
};

// One synapse group of an EventTask. Weights: [tap][input channel][channel of the block], int16 or
// int32.
struct EventGroup {
  const uint32_t *events, *starts;   // of ListTask
  int64_t first_row, height, width;  // of the image; the first of its rows that is listed
  Geometry geometry;
  const uint8_t* weights;
  uint32_t column_bytes;  // of the weights of a tap
  bool direct;            // positions in a row of the image fit 31 bits
  const float* m;         // padded to whole vectors, like all parameters
};

// One block of output channels of rate-coded neurons, rows [row_begin, row_end) of out_w pixels,
// whose sums are added up spike by spike. Strides in bytes.
struct EventTask {
  EventGroup group[2];
  int32_t group_count, weight_bytes;
  const float* bias;
  const uint8_t* residual;  // spike trains, or null
  int64_t residual_pixel, residual_row;
  float residual_scale;
  uint8_t* y;
  int64_t y_pixel, y_row;
  float* membrane;
  int64_t membrane_pixel, membrane_row;
  int32_t steps;
  int32_t vectors;     // of weights in a row: of 2*lanes int16 or lanes int32
  int32_t channels;    // of the block that exist
  uint32_t* gathered;  // room for all inputs of a neuron and a vector more
  int64_t row_begin, row_end, out_w;
};

// Weights of a block of EventTask that a row of a tap may have, in vectors.
constexpr int32_t kEventVectors = 8;

// Rows [row_begin, row_end) of spike trains behind a max-pool: of each window, at each step, the
// spikes of the input that has fired most so far.
struct GateTask {
  const uint8_t* x;       // spike trains [height][width][channels]
  const int32_t* totals;  // spikes before, in the same order
  uint8_t* y;
  int64_t height, width, channels, out_w;
  Geometry geometry;
  int32_t steps;
  int64_t row_begin, row_end;
};

// Rows [row_begin, row_end) of one image's pooled map. Strides in bytes.
struct PoolTask {
  const uint8_t* x;
  int64_t x_pixel, x_row;
  uint8_t* y;
  int64_t y_pixel, y_row;
  int64_t height, width, channels, out_w;
  Geometry geometry;
  int32_t x_bytes;  // 1 = uint8, 2 = int16
  int64_t row_begin, row_end;
};

// Rows [row_begin, row_end) of the products of two maps of one image, element by element. b may be
// one pixel for the whole map (strides 0), or one channel for all of a's. Strides in bytes.
struct ProductTask {
  const uint8_t* a;
  int64_t a_pixel, a_row;
  const uint8_t* b;
  int64_t b_pixel, b_row;
  uint8_t* y;
  int64_t y_pixel, y_row;
  int32_t a_bytes, b_bytes, y_bytes;  // of one element: 1 = uint8, 2 = int16
  bool one_channel;                   // of b
  int32_t zero_a, zero_b;             // codes of zero
  const float *m, *bias;              // [channels]
  int32_t K;                          // 0 = graded
  int32_t limit;                      // of graded values
  bool count;                         // as in ConvTask
  int64_t channels, width;
  int64_t row_begin, row_end;
};

// A linear readout's features, in the form that its kernel multiplies: x itself, or
// x = piece[0] + 256*piece[1] with pieces so small that products add up in 32 bits for a while.
struct ReadoutTask {
  const int64_t* wide;  // [features], read only if there are no pieces
  const int16_t* piece[2];
  int32_t pieces;      // 0, 1 or 2
  const void* weight;  // [out, features]
  int32_t weight_bytes;
  int64_t features;
  const float *m, *bias;
  float* y;
  int64_t begin, end;  // output channels
};

struct EncodeTask {
  const void* x;  // one image
  FloatType type;
  int64_t stride_c, stride_h, stride_w;  // in elements
  int64_t channels, width;
  float inv_step, offset;
  int32_t K;  // 0 = graded
  int32_t limit;
  uint8_t* y;
  int64_t y_pixel, y_row;  // in bytes
  int32_t y_bytes;
  int64_t row_begin, row_end;
};

// What an encoder met: the least value, at most 0, and the number of values beyond its range.
struct Encoded {
  float least = 0.0f;
  int64_t beyond = 0;
  void add(const Encoded& part) {
    least = part.least < least ? part.least : least;
    beyond += part.beyond;
  }
};

// Rows [row_begin, row_end) of the real numbers that codes stand for.
struct DecodeTask {
  const uint8_t* x;  // [rows][width][channels], dense
  int32_t x_bytes;   // 1 = uint8, 2 = int16, not negative; 4 = floats, which are taken as they are
  double step;
  int64_t channels, width;
  void* y;
  FloatType type;
  int64_t stride_c, stride_h, stride_w;  // in elements; stride_c or stride_w is 1
  int64_t row_begin, row_end;
};

// Blocks of output channels that one call of a convolution kernel may take.
constexpr int32_t kMaxParts = 8;

// What sums spike by spike cost in a time step, in multiplications of one vector of output channels
// in a dense convolution: for 64 inputs that are searched for spikes; for a pixel of a block of
// output channels; for a spike that reaches it; and for a vector of its weights. Measured.
struct EventCosts {
  double list, pixel, spike, vector;
};

// What one instruction set offers.
struct Kernels {
  const char* name;
  bool (*supported)();
  bool automatic;  // false: runs only when it is asked for by name
  bool has_u8s8;
  int32_t lanes, max_vectors, max_pixels;
  int32_t narrow_pixels;  // of tiles of at most two vectors; 0 = max_pixels
  EventCosts event_costs;
  // Runs `parts` blocks of output channels over the same pixels, tile by tile, so that neighbouring
  // channels of a pixel are written while its cache line is at hand. Returns the spikes.
  int64_t (*conv)(const ConvTask* part, int32_t parts);
  int64_t (*depth)(const DepthTask&);  // returns the spikes
  // The same blocks for rate-coded neurons, whose spikes are not counted.
  void (*rate)(const ConvTask* part, int32_t parts);
  void (*list_events)(const ListTask&);
  void (*events)(const EventTask&);
  // Neurons whose current is the same at all time steps.
  void (*integrate)(const float* current, float* membrane, uint8_t* trains, int64_t n,
                    int32_t steps);
  // The spikes of a time step, 0 or 1, of n trains; and how many there are in each of all steps,
  // which are added.
  void (*spikes_at)(const uint8_t* trains, int32_t step, uint8_t* to, int64_t n);
  void (*count_steps)(const uint8_t* trains, int64_t n, int32_t steps, int64_t* counts);
  void (*gate)(const GateTask&);
  void (*add_totals)(const uint8_t* trains, int32_t* totals, int64_t n);
  void (*max_pool)(const PoolTask&);
  void (*sum_pool)(const PoolTask&);
  int64_t (*product)(const ProductTask&);  // returns the spikes
  // sums[c] += x[pixel][c] over `pixels` pixels that lie x_pixel bytes apart.
  void (*channel_sums)(const uint8_t* x, int32_t x_bytes, int64_t x_pixel, int64_t pixels,
                       int64_t channels, int32_t* sums);
  void (*readout)(const ReadoutTask&);
  Encoded (*encode)(const EncodeTask&);
  void (*decode)(const DecodeTask&);
  void (*convert)(const void* from, int32_t from_bytes, void* to, int32_t to_bytes, int64_t n);
  int64_t (*spikes_in)(const void* words, int64_t bytes);
  // A tile's multiplications alone, on registers: the rate that no convolution can exceed. Returns
  // the multiply-accumulates done, 0 where the family does not exist.
  int64_t (*peak)(int32_t family, int64_t rounds);
};

}  // namespace fskernel
