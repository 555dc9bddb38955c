// A whole network as one list of layers: buffers with halos laid out once for each image size,
// layers called one after the other for one image at a time, weights fetched ahead.
#pragma once

#include <array>
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../executor.h"
#include "../scratch.h"
#include "plan_layout.h"

namespace fskernel {

// One synapse group of a layer. `packed` has to stay until the plan has settled.
struct PlanGroup {
  std::span<const uint8_t> packed;
  std::span<const float> m;  // [out channels], copied at once
  Geometry geometry;
};

// What one layer of neurons is made of.
struct PlanConv {
  std::vector<int> inputs;  // one for each synapse group, then the residual's, if any
  std::vector<PlanGroup> groups;
  std::span<const float> bias;  // [out channels], copied at once
  bool has_residual;
  float residual_scale;
  int32_t K, limit;
  std::span<const float> top;  // [out channels]: largest words, copied at once; empty: 2^K - 1
  // Of shaped neurons, [1 or out channels, 2, segments], copied at once; else empty.
  std::span<const float> table;
  int64_t tables = 0;
  // Of fitted neurons, [3, steps], copied at once; else empty. K is then the bits of their codes.
  std::span<const float> fitted;
  int32_t zero = 0;
};

// The product of two maps. The second may have one pixel, or one channel.
struct PlanGate {
  int a, b;
  int32_t zero_a, zero_b;
  std::span<const float> m, bias;  // [channels], copied at once
  int32_t K, limit;
};

struct PlanReadout {
  int input;
  std::span<const uint8_t> weight;  // [out, features]; has to stay until the plan has settled
  int32_t weight_bytes;             // of one weight
  std::span<const double> scale;    // [out]: m times the number of pixels that are summed
  std::span<const float> bias;      // [out]
  bool sum_pixels;
};

// One run over a batch of images [images, channels, height, width].
struct PlanRun {
  const float* x;
  int64_t images, height, width;
  int64_t stride_n, stride_c, stride_h, stride_w;  // in floats
  int32_t plane_bits;
  float* logits;    // [images, classes]
  int64_t* counts;  // [images, layers of neurons]: spikes; or null
  double* seconds;  // [nodes], added to, which runs images one after the other; or null
};

// Built node by node, in the order in which they run: an encoder first, a readout last. Every adder
// returns the node's index, and throws std::invalid_argument, naming the node, where what it is
// given does not fit the nodes it reads: no argument can make a run touch memory that is not the
// plan's. Once it has settled it is constant: several threads may run it at once, each with its own
// memory.
class Plan {
 public:
  explicit Plan(const Kernels& kernels) : kernels_(kernels) {}

  int encode(const std::string& name, int64_t channels, float inv_step, int32_t limit);
  int conv(const std::string& name, const PlanConv& conv);
  int pool(const std::string& name, int input, const Geometry& geometry, bool maximum);
  int mean_pool(const std::string& name, int input, const MeanPool& means);
  // Of runs of channels; none: all channels of every input in turn. The runs say which input, the
  // first of its channels, and how many.
  int concat(const std::string& name, const std::vector<int>& inputs,
             const std::vector<std::array<int64_t, 3>>& runs = {});
  // The second input, if there is one, is the map whose size is taken.
  int move(const std::string& name, const std::vector<int>& inputs, const Move& move);
  int gate(const std::string& name, const PlanGate& gate);
  int readout(const std::string& name, const PlanReadout& readout);

  int64_t channels(int node = 0) const { return nodes_.at(node).channels; }
  int64_t classes() const { return nodes_.back().channels; }
  int64_t layers() const { return layers_; }
  int64_t nodes() const { return static_cast<int64_t>(nodes_.size()); }
  const Kernels& kernels() const { return kernels_; }
  // For every node, what runs it: operand family and tile of a convolution, else the operator.
  std::vector<std::string> describe() const;
  // Bytes of activations and scratch that one image in flight needs.
  int64_t arena_bytes(int64_t height, int64_t width) const;
  // Of the values that were encoded since this was asked last: how many, and how many of them lie
  // beyond the range.
  std::pair<int64_t, int64_t> take_encoded() const {
    return {encoded_.exchange(0), beyond_.exchange(0)};
  }

  // After the readout: copies all weights into one block, in the order in which they are read, and
  // decides what is fetched ahead. A plan runs without it, slower.
  void settle();

  // Throws std::invalid_argument if an image is too small or too large for the network.
  void run(const PlanRun& run, const Executor& executor) const;

 private:
  // Everything that depends on the size of the image.
  struct Sized {
    PlanLayout layout;
    std::vector<std::vector<float>> m;  // of readouts, by node
    std::vector<Spans> spans;           // of mean pools, by node
  };
  struct KeptSize {
    int64_t height, width;
    std::shared_ptr<const Sized> sized;
  };

  std::shared_ptr<const Sized> sized(int64_t height, int64_t width) const;
  PlanNode node(const std::string& name, PlanOp op, std::vector<int> inputs) const;
  int add(PlanNode node);
  void check_complete() const;
  void fetch_ahead();
  void run_image(const PlanRun& run, const Sized& sized, int64_t image, uint8_t* arena,
                 const Executor& executor) const;
  int64_t run_conv(const PlanRun& run, const Sized& sized, int node, uint8_t* arena,
                   const Executor& executor) const;

  const Kernels& kernels_;
  std::vector<PlanNode> nodes_;
  std::vector<std::unique_ptr<float[]>> parameters_;
  int64_t layers_ = 0;
  bool settled_ = false;
  Scratch weights_;

  mutable std::atomic<int64_t> encoded_{0}, beyond_{0};
  mutable std::mutex mutex_;
  mutable std::list<KeptSize> sized_;  // those that were used last, the latest first
  mutable std::vector<std::unique_ptr<Scratch>> arenas_;  // those that nobody uses at the moment
};

}  // namespace fskernel
