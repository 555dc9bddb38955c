#include "plan_layout.h"

#include <algorithm>
#include <numeric>

#include "../../checked_sizes.h"
#include "../conv/prepare.h"
#include "../scratch.h"

namespace fskernel {
namespace {

// Memory that is needed while the nodes [first, last] run.
struct Block {
  int64_t bytes;
  int first, last;
  int64_t offset;
};

// Lowest offsets at which no two blocks overlap in both time and space, the largest block first.
int64_t place_blocks(std::vector<Block>& blocks) {
  std::vector<size_t> order(blocks.size()), placed;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  int64_t end = 0;
  for (const size_t i : order) {
    Block& b = blocks[i];
    int64_t at = 0;
    for (const size_t j : placed) {  // by offset
      const Block& other = blocks[j];
      if (other.last < b.first || other.first > b.last) continue;
      if (checked_sum({at, b.bytes}) <= other.offset) break;
      at = std::max(at, checked_sum({other.offset, other.bytes}));
    }
    b.offset = at;
    end = std::max(end, checked_sum({at, b.bytes}));
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), i,
                         [&](size_t x, size_t y) { return blocks[x].offset < blocks[y].offset; }),
        i);
  }
  return end;
}

class Layouter {
 public:
  Layouter(const Kernels& kernels, const std::vector<PlanNode>& nodes)
      : kernels_(kernels), nodes_(nodes), count_(static_cast<int>(nodes.size())) {}

  PlanLayout lay_out(int64_t height, int64_t width) {
    size_maps(height, width);
    choose_bytes();
    merge_concatenations();
    choose_halos();
    reuse_residuals();
    return place();
  }

 private:
  // One tensor: the output of a node.
  struct Tensor {
    int64_t height, width;
    int parent = -1;      // the tensor in whose memory it lies: a concatenation, or what is cut
    int64_t channel = 0;  // first channel in there
    int same_bytes = -1;  // union-find over tensors of one element type
    int32_t bytes = 1;
    int64_t halo = 0;  // of roots
    int32_t pad_code = 0;
    int reuses = -1;  // the tensor whose memory it takes over
  };

  // Loops, because concatenations may lie in each other as deep as the network.
  int root(int t) const {
    while (tensors_[t].parent >= 0) t = tensors_[t].parent;
    return t;
  }
  int type_of(int t) const {
    while (tensors_[t].same_bytes != t) t = tensors_[t].same_bytes;
    return t;
  }

  void size_maps(int64_t height, int64_t width) {
    for (int i = 0; i < count_; ++i) {
      const PlanNode& n = nodes_[i];
      Tensor t{};
      t.same_bytes = i;
      if (n.op == PlanOp::kEncode) {
        if (height < 1 || width < 1)  // windows would lie in padding alone
          throw std::invalid_argument("x is too small: images of " + std::to_string(height) + "x" +
                                      std::to_string(width) + " have no pixel");
        t.height = height;
        t.width = width;
      } else if (n.op == PlanOp::kConcat) {
        t.height = tensors_[n.inputs[0]].height;
        t.width = tensors_[n.inputs[0]].width;
        for (const int input : n.inputs)
          if (tensors_[input].height != t.height || tensors_[input].width != t.width)
            throw std::invalid_argument("'" + n.name + "' concatenates maps of " + size(t) +
                                        " and " + size(tensors_[input]) +
                                        " pixels: use another image size");
      } else if (n.op == PlanOp::kGate) {
        const Tensor &a = tensors_[n.inputs[0]], &b = tensors_[n.inputs[1]];
        t.height = a.height, t.width = a.width;
        if ((b.height != 1 || b.width != 1) && size(a) != size(b))
          throw std::invalid_argument("'" + n.name + "' multiplies maps of " + size(a) + " and " +
                                      size(b) + " pixels: use another image size");
      } else if (n.op == PlanOp::kReadout) {
        t.height = t.width = 1;
        check_readout(n);
      } else if (n.op == PlanOp::kMove || n.op == PlanOp::kMeanPool) {
        const Size out = n.op == PlanOp::kMove ? moved(n) : averaged(n);
        t.height = out.h, t.width = out.w;
      } else {
        t = windowed(i, 0);
        for (int g = 1; g < n.groups(); ++g) check_same(n, t, windowed(i, g));
        if (n.op == PlanOp::kConv && n.layer.has_residual)
          check_same(n, t, tensors_[n.inputs.back()]);
      }
      check_fits({t.height, t.width, n.channels}, "the map of '" + n.name + "' would have");
      if (n.op == PlanOp::kMeanPool) check_sums(n);
      tensors_.push_back(t);
    }
  }

