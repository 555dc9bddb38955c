// Where the activations of a network lie in one block of memory, for one size of image.
#pragma once

#include <string>
#include <vector>

#include "../conv/conv_layer.h"
#include "../map.h"
#include "../pool_readout_encode.h"
#include "moves.h"
#include "windows.h"

namespace fskernel {

enum class PlanOp {
  kEncode,
  kConv,
  kMaxPool,
  kSumPool,
  kMeanPool,
  kConcat,
  kMove,
  kGate,
  kReadout
};

struct PlanNode {
  std::string name;
  PlanOp op;
  std::vector<int> inputs;
  int64_t channels;       // of the output
  int32_t min_bytes;      // of an element of the output
  int32_t x_min, x_max;   // declared range of the output's codes; no kernel's output leaves it
  Geometry geometry;      // of kMaxPool and kSumPool
  MeanPool means;         // of kMeanPool
  std::vector<Run> runs;  // of kConcat: all of its channels, in their order
  Move move;              // of kMove
  Gate gate;              // of kGate, without m and bias
  Encoder encoder;        // of kEncode
  ConvLayer layer;        // of kConv
  int64_t layer_index;    // of kConv and kGate: among the layers of neurons, or -1
  Readout readout;        // of kReadout
  std::vector<double> scale;
  std::vector<float> m, bias;  // m: of kGate
  Stretch ahead[2];            // weights that are read next, in the order of reading

  int groups() const { return op == PlanOp::kConv ? layer.group_count : 0; }
};

// The output map of a node inside the arena; map.data is null, `offset` takes its place.
struct Place {
  Map map;
  int64_t offset;  // of the first element of pixel (0, 0)
};

// A block of the arena that is filled with a pad code before `node` runs.
struct Halo {
  int node;
  Map map;  // without data
  int64_t offset, halo;
  int32_t pad_code;
};

struct PlanLayout {
  std::vector<Place> place;                    // by node
  std::vector<Halo> halos;                     // in the order of their nodes
  std::vector<std::vector<int64_t>> prepared;  // by node and synapse group: offset, or -1
  std::vector<int64_t> sums;                   // by node: offset of a separate group's sums, or -1
  int64_t bytes = 0;
};

// Throws std::invalid_argument if the image is too small, or a map of it too large.
PlanLayout lay_out(const Kernels& kernels, const std::vector<PlanNode>& nodes, int64_t height,
                   int64_t width);

}  // namespace fskernel
