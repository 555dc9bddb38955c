#include "plan.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "../../checked_sizes.h"
#include "../conv/conv_image.h"
#include "../conv/prepare.h"

namespace fskernel {
namespace {

constexpr int64_t kReadoutAhead = 512 << 10;  // bytes of a readout's weights worth fetching ahead
constexpr size_t kMostSizes = 32;             // of images whose layout is kept

int64_t readout_bytes(const Readout& r) { return r.out * r.features * r.weight_bytes; }

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void fill_halo(const Halo& h, uint8_t* block) {
  const int32_t bytes = h.map.bytes;
  const int64_t side = h.halo * h.map.pixel, rows = h.map.height + 2 * h.halo;
  for (int64_t row = 0; row < rows; ++row) {
    uint8_t* at = block + row * h.map.row;
    if (row < h.halo || row >= h.halo + h.map.height) {
      fill(at, bytes, h.pad_code, h.map.row / bytes);
    } else {
      fill(at, bytes, h.pad_code, side / bytes);
      fill(at + h.map.row - side, bytes, h.pad_code, side / bytes);
    }
  }
}

Map map_in(const PlanLayout& layout, int node, uint8_t* arena) {
  Map m = layout.place[node].map;
  m.data = arena + layout.place[node].offset;
  return m;
}

// How many channels each of two strands has, if the runs are single ones of both in turn, as behind
// a channel shuffle; else 0.
int64_t braided(const std::vector<Run>& runs) {
  if (runs.size() < 4 || runs.size() % 2) return 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& first = runs[i % 2];
    const int64_t turn = static_cast<int64_t>(i / 2);
    if (runs[i].input != first.input || runs[i].first != first.first + turn || runs[i].count != 1)
      return 0;
  }
  return static_cast<int64_t>(runs.size() / 2);
}

// Copies those runs of a concatenation that do not lie in its memory, all of one element type.
void concat(const PlanNode& n, const PlanLayout& layout, const Map& y, uint8_t* arena,
            const Executor& executor) {
  Map to = y;
  if (const int64_t count = braided(n.runs)) {
    Map strands[2];
    for (int i = 0; i < 2; ++i) {
      strands[i] = map_in(layout, n.inputs[n.runs[i].input], arena);
      strands[i].data += n.runs[i].first * strands[i].bytes;
      strands[i].channels = count;
    }
    return braid_channels(strands[0], strands[1], y, executor);
  }
  for (const Run& run : n.runs) {
    Map from = map_in(layout, n.inputs[run.input], arena);
    from.data += run.first * from.bytes;
    to.channels = run.count;
    if (from.data != to.data) copy_channels(from, to, executor);
    to.data += run.count * to.bytes;
  }
}

}  // namespace

void Plan::check_complete() const {
  if (nodes_.empty() || nodes_.back().op != PlanOp::kReadout)
    throw std::invalid_argument("the plan has no readout: a network ends with one");
}

void Plan::settle() {
  check_complete();
  if (settled_) return;
  struct Piece {
    const uint8_t** at;
    int64_t bytes;
  };
  std::vector<Piece> pieces;
  std::vector<const uint8_t*> readouts(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    PlanNode& n = nodes_[i];
    for (int g = n.groups() - 1; g >= 0; --g)  // the second group's are read first
      pieces.push_back(
          {&n.layer.group[g].weights, n.layer.group[g].layout.bytes - kPackHeaderBytes});
    if (n.op != PlanOp::kReadout) continue;
    readouts[i] = static_cast<const uint8_t*>(n.readout.weight);
    pieces.push_back({&readouts[i], readout_bytes(n.readout)});
  }
  const auto padded = [](const Piece& p) {
    return (p.bytes + kReadSlack + kCacheLine - 1) / kCacheLine * kCacheLine;
  };
  int64_t all = 0;
  for (const Piece& p : pieces) all = checked_sum({all, padded(p)});
  Scratch block;
  uint8_t* to = block.reserve(all);
  for (const Piece& p : pieces) {
    std::memcpy(to, *p.at, p.bytes);
    *p.at = to;
    to += padded(p);
  }
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (readouts[i]) nodes_[i].readout.weight = readouts[i];
  weights_ = std::move(block);
  fetch_ahead();
  settled_ = true;
}