  static std::string size(const Tensor& t) {
    return std::to_string(t.height) + "x" + std::to_string(t.width);
  }

  static void check_same(const PlanNode& n, const Tensor& a, const Tensor& b) {
    if (a.height != b.height || a.width != b.width)
      throw std::invalid_argument("'" + n.name + "' adds maps of " + size(a) + " and " + size(b) +
                                  " pixels: use another image size");
  }

  void check_readout(const PlanNode& n) const {
    const Tensor& x = tensors_[n.inputs[0]];
    const int64_t pixels = x.height * x.width, channels = nodes_[n.inputs[0]].channels;
    const int64_t features = n.readout.sum_pixels ? channels : pixels * channels;
    if (features != n.readout.features)
      throw std::invalid_argument("'" + n.name + "' reads " + std::to_string(n.readout.features) +
                                  " features, but a map of " + size(x) + " pixels has " +
                                  std::to_string(features) + ": use the image size that the " +
                                  "network was made for");
    if (n.readout.sum_pixels && pixels > kMostSummed)
      throw std::invalid_argument("'" + n.name + "' would sum " + std::to_string(pixels) +
                                  " pixels: at most " + std::to_string(kMostSummed) +
                                  ", use a smaller image");
  }

  Size size_of(int t) const { return {tensors_[t].height, tensors_[t].width}; }

  Size moved(const PlanNode& n) const {
    const Size out = moved_size(n.move, size_of(n.inputs[0]), size_of(n.inputs.back()));
    if (out.h < 1 || out.w < 1)
      throw std::invalid_argument("'" + n.name + "' reads a map of " + size(tensors_[n.inputs[0]]) +
                                  " pixels, which does not fit a '" + name_of(n.move.kind) +
                                  "': use another image size");
    return out;
  }

  Size averaged(const PlanNode& n) const {
    const Size x = size_of(n.inputs[0]), out = windows_size(n.means.windows, x.h, x.w);
    if (out.h < 1 || out.w < 1)
      throw std::invalid_argument("x is too small: '" + n.name + "' averages windows of a map of " +
                                  size(tensors_[n.inputs[0]]) + " pixels: use a larger image");
    return out;
  }

  void check_sums(const PlanNode& n) const {
    const Size map = size_of(n.inputs[0]);
    const PlanNode& x = nodes_[n.inputs[0]];
    const int64_t zero = n.means.zero, low = x.x_min, high = x.x_max;
    const int64_t largest = std::max({high, -low, high - zero, zero - low});
    const int64_t most = kMostElements / std::max<int64_t>(largest, 1);
    const int64_t pixels = largest_window(n.means.windows, map.h, map.w);
    if (pixels > most)
      throw std::invalid_argument("'" + n.name + "' would sum " + std::to_string(pixels) +
                                  " pixels: at most " + std::to_string(most) +
                                  ", use a smaller image");
  }

  Tensor windowed(int node, int group) const {
    const PlanNode& n = nodes_[node];
    const Geometry& g = n.op == PlanOp::kConv ? n.layer.group[group].header.geometry : n.geometry;
    const Tensor& x = tensors_[n.inputs[group]];
    Tensor t{};
    t.same_bytes = node;
    const Size out = output_size(g, x.height, x.width);
    t.height = out.h, t.width = out.w;
    if (t.height <= 0 || t.width <= 0)
      throw std::invalid_argument("x is too small: '" + n.name + "' reads a map of " + size(x) +
                                  " pixels with a kernel of " + std::to_string(g.kernel_h) + "x" +
                                  std::to_string(g.kernel_w) + ": use a larger image");
    if (n.op == PlanOp::kConv)
      check_fits({x.height + g.pad_top + g.pad_bottom, x.width + g.pad_left + g.pad_right,
                  nodes_[n.inputs[group]].channels},
                 "what '" + n.name + "' reads, with its padding, would have");
    return t;
  }

