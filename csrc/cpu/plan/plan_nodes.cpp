// How a plan is built: what every node checks before it is added.
#include <algorithm>
#include <cmath>

#include "../../checked_sizes.h"
#include "plan.h"

namespace fskernel {
namespace {

constexpr int64_t kMostNodes = 10000;
constexpr int64_t kMostChannels = 1 << 24;

[[noreturn]] void fail(const PlanNode& node, const std::string& why) {
  throw std::invalid_argument("'" + node.name + "': " + why);
}

void check_limit(const PlanNode& node, int32_t limit) {
  if (limit < 1 || limit > 32767)
    fail(node,
         "the limit of its graded values is " + std::to_string(limit) + ": expected 1 to 32767");
}

}  // namespace

// A new node, after it was checked that there may be one and that what it reads comes before it.
PlanNode Plan::node(const std::string& name, PlanOp op, std::vector<int> inputs) const {
  PlanNode n{};
  n.name = name;
  n.op = op;
  n.inputs = std::move(inputs);
  if (settled_) fail(n, "the plan is registered, nothing can be added to it");
  if (nodes_.empty() != (op == PlanOp::kEncode))
    fail(n, "a plan has one encoder, and that is its first node");
  if (!nodes_.empty() && nodes_.back().op == PlanOp::kReadout)
    fail(n, "it comes after the readout, which is the last node");
  if (static_cast<int64_t>(nodes_.size()) >= kMostNodes)
    fail(n, "a plan has at most " + std::to_string(kMostNodes) + " nodes");
  if (op != PlanOp::kEncode && n.inputs.empty()) fail(n, "it reads nothing");
  for (const int input : n.inputs)
    if (input < 0 || input >= static_cast<int>(nodes_.size()))
      fail(n, "it reads node " + std::to_string(input) + ", but there are " +
                  std::to_string(nodes_.size()) + " before it");
  return n;
}

int Plan::add(PlanNode node) {
  if (node.channels < 1 || node.channels > kMostChannels)
    fail(node, "it has " + std::to_string(node.channels) + " channels: expected 1 to " +
                   std::to_string(kMostChannels));
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

int Plan::encode(const std::string& name, int64_t channels, float inv_step, int32_t limit) {
  PlanNode n = node(name, PlanOp::kEncode, {});
  if (!(inv_step > 0.0f && std::isfinite(inv_step)))
    fail(n, "1/step is " + std::to_string(inv_step) + ": expected a positive float32");
  check_limit(n, limit);
  n.channels = channels;
  n.min_bytes = 2;
  n.x_min = -limit;
  n.x_max = limit;
  n.encoder = {inv_step, 0.0f, 0, limit};
  return add(std::move(n));
}

int Plan::conv(const std::string& name, const PlanConv& c) {
  PlanNode n = node(name, PlanOp::kConv, c.inputs);
  const size_t groups = c.groups.size();
  if (groups < 1 || groups > 2)
    fail(n, "it has " + std::to_string(groups) + " synapse groups: a neuron has one or two");
  if (n.inputs.size() != groups + c.has_residual)
    fail(n, "it reads " + std::to_string(n.inputs.size()) + " nodes with " +
                std::to_string(groups) + " synapse groups" +
                (c.has_residual ? " and a residual" : ""));
  if (c.K < 0 || c.K > 15) fail(n, "K is " + std::to_string(c.K) + ": expected 0 to 15");
  check_limit(n, c.limit);
  n.channels = static_cast<int64_t>(c.bias.size());
  n.min_bytes = word_bytes(c.K);
  n.x_min = c.K ? 0 : -c.limit;
  n.x_max = c.K ? (1 << c.K) - 1 : c.limit;
  ConvLayer& layer = n.layer;
  layer.group_count = static_cast<int32_t>(groups);
  const float* m[2] = {};
  for (int32_t i = 0; i < layer.group_count; ++i) {
    const PlanGroup& group = c.groups[i];
    const PlanNode& x = nodes_[n.inputs[i]];
    if (group.m.size() != c.bias.size())
      fail(n, "m has " + std::to_string(group.m.size()) + " numbers, but the bias " +
                  std::to_string(c.bias.size()));
    ConvInput in{};
    in.channels = x.channels;
    in.packed = group.packed.data();
    in.packed_bytes = static_cast<int64_t>(group.packed.size());
    in.geometry = group.geometry;
    const PackHeader header =
        check_packed(kernels_, in, n.channels, "packed weights of '" + name + "'");
    if (x.x_min < header.x_min || x.x_max > header.x_max)
      fail(n, "its weights were packed for codes in [" + std::to_string(header.x_min) + ", " +
                  std::to_string(header.x_max) + "], but '" + x.name + "' gives [" +
                  std::to_string(x.x_min) + ", " + std::to_string(x.x_max) + "]");
    layer.group[i] = conv_group(kernels_, group.packed.data());
    m[i] = group.m.data();
  }
  if (c.has_residual && nodes_[n.inputs.back()].channels != n.channels)
    fail(n, "its residual '" + nodes_[n.inputs.back()].name + "' has " +
                std::to_string(nodes_[n.inputs.back()].channels) + " channels, but it has " +
                std::to_string(n.channels));
  if (!c.top.empty() && c.top.size() != c.bias.size())
    fail(n, "top has " + std::to_string(c.top.size()) + " numbers, but the bias " +
                std::to_string(c.bias.size()));
  check_tops(c.top.data(), c.top.size(), c.K, "top of '" + name + "'");
  if (!c.table.empty()) {
    if ((c.tables != 1 && c.tables != n.channels) || c.table.size() % (2 * c.tables) ||
        !c.top.empty())
      fail(n, "its neurons are shaped: expected one table, or one for each of its " +
                  std::to_string(n.channels) + " channels, and no top");
    auto* table = parameters_.emplace_back(std::make_unique<float[]>(c.table.size())).get();
    std::copy(c.table.begin(), c.table.end(), table);
    const auto row = static_cast<int64_t>(c.table.size()) / c.tables;
    layer.shape = {table, static_cast<int32_t>(std::min<int64_t>(row / 2, 1 << 20)),
                   c.tables > 1 ? row : 0};
    check_shape(layer.shape, c.tables, c.K, "table of '" + name + "'");
  }
  if (!c.fitted.empty()) {
    if (c.fitted.size() % 3 || c.fitted.size() > 3 * kMostSteps || !c.top.empty() ||
        !c.table.empty())
      fail(n,
           "its neurons are fitted: expected 3 numbers for each of 1 to 16 steps, no top and no "
           "table");
    auto* lines = parameters_.emplace_back(std::make_unique<float[]>(c.fitted.size())).get();
    std::copy(c.fitted.begin(), c.fitted.end(), lines);
    layer.fitted = {lines, static_cast<int32_t>(c.fitted.size() / 3), static_cast<float>(c.zero)};
    check_fitted(layer.fitted, c.K, "fitted of '" + name + "'");
  }
  layer.separate = separate(layer);
  layer.out_channels = n.channels;
  layer.K = c.K;
  layer.limit = c.limit;
  layer.has_residual = c.has_residual;
  layer.residual_scale = c.residual_scale;
  parameters_.push_back(std::make_unique<float[]>(parameter_floats(kernels_, layer)));
  pad_parameters(kernels_, layer, m, c.bias.data(), c.top.empty() ? nullptr : c.top.data(),
                 parameters_.back().get());
  n.layer_index = c.K > 0 ? layers_++ : -1;
  return add(std::move(n));
}

int Plan::pool(const std::string& name, int input, const Geometry& g, bool maximum) {
  PlanNode n = node(name, maximum ? PlanOp::kMaxPool : PlanOp::kSumPool, {input});
  const PlanNode& x = nodes_[input];
  if (std::max(g.pad_top, g.pad_bottom) > int64_t{g.dilation_h} * (g.kernel_h - 1) ||
      std::max(g.pad_left, g.pad_right) > int64_t{g.dilation_w} * (g.kernel_w - 1))
    fail(n, "its padding is as large as its window: some windows would lie beside the map");
  if ((g.dilation_h > 1 && g.pad_top) || (g.dilation_w > 1 && g.pad_left))
    fail(n, "its padding with dilation leaves windows beside small maps");
  const int64_t taps = maximum ? 1 : int64_t{g.kernel_h} * g.kernel_w;
  if (taps * x.x_max > 32767 || taps * x.x_min < -32767)
    fail(n, "the sum of " + std::to_string(taps) + " codes in [" + std::to_string(x.x_min) + ", " +
                std::to_string(x.x_max) + "] does not fit 16 bits");
  n.channels = x.channels;
  n.min_bytes = maximum ? x.min_bytes : 2;
  n.x_min = static_cast<int32_t>(taps * x.x_min);
  n.x_max = static_cast<int32_t>(taps * x.x_max);
  n.geometry = g;
  return add(std::move(n));
}

int Plan::mean_pool(const std::string& name, int input, const MeanPool& means) {
  PlanNode n = node(name, PlanOp::kMeanPool, {input});
  const PlanNode& x = nodes_[input];
  const Windows& w = means.windows;
  const Geometry& g = w.geometry;
  check_limit(n, means.limit);
  const auto m = static_cast<float>(means.step / means.step_out);
  if (!(means.step > 0.0 && means.step_out > 0.0 && std::isfinite(m)))
    fail(n, "the steps are " + std::to_string(means.step) + " and " +
                std::to_string(means.step_out) + ": expected positive numbers with a finite ratio");
  if (means.zero < x.x_min || means.zero > x.x_max)
    fail(n, "the code of zero is " + std::to_string(means.zero) + ", but '" + x.name + "' gives [" +
                std::to_string(x.x_min) + ", " + std::to_string(x.x_max) + "]");
  if (w.adaptive && (w.rows < 0 || w.cols < 0 || std::max(w.rows, w.cols) > kMostChannels))
    fail(n, "its output has " + std::to_string(w.rows) + "x" + std::to_string(w.cols) +
                " pixels: expected 0 (as they are) to " + std::to_string(kMostChannels));
  if (!w.adaptive && (std::max(g.pad_top, g.pad_bottom) >= g.kernel_h ||
                      std::max(g.pad_left, g.pad_right) >= g.kernel_w))
    fail(n, "its padding is as large as its window: some windows would lie beside the map");
  if (!w.adaptive && (g.dilation_h != 1 || g.dilation_w != 1))
    fail(n, "its windows have a dilation: an average-pool has none");
  n.channels = x.channels;
  n.min_bytes = 2;
  n.x_min = -means.limit;
  n.x_max = means.limit;
  n.means = means;
  return add(std::move(n));
}

int Plan::concat(const std::string& name, const std::vector<int>& inputs,
                 const std::vector<std::array<int64_t, 3>>& runs) {
  PlanNode n = node(name, PlanOp::kConcat, inputs);
  for (const auto& [input, first, count] : runs) {
    if (input < 0 || input >= static_cast<int64_t>(inputs.size()))
      fail(n, "a run is of input " + std::to_string(input) + ", but it has " +
                  std::to_string(inputs.size()));
    const PlanNode& x = nodes_[inputs[input]];
    if (first < 0 || count < 1 || first > x.channels - count)
      fail(n, "a run is of " + std::to_string(count) + " channels from " + std::to_string(first) +
                  " on, but '" + x.name + "' has " + std::to_string(x.channels));
    n.runs.push_back({static_cast<int>(input), first, count});
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const PlanNode& x = nodes_[inputs[i]];
    if (runs.empty()) n.runs.push_back({static_cast<int>(i), 0, x.channels});
    n.min_bytes = std::max(n.min_bytes, x.min_bytes);
    n.x_min = std::min(n.x_min, x.x_min);
    n.x_max = std::max(n.x_max, x.x_max);
  }
  for (const Run& run : n.runs) n.channels = checked_sum({n.channels, run.count});
  return add(std::move(n));
}

int Plan::move(const std::string& name, const std::vector<int>& inputs, const Move& move) {
  PlanNode n = node(name, PlanOp::kMove, inputs);
  const size_t read = move.kind == MoveKind::kExpand ? 2 : 1;
  if (inputs.size() != read)
    fail(n,
         "it reads " + std::to_string(inputs.size()) + " nodes, expected " + std::to_string(read));
  const PlanNode& x = nodes_[inputs[0]];
  if (move.zero < x.x_min || move.zero > x.x_max)
    fail(n, "the code of zero is " + std::to_string(move.zero) + ", but '" + x.name + "' gives [" +
                std::to_string(x.x_min) + ", " + std::to_string(x.x_max) + "]");
  n.channels = moved_channels(move, x.channels);
  if (n.channels == 0)
    fail(n, "'" + x.name + "' has " + std::to_string(x.channels) + " channels, which " +
                std::to_string(move.numbers[0]) + " squared does not divide");
  n.min_bytes = x.min_bytes;
  n.x_min = x.x_min;
  n.x_max = x.x_max;
  n.move = move;
  return add(std::move(n));
}

int Plan::gate(const std::string& name, const PlanGate& g) {
  PlanNode n = node(name, PlanOp::kGate, {g.a, g.b});
  const PlanNode &a = nodes_[g.a], &b = nodes_[g.b];
  if (b.channels != a.channels && b.channels != 1)
    fail(n, "it multiplies '" + a.name + "' of " + std::to_string(a.channels) + " channels by '" +
                b.name + "' of " + std::to_string(b.channels) + ": expected as many, or one");
  const auto largest = [&](const PlanNode& x, int32_t zero) {
    if (zero < x.x_min || zero > x.x_max)
      fail(n, "the code of zero is " + std::to_string(zero) + ", but '" + x.name + "' gives [" +
                  std::to_string(x.x_min) + ", " + std::to_string(x.x_max) + "]");
    return static_cast<int64_t>(std::max(x.x_max - zero, zero - x.x_min));
  };
  if (largest(a, g.zero_a) * largest(b, g.zero_b) > kMostElements)
    fail(n, "the products of '" + a.name + "' and '" + b.name + "' may not fit 32 bits");
  if (g.m.size() != static_cast<size_t>(a.channels) || g.bias.size() != g.m.size())
    fail(n, "m has " + std::to_string(g.m.size()) + " numbers and the bias " +
                std::to_string(g.bias.size()) + ": expected one of each for every of its " +
                std::to_string(a.channels) + " channels");
  for (size_t c = 0; c < g.m.size(); ++c)
    if (!std::isfinite(g.m[c]) || !std::isfinite(g.bias[c]))
      fail(n, "m and bias of channel " + std::to_string(c) + " are " + std::to_string(g.m[c]) +
                  " and " + std::to_string(g.bias[c]) + ": expected finite numbers");
  if (g.K < 0 || g.K > 15) fail(n, "K is " + std::to_string(g.K) + ": expected 0 to 15");
  check_limit(n, g.limit);
  n.channels = a.channels;
  n.min_bytes = word_bytes(g.K);
  n.x_min = g.K ? 0 : -g.limit;
  n.x_max = g.K ? (1 << g.K) - 1 : g.limit;
  n.gate = {g.zero_a, g.zero_b, nullptr, nullptr, g.K, g.limit};
  n.m.assign(g.m.begin(), g.m.end());
  n.bias.assign(g.bias.begin(), g.bias.end());
  n.layer_index = g.K > 0 ? layers_++ : -1;
  return add(std::move(n));
}

int Plan::readout(const std::string& name, const PlanReadout& r) {
  PlanNode n = node(name, PlanOp::kReadout, {r.input});
  const PlanNode& x = nodes_[r.input];
  const auto out = static_cast<int64_t>(r.bias.size());
  if (out < 1 || r.scale.size() != r.bias.size())
    fail(n, "it has " + std::to_string(r.scale.size()) + " scales and " + std::to_string(out) +
                " biases: expected one of each for every logit");
  const auto bytes = static_cast<int64_t>(r.weight.size());
  if ((r.weight_bytes != 1 && r.weight_bytes != 2) || bytes == 0 || bytes % (out * r.weight_bytes))
    fail(n, "its weights have " + std::to_string(bytes) + " bytes, of " +
                std::to_string(r.weight_bytes) + " for one: expected as many for each of its " +
                std::to_string(out) + " logits");
  const int64_t features = bytes / (out * r.weight_bytes);
  if (r.sum_pixels ? features != x.channels : features % x.channels != 0)
    fail(n, "it reads " + std::to_string(features) + " features, but '" + x.name + "' has " +
                std::to_string(x.channels) + " channels");
  // A logit's sum is exact in 64 bits.
  checked_product({features, r.weight_bytes == 1 ? 128 : 32768, r.sum_pixels ? kMostSummed : 1,
                   std::max(-x.x_min, x.x_max)});
  n.channels = out;
  n.scale.assign(r.scale.begin(), r.scale.end());
  n.bias.assign(r.bias.begin(), r.bias.end());
  n.readout = {r.weight.data(), r.weight_bytes, out, features, nullptr, nullptr, r.sum_pixels};
  return add(std::move(n));
}

}  // namespace fskernel
