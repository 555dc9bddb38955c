// Small random networks through a plan, which lays out halos and shares memory, against the oracles
// layer by layer.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "case.h"
#include "cpu/conv/pack.h"
#include "cpu/plan/plan.h"
#include "field.h"
#include "oracles.h"
#include "reference.h"

namespace fskernel::testing {
namespace {

constexpr int64_t kMostProducts = 1 << 17;  // of one layer

struct Group {
  int input;
  Geometry g;
  std::vector<int32_t> w;
  std::vector<float> m;
  int32_t weight_bytes;
};

enum class Op { kEncode, kConv, kMaxPool, kSumPool, kConcat, kMove, kMeanPool, kGate };

struct Node {
  Op op;
  std::vector<int> inputs;  // as PlanConv has them
  Codes y;                  // what is expected
  int32_t x_min, x_max;     // the range of y
  Geometry g;               // of a pool
  std::vector<std::array<int64_t, 3>> runs;
  Move move;
  MeanPool means;
  std::vector<Group> groups;
  Gate gate;                     // of a gate, without m and bias
  std::vector<float> m;          // of a gate
  std::vector<float> bias, top;  // no tops: 2^K - 1
  bool has_residual;
  float residual_scale;
  int32_t K, limit;
  std::vector<int64_t> counts;
};

Geometry window(int32_t kernel, int32_t stride, int32_t padding) {
  return {kernel, kernel, stride, stride, padding, padding, padding, padding, 1, 1, 1, 0};
}

int64_t out_height(const Codes& x, const Geometry& g) {
  return output_size(x.H, g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h);
}
int64_t out_width(const Codes& x, const Geometry& g) {
  return output_size(x.W, g.kernel_w, g.stride_w, g.pad_left, g.pad_right, g.dilation_w);
}

class PlanCase : public Case {
 public:
  explicit PlanCase(Bytes& b) : Case(b) {
    read_image(b);
    const int64_t nodes = b.in(1, 8);
    for (int64_t i = 0; i < nodes; ++i) {
      const int64_t op = b.in(0, 15);
      if (op >= 14)
        add_mean_pool(b);
      else if (op >= 12)
        add_move(b);
      else if (op >= 10)
        add_runs(b);
      else if (op == 9)
        add_pool(b, true);
      else if (op == 8)
        add_pool(b, false);
      else if (op >= 6)
        add_concat(b);
      else if (op == 5)
        add_gate(b);
      else
        add_conv(b);
    }
    plane_bits_ = b.pick({0, 0, 0, 1, 2, 4, 8});
    add_readout(b);
    settled_ = b.chance(70);
  }

  std::string describe() const override {
    std::string out =
        text("plan N%ld planes=%d threads=%d:", long(N_), plane_bits_, setting_.threads);
    static const char* const names[] = {"encode", "conv", "max",  "sum",
                                        "concat", "move", "mean", "gate"};
    for (const Node& n : nodes_) {
      out += text(" %s(", names[static_cast<int>(n.op)]);
      for (const int input : n.inputs) out += text(" %d", input);
      for (const Group& g : n.groups)
        out += text(" k%d s%d p%d g%d pad%d", g.g.kernel_h, g.g.stride_h, g.g.pad_top, g.g.groups,
                    g.g.pad_code);
      out += text(n.K ? " K%d)" : ")", n.K);
      out += text("->%ldx%ldx%ld", long(n.y.H), long(n.y.W), long(n.y.C));
    }
    return out + text(" readout%s", sum_pixels_ ? " of sums" : "");
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    const Codes& input = nodes_[0].y;
    Plan plan(kernels);
    for (size_t i = 0; i < nodes_.size(); ++i) add_to(plan, kernels, memory, i);
    const int last = static_cast<int>(nodes_.size()) - 1;
    const auto out = static_cast<size_t>(out_);
    plan.readout("readout", {last,
                             {take_elements(memory, w_, weight_bytes_),
                              w_.size() * static_cast<size_t>(weight_bytes_)},
                             weight_bytes_,
                             scale_,
                             {memory.take_copy(bias_), out},
                             sum_pixels_});
    auto* logits = reinterpret_cast<float*>(memory.take(4 * N_ * out_, 4));
    auto* counts = reinterpret_cast<int64_t*>(memory.take(8 * N_ * plan.layers(), 8));
    if (settled_) plan.settle();
    plan.run({memory.take_copy(x_), N_, input.H, input.W, input.H * input.W * input.C,
              input.H * input.W, input.W, 1, plane_bits_, logits, counts, nullptr},
             setting_.executor());
    plant_fault(reinterpret_cast<uint8_t*>(logits), 4 * N_ * out_);
    int64_t layer = 0;
    for (const Node& node : nodes_) {
      if (node.K == 0) continue;
      for (int64_t n = 0; n < N_; ++n)
        if (counts[n * plan.layers() + layer] != node.counts[n])
          return text("spikes of image %ld, node %ld: got %ld, expected %ld", long(n),
                      long(&node - nodes_.data()), long(counts[n * plan.layers() + layer]),
                      long(node.counts[n]));
      ++layer;
    }
    for (int64_t i = 0; i < N_ * out_; ++i)
      if (std::memcmp(&logits[i], &expected_[i], sizeof(float)) != 0)
        return text("image %ld logit %ld: got %.9g, expected %.9g", long(i / out_), long(i % out_),
                    double(logits[i]), double(expected_[i]));
    return memory.margins_untouched() ? "" : "wrote beside its memory";
  }

