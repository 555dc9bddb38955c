#include "plan.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "pack.h"

namespace fskernel {
namespace {

constexpr int64_t kReadoutAhead = 512 << 10;  // bytes of a readout's weights worth fetching ahead

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

// Copies those inputs of a concatenation that do not lie in its memory.
void concat(const Kernels& kernels, const std::vector<PlanNode>& nodes, const PlanLayout& layout,
            int node, uint8_t* arena, const Executor& executor) {
  const Map y = map_in(layout, node, arena);
  int64_t channel = 0;
  for (const int input : nodes[node].inputs) {
    const Map x = map_in(layout, input, arena);
    uint8_t* to = y.data + channel * y.bytes;
    if (x.data != to)
      split(executor, y.height, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          for (int64_t col = 0; col < y.width; ++col)
            kernels.convert(x.data + row * x.row + col * x.pixel, x.bytes,
                            to + row * y.row + col * y.pixel, y.bytes, x.channels);
      });
    channel += nodes[input].channels;
  }
}

}  // namespace

int Plan::add(PlanNode node) {
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

int Plan::encode(const std::string& name, int64_t channels, float inv_step, int32_t limit) {
  PlanNode n{};
  n.name = name;
  n.op = PlanOp::kEncode;
  n.channels = channels;
  n.min_bytes = 2;
  n.encoder = {inv_step, 0.0f, 0, limit};
  return add(std::move(n));
}

int Plan::conv(const std::string& name, const PlanConv& c) {
  PlanNode n{};
  n.name = name;
  n.op = PlanOp::kConv;
  n.inputs = c.inputs;
  n.channels = c.out_channels;
  n.min_bytes = c.K >= 1 && c.K <= 8 ? 1 : 2;
  ConvLayer& layer = n.layer;
  layer.group_count = static_cast<int32_t>(c.groups.size());
  const float* m[2] = {};
  for (int32_t i = 0; i < layer.group_count; ++i) {
    check_packed(kernels_, c.groups[i], c.out_channels, "packed weights of '" + name + "'");
    layer.group[i] = conv_group(kernels_, c.groups[i].packed);
    m[i] = c.groups[i].m;
  }
  layer.separate = separate(layer);
  layer.out_channels = c.out_channels;
  layer.K = c.K;
  layer.limit = c.limit;
  layer.has_residual = c.has_residual;
  layer.residual_scale = c.residual_scale;
  parameters_.push_back(std::make_unique<float[]>(parameter_floats(kernels_, layer)));
  pad_parameters(kernels_, layer, m, c.bias, parameters_.back().get());
  n.layer_index = c.K > 0 ? layers_++ : -1;
  return add(std::move(n));
}

int Plan::pool(const std::string& name, int input, const Geometry& geometry, bool maximum) {
  PlanNode n{};
  n.name = name;
  n.op = maximum ? PlanOp::kMaxPool : PlanOp::kSumPool;
  n.inputs = {input};
  n.channels = nodes_[input].channels;
  n.min_bytes = maximum ? nodes_[input].min_bytes : 2;
  n.geometry = geometry;
  return add(std::move(n));
}

int Plan::concat(const std::string& name, const std::vector<int>& inputs) {
  PlanNode n{};
  n.name = name;
  n.op = PlanOp::kConcat;
  n.inputs = inputs;
  for (const int input : inputs) {
    n.channels += nodes_[input].channels;
    n.min_bytes = std::max(n.min_bytes, nodes_[input].min_bytes);
  }
  return add(std::move(n));
}

int Plan::readout(const std::string& name, const PlanReadout& r) {
  PlanNode n{};
  n.name = name;
  n.op = PlanOp::kReadout;
  n.inputs = {r.input};
  n.channels = r.out;
  n.scale.assign(r.scale, r.scale + r.out);
  n.bias.assign(r.bias, r.bias + r.out);
  n.readout = {r.weight, r.weight_bytes, r.out, r.features, nullptr, nullptr, r.sum_pixels};
  return add(std::move(n));
}

void Plan::settle() {
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
  for (const Piece& p : pieces) all += padded(p);
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
  static const char* const names[] = {"encode", "", "max_pool", "sum_pool", "concat", "readout"};
  std::vector<std::string> out;
  for (const PlanNode& n : nodes_)
    out.push_back(n.op == PlanOp::kConv ? fskernel::describe(kernels_, n.layer)
                                        : names[static_cast<int>(n.op)]);
  return out;
}

std::shared_ptr<const Plan::Sized> Plan::sized(int64_t height, int64_t width) const {
  const FloatEnvironment environment;  // for the divisions
  const std::lock_guard<std::mutex> lock(mutex_);
  auto& entry = sized_[{height, width}];
  if (!entry) {
    auto made = std::make_shared<Sized>();
    try {
      made->layout = lay_out(kernels_, nodes_, height, width);
    } catch (...) {
      sized_.erase({height, width});
      throw;
    }
    made->m.resize(nodes_.size());
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const PlanNode& n = nodes_[i];
      if (n.op != PlanOp::kReadout) continue;
      const Map& x = made->layout.place[n.inputs[0]].map;
      const double pixels = n.readout.sum_pixels ? static_cast<double>(x.height * x.width) : 1.0;
      for (const double scale : n.scale)  // the contract: divided in float64, rounded once
        made->m[i].push_back(static_cast<float>(scale / pixels));
    }
    entry = made;
  }
  return entry;
}

int64_t Plan::arena_bytes(int64_t height, int64_t width) const {
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
      case PlanOp::kEncode:
        fskernel::encode(kernels_, n.encoder,
                         {run.x + index * run.stride_n, run.stride_c, run.stride_h, run.stride_w},
                         map_in(layout, i, arena), executor);
        break;
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
      case PlanOp::kConcat:
        fskernel::concat(kernels_, nodes_, layout, i, arena, executor);
        break;
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