// Every node's weights are fetched while the last convolution before it runs.
void Plan::fetch_ahead() {
  PlanNode* before = nullptr;
  for (PlanNode& n : nodes_) {
    Stretch ahead[2] = {};
    if (n.op == PlanOp::kConv)
      leading_weights(kernels_, n.layer, ahead);
    else if (n.op == PlanOp::kReadout)
      ahead[0] = {static_cast<const uint8_t*>(n.readout.weight),
                  std::min(kReadoutAhead, readout_bytes(n.readout))};
    else
      continue;
    if (before) std::copy_n(ahead, 2, before->ahead);
    // Depthwise kernels fetch nothing.
    before = n.op == PlanOp::kConv && !n.layer.depth_m ? &n : nullptr;
  }
}

std::vector<std::string> Plan::describe() const {
  static const char* const names[] = {"encode", "", "max_pool", "sum_pool", "mean_pool",
                                      "concat", "", "gate",     "readout"};
  std::vector<std::string> out;
  for (const PlanNode& n : nodes_)
    out.push_back(n.op == PlanOp::kConv   ? fskernel::describe(kernels_, n.layer)
                  : n.op == PlanOp::kMove ? name_of(n.move.kind)
                                          : names[static_cast<int>(n.op)]);
  return out;
}

std::shared_ptr<const Plan::Sized> Plan::sized(int64_t height, int64_t width) const {
  const FloatEnvironment environment;  // for the divisions
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto known = std::find_if(sized_.begin(), sized_.end(), [&](const KeptSize& kept) {
    return kept.height == height && kept.width == width;
  });
  if (known != sized_.end()) {
    sized_.splice(sized_.begin(), sized_, known);
    return known->sized;
  }
  auto made = std::make_shared<Sized>();
  made->layout = lay_out(kernels_, nodes_, height, width);
  made->m.resize(nodes_.size());
  made->spans.resize(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const PlanNode& n = nodes_[i];
    if (n.op != PlanOp::kReadout && n.op != PlanOp::kMeanPool) continue;
    const Map& x = made->layout.place[n.inputs[0]].map;
    if (n.op == PlanOp::kMeanPool) {
      made->spans[i] = spans_of(n.means.windows, x.height, x.width);
      continue;
    }
    const double pixels = n.readout.sum_pixels ? static_cast<double>(x.height * x.width) : 1.0;
    for (const double scale : n.scale)  // the contract: divided in float64, rounded once
      made->m[i].push_back(static_cast<float>(scale / pixels));
  }
  if (sized_.size() >= kMostSizes) sized_.pop_back();
  sized_.push_front({height, width, made});
  return made;
}

int64_t Plan::arena_bytes(int64_t height, int64_t width) const {
  check_complete();
  return sized(height, width)->layout.bytes;
}

int64_t Plan::run_conv(const PlanRun& run, const Sized& sized, int node, uint8_t* arena,
                       const Executor& executor) const {
  const PlanNode& n = nodes_[node];
  const PlanLayout& layout = sized.layout;
  ConvImage image{};
  for (int32_t g = 0; g < n.layer.group_count; ++g) {
    const ConvGroup& group = n.layer.group[g];
    Map x = map_in(layout, n.inputs[g], arena);
    if (layout.prepared[node][g] >= 0) {
      x = prepare(kernels_, group, x, arena + layout.prepared[node][g], executor);
    } else {
      const Geometry& geometry = group.header.geometry;
      x.data -= geometry.pad_top * x.row + geometry.pad_left * x.pixel;
    }
    image.x[g] = x;
  }
  if (n.layer.has_residual) image.residual = map_in(layout, n.inputs.back(), arena);
  image.y = map_in(layout, node, arena);
  if (n.layer.separate) image.sums = reinterpret_cast<int32_t*>(arena + layout.sums[node]);
  image.plane_bits = run.plane_bits;
  image.count = run.counts != nullptr;
  std::copy_n(n.ahead, 2, image.ahead);
  return conv_image(kernels_, n.layer, image, executor);
}