 private:
  int read_input(Bytes& b) const {
    const auto last = static_cast<int64_t>(nodes_.size()) - 1;
    return static_cast<int>(b.chance(40) ? b.in(0, last) : last);
  }

  void read_image(Bytes& b) {
    N_ = b.in(1, 3);
    Node n{};
    n.op = Op::kEncode;
    n.limit = static_cast<int32_t>(b.pick({127, 2047, 32767}));
    n.x_min = -n.limit;
    n.x_max = n.limit;
    n.y = {N_, b.in(1, 10), b.in(1, 10), b.in(1, 20), {}};
    inv_step_ = setting_.random.real(0.5f, 2.0f) * static_cast<float>(n.limit);
    x_.resize(N_ * n.y.C * n.y.H * n.y.W);
    for (float& v : x_) v = setting_.random.real(-1.0f, 1.0f);
    for (int64_t image = 0; image < N_; ++image)
      for (int64_t y = 0; y < n.y.H; ++y)
        for (int64_t x = 0; x < n.y.W; ++x)
          for (int64_t c = 0; c < n.y.C; ++c)
            n.y.v.push_back(encoded(x_[((image * n.y.C + c) * n.y.H + y) * n.y.W + x], inv_step_,
                                    0.0f, 0, n.limit));
    nodes_.push_back(n);
  }

  void add_pool(Bytes& b, bool maximum) {
    const int input = read_input(b);
    const Node& x = nodes_[input];
    const auto kernel = static_cast<int32_t>(b.in(1, 3));
    Node n{};
    n.op = maximum ? Op::kMaxPool : Op::kSumPool;
    n.inputs = {input};
    n.g = window(kernel, static_cast<int32_t>(b.in(1, 2)), b.chance(50) ? kernel / 2 : 0);
    const int32_t taps = maximum ? 1 : kernel * kernel;
    n.x_min = taps * x.x_min;
    n.x_max = taps * x.x_max;
    const int64_t height = out_height(x.y, n.g), width = out_width(x.y, n.g);
    if (height < 1 || width < 1 || n.x_max > 32767 || n.x_min < -32767) return;
    n.y = pooled(x.y, n.g, maximum, -32768, height, width);
    nodes_.push_back(n);
  }