  // Words of at most 8 bits are stored in 16 where all convolutions that read them want that.
  // Max-pools, concatenations and moves do not convert, so what they join has one type.
  void choose_bytes() {
    for (int i = 0; i < count_; ++i) {
      const PlanNode& n = nodes_[i];
      if (n.op == PlanOp::kMove)
        tensors_[type_of(n.inputs[0])].same_bytes = type_of(i);
      else if (n.op == PlanOp::kMaxPool || n.op == PlanOp::kConcat)
        for (const int input : n.inputs) tensors_[type_of(input)].same_bytes = type_of(i);
    }
    std::vector<bool> wants1(count_), wants2(count_);
    for (int i = 0; i < count_; ++i) {
      if (nodes_[i].min_bytes == 2) tensors_[type_of(i)].bytes = 2;
      for (int g = 0; g < nodes_[i].groups(); ++g) {
        const int type = type_of(nodes_[i].inputs[g]);
        (nodes_[i].layer.group[g].layout.x_bytes == 1 ? wants1 : wants2)[type] = true;
      }
    }
    for (int i = 0; i < count_; ++i) {
      const int type = type_of(i);
      if (wants2[type] && !wants1[type]) tensors_[type].bytes = 2;
    }
    for (int i = 0; i < count_; ++i) tensors_[i].bytes = tensors_[type_of(i)].bytes;
  }

  // The inputs of a concatenation are written where they belong in it, if it takes all of their
  // channels, unless they belong elsewhere already. One run of some channels lies where it was
  // written. So a parent comes behind, or is the only input of what takes a part of it: no circle.
  void merge_concatenations() {
    for (int i = 0; i < count_; ++i) {
      const PlanNode& n = nodes_[i];
      if (n.op != PlanOp::kConcat) continue;
      const Run& one = n.runs[0];
      if (n.runs.size() == 1 && one.count < nodes_[n.inputs[one.input]].channels) {
        tensors_[i].parent = n.inputs[one.input];
        tensors_[i].channel = one.first;
        continue;
      }
      int64_t channel = 0;
      for (const Run& run : n.runs) {
        const int input = n.inputs[run.input];
        if (tensors_[input].parent < 0 && run.count == nodes_[input].channels) {
          tensors_[input].parent = i;
          tensors_[input].channel = channel;
        }
        channel += run.count;
      }
    }
  }

  Map map_of(int t) const {
    const Tensor& top = tensors_[root(t)];
    Map m = dense_map(nullptr, top.bytes, top.height, top.width + 2 * top.halo,
                      nodes_[root(t)].channels);
    m.width = top.width;
    m.channels = nodes_[t].channels;
    return m;
  }

  // A root's halo serves every convolution that can read its memory as it is and pads with one and
  // the same code: that of the first of them.
  void choose_halos() {
    std::vector<bool> chosen(count_);
    for (int i = 0; i < count_; ++i)
      for (int g = 0; g < nodes_[i].groups(); ++g) {
        const int input = nodes_[i].inputs[g];
        const ConvGroup& group = nodes_[i].layer.group[g];
        const int64_t padding = padding_of(group);
        Tensor& top = tensors_[root(input)];
        const int64_t halo = std::max(top.halo, padding);
        if (!fits({top.height + 2 * halo, top.width + 2 * halo, nodes_[root(input)].channels}))
          continue;
        if (!padding || !readable(kernels_, group, map_of(input), padding, true)) continue;
        if (chosen[root(input)] && top.pad_code != group.header.geometry.pad_code) continue;
        chosen[root(input)] = true;
        top.pad_code = group.header.geometry.pad_code;
        top.halo = halo;
      }
  }

  static int64_t padding_of(const ConvGroup& group) {
    const Geometry& g = group.header.geometry;
    return std::max({g.pad_top, g.pad_bottom, g.pad_left, g.pad_right});
  }

  bool direct(int node, int g) const {
    const int input = nodes_[node].inputs[g];
    const ConvGroup& group = nodes_[node].layer.group[g];
    const Tensor& top = tensors_[root(input)];
    const bool same_code = top.pad_code == group.header.geometry.pad_code;
    return readable(kernels_, group, map_of(input), same_code ? top.halo : 0, true);
  }

  int last_use(int t) const {
    int last = t;
    for (int i = t + 1; i < count_; ++i)
      if (std::count(nodes_[i].inputs.begin(), nodes_[i].inputs.end(), t)) last = i;
    return last;
  }