void Plan::run_image(const PlanRun& run, const Sized& sized, int64_t index, uint8_t* arena,
                     const Executor& executor) const {
  const PlanLayout& layout = sized.layout;
  auto halo = layout.halos.begin();
  double clock = run.seconds ? now() : 0.0;
  for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
    const PlanNode& n = nodes_[i];
    for (; halo != layout.halos.end() && halo->node == i; ++halo)
      fill_halo(*halo, arena + halo->offset);
    switch (n.op) {
      case PlanOp::kEncode: {
        const Map y = map_in(layout, i, arena);
        const Encoded seen = fskernel::encode(kernels_, n.encoder,
                                              {run.x + index * run.stride_n, FloatType::kFloat32,
                                               run.stride_c, run.stride_h, run.stride_w},
                                              y, executor);
        encoded_ += y.height * y.width * y.channels;
        beyond_ += seen.beyond;
        break;
      }
      case PlanOp::kConv: {
        const int64_t spikes = run_conv(run, sized, i, arena, executor);
        if (run.counts && n.layer_index >= 0) run.counts[index * layers_ + n.layer_index] = spikes;
        break;
      }
      case PlanOp::kMaxPool:
      case PlanOp::kSumPool:
        fskernel::pool(kernels_, n.geometry, n.op == PlanOp::kMaxPool,
                       map_in(layout, n.inputs[0], arena), map_in(layout, i, arena), executor);
        break;
      case PlanOp::kMeanPool:
        fskernel::mean_pool(kernels_, n.means, sized.spans[i], map_in(layout, n.inputs[0], arena),
                            map_in(layout, i, arena), executor);
        break;
      case PlanOp::kConcat:
        fskernel::concat(n, layout, map_in(layout, i, arena), arena, executor);
        break;
      case PlanOp::kMove:
        fskernel::move(n.move, map_in(layout, n.inputs[0], arena), map_in(layout, i, arena),
                       executor);
        break;
      case PlanOp::kGate: {
        Gate gate = n.gate;
        gate.m = n.m.data();
        gate.bias = n.bias.data();
        const int64_t spikes = fskernel::product(
            kernels_, gate, map_in(layout, n.inputs[0], arena), map_in(layout, n.inputs[1], arena),
            map_in(layout, i, arena), run.counts != nullptr, executor);
        if (run.counts && n.layer_index >= 0) run.counts[index * layers_ + n.layer_index] = spikes;
        break;
      }
      case PlanOp::kReadout: {
        Readout r = n.readout;
        r.m = sized.m[i].data();
        r.bias = n.bias.data();
        fskernel::readout(kernels_, r, map_in(layout, n.inputs[0], arena),
                          run.logits + index * r.out, executor);
        break;
      }
    }
    if (run.seconds) {
      const double then = clock;
      clock = now();
      run.seconds[i] += clock - then;
    }
  }
}

void Plan::run(const PlanRun& run, const Executor& executor) const {
  check_complete();
  const std::shared_ptr<const Sized> sized = this->sized(run.height, run.width);
  const auto one = [&](int64_t index, const Executor& inner) {
    std::unique_ptr<Scratch> arena;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!arenas_.empty()) {
        arena = std::move(arenas_.back());
        arenas_.pop_back();
      }
    }
    if (!arena) arena = std::make_unique<Scratch>();
    run_image(run, *sized, index, arena->reserve(sized->layout.bytes), inner);
    const std::lock_guard<std::mutex> lock(mutex_);
    arenas_.push_back(std::move(arena));
  };
  if (run.seconds)  // side by side they would all add to the same clock
    for (int64_t n = 0; n < run.images; ++n) one(n, executor);
  else
    each_image(executor, run.images, one);
}

}  // namespace fskernel