  void add_concat(Bytes& b) {
    Node n{};
    n.op = Op::kConcat;
    n.inputs = {read_input(b)};
    const Codes& first = nodes_[n.inputs[0]].y;
    n.y = {N_, first.H, first.W, first.C, {}};
    for (int64_t wanted = b.in(1, 2); wanted > 0; --wanted) {
      const int other = read_input(b);
      const Codes& y = nodes_[other].y;
      if (y.H != n.y.H || y.W != n.y.W || n.y.C + y.C > 100) continue;
      n.inputs.push_back(other);
      n.y.C += y.C;
    }
    if (n.inputs.size() < 2) return;
    for (const int input : n.inputs) {
      n.x_min = std::min(n.x_min, nodes_[input].x_min);
      n.x_max = std::max(n.x_max, nodes_[input].x_max);
    }
    for (int64_t pixel = 0; pixel < N_ * n.y.H * n.y.W; ++pixel)
      for (const int input : n.inputs) {
        const Codes& y = nodes_[input].y;
        n.y.v.insert(n.y.v.end(), y.v.begin() + pixel * y.C, y.v.begin() + (pixel + 1) * y.C);
      }
    nodes_.push_back(n);
  }

  // Parts of maps, of one or several, in any order.
  void add_runs(Bytes& b) {
    Node n{};
    n.op = Op::kConcat;
    n.inputs = {read_input(b)};
    const Codes& first = nodes_[n.inputs[0]].y;
    n.y = {N_, first.H, first.W, 0, {}};
    const int other = read_input(b);
    if (b.chance(50) && nodes_[other].y.H == first.H && nodes_[other].y.W == first.W)
      n.inputs.push_back(other);
    const auto last = static_cast<int64_t>(n.inputs.size()) - 1;
    if (b.chance(25)) {  // single channels in turn
      const int64_t width = std::min(first.C, nodes_[n.inputs[last]].y.C),
                    start = b.in(0, width - 1);
      for (int64_t c = start; c < width; ++c) {
        n.runs.push_back({0, c, 1});
        n.runs.push_back({last, c - start, 1});
      }
      n.y.C = static_cast<int64_t>(n.runs.size());
    }
    for (int64_t wanted = n.y.C ? 0 : b.chance(50) ? 1 : b.in(2, 6); wanted > 0; --wanted) {
      const int64_t input = b.in(0, last);
      const int64_t width = nodes_[n.inputs[input]].y.C, start = b.in(0, width - 1);
      n.runs.push_back({input, start, b.chance(30) ? 1 : b.in(1, width - start)});
      n.y.C += n.runs.back()[2];
    }
    if (n.y.C > 100) return;
    for (const int input : n.inputs) {
      n.x_min = std::min(n.x_min, nodes_[input].x_min);
      n.x_max = std::max(n.x_max, nodes_[input].x_max);
    }
    for (int64_t pixel = 0; pixel < N_ * n.y.H * n.y.W; ++pixel)
      for (const auto& [input, start, count] : n.runs) {
        const Codes& y = nodes_[n.inputs[input]].y;
        const auto at = y.v.begin() + pixel * y.C + start;
        n.y.v.insert(n.y.v.end(), at, at + count);
      }
    nodes_.push_back(n);
  }

  void add_move(Bytes& b) {
    Node n{};
    n.op = Op::kMove;
    n.inputs = {read_input(b)};
    const Node& x = nodes_[n.inputs[0]];
    n.x_min = x.x_min;
    n.x_max = x.x_max;
    n.move.kind = static_cast<MoveKind>(b.in(0, 5));
    n.move.zero = static_cast<int32_t>(b.in(x.x_min, x.x_max));
    const bool pads = n.move.kind == MoveKind::kPad || n.move.kind == MoveKind::kCrop;
    for (int32_t& number : n.move.numbers) number = static_cast<int32_t>(b.in(!pads, 3));
    const int32_t r = n.move.numbers[0];
    if (n.move.kind == MoveKind::kShuffle && x.y.C % (r * r)) return;
    if (n.move.kind == MoveKind::kUnshuffle && (x.y.H % r || x.y.W % r)) return;
    if (n.move.kind == MoveKind::kExpand) {
      if (x.y.H * x.y.W != 1) return;
      n.inputs.push_back(read_input(b));
    }
    n.y = moved(x.y, n.move, nodes_[n.inputs.back()].y);
    if (std::min(n.y.H, n.y.W) > 0 && n.y.C <= 150 && n.y.H * n.y.W <= 200) nodes_.push_back(n);
  }