  bool alone(int t) const {  // in its memory
    return tensors_[t].parent < 0 && nodes_[t].op != PlanOp::kConcat &&
           std::none_of(
               tensors_.begin(), tensors_.end(),
               [&](const Tensor& other) { return other.parent == t; });
  }

  // A neuron reads its residual once, before it writes its own word: both may share their memory.
  void reuse_residuals() {
    for (int i = 0; i < count_; ++i) {
      const PlanNode& n = nodes_[i];
      if (n.op != PlanOp::kConv || !n.layer.has_residual) continue;
      const int from = n.inputs.back();
      const Tensor &a = tensors_[from], &b = tensors_[i];
      if (alone(from) && alone(i) && last_use(from) == i && a.bytes == b.bytes &&
          a.halo == b.halo && (!a.halo || a.pad_code == b.pad_code) &&
          std::count(n.inputs.begin(), n.inputs.end(), from) == 1)
        tensors_[i].reuses = from;
    }
  }

  PlanLayout place() {
    PlanLayout out;
    std::vector<Block> blocks;
    std::vector<int> block_of(count_, -1), halo_block;
    std::vector<std::pair<int64_t*, size_t>> wanted;  // where to write a block's offset
    out.prepared.resize(count_);
    out.sums.assign(count_, -1);
    for (int i = 0; i < count_; ++i) {
      const PlanNode& n = nodes_[i];
      if (n.op == PlanOp::kReadout) continue;
      if (tensors_[i].reuses >= 0) {
        block_of[i] = block_of[tensors_[i].reuses];
      } else if (block_of[root(i)] < 0) {
        const Tensor& top = tensors_[root(i)];
        const Map m = map_of(root(i));
        block_of[root(i)] = static_cast<int>(blocks.size());
        blocks.push_back({(top.height + 2 * top.halo) * m.row + kReadSlack, i, i, 0});
        if (top.halo) {
          halo_block.push_back(block_of[root(i)]);
          out.halos.push_back({i, m, 0, top.halo, top.pad_code});
        }
      }
      block_of[i] = block_of[tensors_[i].reuses >= 0 ? i : root(i)];
      Block& b = blocks[block_of[i]];
      b.last = std::max(b.last, last_use(i));
    }
    for (int i = 0; i < count_; ++i) {
      const PlanNode& n = nodes_[i];
      out.prepared[i].assign(n.groups(), -1);
      for (int g = 0; g < n.groups(); ++g)
        if (!direct(i, g)) {
          Map x = map_of(n.inputs[g]);
          wanted.push_back({&out.prepared[i][g], blocks.size()});
          blocks.push_back({prepared_bytes(n.layer.group[g], x), i, i, 0});
        }
      if (n.op == PlanOp::kConv && n.layer.separate) {
        const Tensor& t = tensors_[i];
        wanted.push_back({&out.sums[i], blocks.size()});
        blocks.push_back({4 * (t.height * t.width * n.channels + kernels_.lanes), i, i, 0});
      }
    }
    for (Block& b : blocks) b.bytes = (b.bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
    out.bytes = place_blocks(blocks);
    for (const auto& [to, block] : wanted) *to = blocks[block].offset;
    for (size_t i = 0; i < out.halos.size(); ++i)
      out.halos[i].offset = blocks[halo_block[i]].offset;
    for (int i = 0; i < count_; ++i) {
      Place p{};
      if (nodes_[i].op != PlanOp::kReadout) {
        p.map = map_of(i);
        const Tensor& top = tensors_[root(i)];
        p.offset = blocks[block_of[i]].offset + top.halo * (p.map.row + p.map.pixel) +
                   channel_of(i) * p.map.bytes;
      }
      out.place.push_back(p);
    }
    return out;
  }

  int64_t channel_of(int t) const {
    int64_t channel = 0;
    for (; tensors_[t].parent >= 0; t = tensors_[t].parent) channel += tensors_[t].channel;
    return channel;
  }

  const Kernels& kernels_;
  const std::vector<PlanNode>& nodes_;
  const int count_;
  std::vector<Tensor> tensors_;
};

}  // namespace

PlanLayout lay_out(const Kernels& kernels, const std::vector<PlanNode>& nodes, int64_t height,
                   int64_t width) {
  return Layouter(kernels, nodes).lay_out(height, width);
}

}  // namespace fskernel