  void add_mean_pool(Bytes& b) {
    Node n{};
    n.op = Op::kMeanPool;
    n.inputs = {read_input(b)};
    const Node& x = nodes_[n.inputs[0]];
    Windows& w = n.means.windows;
    w.adaptive = b.chance(50);
    w.geometry = window(1, 1, 0);
    if (w.adaptive) {
      w.rows = b.in(0, 5);
      w.cols = b.chance(40) ? 1 : b.in(0, 5);
    } else {
      const auto kernel = static_cast<int32_t>(b.in(1, 4));
      w.geometry = window(kernel, static_cast<int32_t>(b.in(1, 3)), 0);
      w.geometry.pad_top = static_cast<int32_t>(b.in(0, kernel - 1));
      w.geometry.pad_right = static_cast<int32_t>(b.in(0, kernel - 1));
      w.ceil_mode = b.chance(50);
      w.include_pad = b.chance(50);
    }
    n.means.zero = static_cast<int32_t>(b.chance(50) ? 0 : b.in(x.x_min, x.x_max));
    n.means.limit = static_cast<int32_t>(b.pick({1, 127, 8191, 32767}));
    const int64_t largest = std::max(x.x_max - n.means.zero, n.means.zero - x.x_min);
    n.means.step = setting_.random.real(0.01f, 1.0f);
    n.means.step_out = n.means.step * static_cast<double>(largest) / n.means.limit *
                       setting_.random.real(0.3f, 1.0f);
    n.x_min = -n.means.limit;
    n.x_max = n.means.limit;
    n.y = averaged(x.y, n.means);
    if (n.y.H * n.y.W > 0) nodes_.push_back(n);
  }

  void add_gate(Bytes& b) {
    Node n{};
    n.op = Op::kGate;
    n.inputs = {read_input(b), read_input(b)};
    const auto fits = [&](const Codes& x, const Codes& a) {
      return (x.H * x.W == 1 || (x.H == a.H && x.W == a.W)) && (x.C == 1 || x.C == a.C);
    };
    const Node& a = nodes_[n.inputs[0]];
    if (!fits(nodes_[n.inputs[1]].y, a.y)) n.inputs[1] = n.inputs[0];
    const Node& by = nodes_[n.inputs[1]];
    const auto zero = [&](const Node& x) {
      return static_cast<int32_t>(x.x_min < 0 || b.chance(50) ? 0 : b.in(0, x.x_max));
    };
    n.K = b.chance(40) ? 0 : static_cast<int32_t>(b.in(1, 15));
    n.limit = b.pick({127, 32767});
    n.x_min = n.K ? 0 : -n.limit;
    n.x_max = n.K ? (1 << n.K) - 1 : n.limit;
    n.gate = {zero(a), zero(by), nullptr, nullptr, n.K, n.limit};
    Random& r = setting_.random;
    const float reach = static_cast<float>(a.x_max) * static_cast<float>(by.x_max);
    for (int64_t c = 0; c < a.y.C; ++c) {
      n.m.push_back(r.real(-1.0f, 4.0f) * static_cast<float>(n.x_max) / reach);
      n.bias.push_back(r.real(0.0f, 0.5f) * static_cast<float>(n.x_max));
    }
    n.y = a.y;
    n.counts.resize(N_);
    reference::gate(a.y.v.data(), by.y.v.data(), by.y.H, by.y.W, by.y.C, n.gate.zero_a,
                    n.gate.zero_b, n.m.data(), n.bias.data(), n.K, n.limit, N_, a.y.H, a.y.W, a.y.C,
                    n.y.v.data(), n.counts.data());
    nodes_.push_back(n);
  }

  void add_conv(Bytes& b) {
    const int input = read_input(b);
    const Codes& x = nodes_[input].y;
    Geometry g = window(b.pick({1, 3, 3, 2, 5}), b.chance(25) ? 2 : 1, 0);
    if (b.chance(70)) g.pad_top = g.pad_bottom = g.pad_left = g.pad_right = g.kernel_h / 2;
    if (b.chance(20)) g.pad_top = 0, g.pad_right = 2;
    Node n{};
    n.op = Op::kConv;
    n.y = {N_, out_height(x, g), out_width(x, g), 0, {}};
    if (n.y.H < 1 || n.y.W < 1) return;
    const bool depthwise = b.chance(25) && x.C > 1;
    if (!depthwise && b.chance(25) && x.C % 2 == 0) g.groups = 2;
    const int residual = read_input(b);
    const Codes& r = nodes_[residual].y;
    n.has_residual = b.chance(50) && r.H == n.y.H && r.W == n.y.W && r.C % g.groups == 0 &&
                     (!depthwise || r.C == x.C);
    n.y.C = depthwise        ? x.C
            : n.has_residual ? r.C
            : b.chance(40)   ? 16 * b.in(1, 4)
                             : g.groups * b.in(1, 30);
    if (depthwise) g.groups = static_cast<int32_t>(x.C);
    const int64_t products = n.y.H * n.y.W * n.y.C * (x.C / g.groups) * g.kernel_h * g.kernel_w;
    if (products > kMostProducts) return;
    n.K = b.chance(20) ? 0 : b.chance(70) ? static_cast<int32_t>(b.in(1, 8)) : b.in(9, 15);
    n.limit = 32767;
    n.x_min = n.K ? 0 : -n.limit;
    n.x_max = n.K ? (1 << n.K) - 1 : n.limit;
    add_group(b, n, input, g);
    const int second = read_input(b);
    Geometry point = window(1, g.stride_h, 0);
    const Codes& x2 = nodes_[second].y;
    if (b.chance(25) && out_height(x2, point) == n.y.H && out_width(x2, point) == n.y.W)
      add_group(b, n, second, point);
    if (n.has_residual) n.inputs.push_back(residual);
    compute(n);
    nodes_.push_back(n);
  }

  void add_group(Bytes& b, Node& n, int input, Geometry g) {
    const Node& x = nodes_[input];
    if (b.chance(40)) g.pad_code = static_cast<int32_t>(b.in(x.x_min, x.x_max));
    Group group{input, g, {}, {}, b.pick({1, 2})};
    const int64_t fan_in = x.y.C / g.groups * g.kernel_h * g.kernel_w;
    const int64_t largest = std::max(x.x_max, -x.x_min);
    const int64_t bound = ((int64_t{1} << 31) - 1) / (largest * fan_in);
    const int64_t top = std::min<int64_t>(group.weight_bytes == 1 ? 127 : 32767, bound);
    Random& r = setting_.random;
    group.w.resize(n.y.C * fan_in);
    for (int32_t& v : group.w) v = static_cast<int32_t>(r.in(-top, top));
    // So that outputs use their whole range.
    const float unit = static_cast<float>(largest * std::max<int64_t>(1, top)) *
                       std::sqrt(static_cast<float>(fan_in));
    for (int64_t o = 0; o < n.y.C; ++o)
      group.m.push_back(static_cast<float>(n.x_max) / unit * r.real(0.5f, 4.0f));
    n.inputs.push_back(input);
    n.groups.push_back(group);
  }

  void compute(Node& n) {
    Random& r = setting_.random;
    const auto top = static_cast<float>(n.x_max);
    for (int64_t o = 0; o < n.y.C; ++o) n.bias.push_back(r.real(-0.2f, 0.5f) * top);
    if (n.K && r.chance(30))
      for (int64_t o = 0; o < n.y.C; ++o)
        n.top.push_back(static_cast<float>(r.chance(40) ? n.x_max : r.in(0, n.x_max)));
    const Node* residual = n.has_residual ? &nodes_[n.inputs.back()] : nullptr;
    if (residual)
      n.residual_scale = r.real(0.1f, 1.0f) * top /
                         static_cast<float>(std::max(residual->x_max, -residual->x_min));
    std::vector<reference::Group> oracle;
    for (const Group& group : n.groups) {
      const Codes& x = nodes_[group.input].y;
      const Geometry& g = group.g;
      oracle.push_back({x.v.data(), group.w.data(), group.m.data(), x.H, x.W, x.C, g.kernel_h,
                        g.kernel_w, g.stride_h, g.stride_w, g.pad_top, g.pad_bottom, g.pad_left,
                        g.pad_right, g.dilation_h, g.dilation_w, g.groups, g.pad_code});
    }
    n.y.v.resize(N_ * n.y.H * n.y.W * n.y.C);
    n.counts.resize(N_);
    reference::conv(oracle.data(), static_cast<int>(oracle.size()), n.bias.data(),
                    residual ? residual->y.v.data() : nullptr, n.residual_scale, n.K, n.limit,
                    n.top.empty() ? nullptr : n.top.data(), N_, n.y.H, n.y.W, n.y.C, n.y.v.data(),
                    n.counts.data());
  }

  void add_readout(Bytes& b) {
    const Codes& x = nodes_.back().y;
    sum_pixels_ = b.chance(50);
    weight_bytes_ = b.pick({1, 2});
    features_ = sum_pixels_ ? x.C : x.H * x.W * x.C;
    out_ = b.in(1, 9);
    Random& r = setting_.random;
    w_.resize(out_ * features_);
    for (int32_t& v : w_) v = static_cast<int32_t>(r.in(-127, 127));
    for (int64_t o = 0; o < out_; ++o) {
      scale_.push_back(r.real(1e-6f, 1.0f));
      bias_.push_back(r.real(-5.0f, 5.0f));
    }
    const auto pixels = static_cast<double>(sum_pixels_ ? x.H * x.W : 1);
    for (int64_t i = 0; i < N_ * out_; ++i)
      expected_.push_back(read_out(x, i / out_, w_, features_, i % out_,
                                   static_cast<float>(scale_[i % out_] / pixels), bias_[i % out_]));
  }

  void add_to(Plan& plan, const Kernels& kernels, Memory& memory, size_t index) const {
    const Node& n = nodes_[index];
    const std::string name = std::to_string(index);
    if (n.op == Op::kEncode) {
      plan.encode(name, n.y.C, inv_step_, n.limit);
    } else if (n.op == Op::kConcat) {
      plan.concat(name, n.inputs, n.runs);
    } else if (n.op == Op::kMove) {
      plan.move(name, n.inputs, n.move);
    } else if (n.op == Op::kMeanPool) {
      plan.mean_pool(name, n.inputs[0], n.means);
    } else if (n.op == Op::kGate) {
      const Gate& p = n.gate;
      PlanGate made{n.inputs[0], n.inputs[1], p.zero_a, p.zero_b, {}, {}, p.K, p.limit};
      made.m = {memory.take_copy(n.m), n.m.size()};
      made.bias = {memory.take_copy(n.bias), n.bias.size()};
      plan.gate(name, made);
    } else if (n.op != Op::kConv) {
      plan.pool(name, n.inputs[0], n.g, n.op == Op::kMaxPool);
    } else {
      const auto channels = static_cast<size_t>(n.y.C);
      PlanConv conv{
          n.inputs, {}, {memory.take_copy(n.bias), channels}, n.has_residual, n.residual_scale, n.K,
          n.limit,  {}};
      if (!n.top.empty()) conv.top = {memory.take_copy(n.top), channels};
      for (const Group& group : n.groups) {
        const Node& x = nodes_[group.input];
        const int64_t per = x.y.C / group.g.groups;
        const Layout layout =
            layout_of(kernels, group.g, n.y.C, per, group.weight_bytes, x.x_min, x.x_max);
        uint8_t* packed = memory.take(layout.bytes, 2);
        pack(kernels, layout, group.g, n.y.C, per, x.x_min, x.x_max,
             take_elements(memory, group.w, group.weight_bytes), group.weight_bytes, packed);
        conv.groups.push_back({{packed, static_cast<size_t>(layout.bytes)},
                               {memory.take_copy(group.m), channels},
                               group.g});
      }
      plan.conv(name, conv);
    }
  }

  int64_t N_, out_, features_;
  float inv_step_;
  int32_t plane_bits_, weight_bytes_;
  bool settled_ = false;
  bool sum_pixels_;
  std::vector<float> x_, bias_, expected_;
  std::vector<double> scale_;
  std::vector<int32_t> w_;
  std::vector<Node> nodes_;
};

}  // namespace

std::unique_ptr<Case> plan_case(Bytes& bytes) { return std::make_unique<PlanCase>(bytes); }

}  // namespace fskernel::testing
