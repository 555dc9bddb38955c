// Convolutions: as the operator runs them, on dense batches, and as a plan does, on maps with halos
// and gaps that it reads and writes in place.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "case.h"
#include "cpu/conv/conv_batch.h"
#include "cpu/conv/conv_image.h"
#include "cpu/conv/pack.h"
#include "cpu/conv/prepare.h"
#include "field.h"
#include "reference.h"

namespace fskernel::testing {
namespace {

constexpr int64_t kMostProducts = 1 << 20;  // of one case, for the oracle's sake

// One synapse group.
struct Group {
  int64_t H, W, C;
  int32_t x_min, x_max, x_bytes, weight_bytes;
  Geometry g;
  std::vector<int32_t> x, w;
  std::vector<float> m;

  int64_t per() const { return C / g.groups; }
  int64_t fan_in() const { return per() * g.kernel_h * g.kernel_w; }
  reference::Group oracle() const {
    return {x.data(),   w.data(),    m.data(),     H,
            W,          C,           g.kernel_h,   g.kernel_w,
            g.stride_h, g.stride_w,  g.pad_top,    g.pad_bottom,
            g.pad_left, g.pad_right, g.dilation_h, g.dilation_w,
            g.groups,   g.pad_code};
  }
};

// How a plan would hold one map. The pad code of the halo may be that of another layer.
struct Holding {
  Frame frame;
  bool slack, other_code;
};

Holding read_holding(Bytes& b) {
  Holding h{};
  h.frame.halo = b.in(0, 4);
  if (b.chance(30)) h.frame.pixel_gap = b.in(1, 40);
  if (b.chance(30)) h.frame.row_gap = b.in(1, 70);
  h.slack = b.chance(70);
  if (h.slack) h.frame.slack = kReadSlack;
  h.other_code = b.chance(15);
  return h;
}

class ConvCase : public Case {
 public:
  explicit ConvCase(Bytes& b) : Case(b) {
    on_maps_ = b.chance(50);
    N_ = on_maps_ ? 1 : b.in(1, 3);
    read_sizes(b);
    K_ = b.chance(25) ? 0 : static_cast<int32_t>(b.in(1, 15));
    limit_ = b.chance(50) ? static_cast<int32_t>(b.in(1, 32767)) : 32767;
    plane_bits_ = b.pick({0, 0, 0, 1, 2, 4, 8});
    y_bytes_ = K_ >= 1 && K_ <= 8 && !(on_maps_ && b.chance(30)) ? 1 : 2;
    residual_bytes_ = b.chance(40) ? b.pick({1, 2}) : 0;
    in_place_ = on_maps_ && residual_bytes_ == y_bytes_ && b.chance(50);
    ahead_ = b.chance(50);
    capped_ = K_ > 0 && b.chance(35);
    step_ = !on_maps_ && b.chance(35) ? (K_ ? 0.0123456789 * static_cast<double>(b.in(1, 1000)) : 1)
                                      : 0;
    count_ = step_ == 0 || b.chance(50);
    y_holding_ = read_holding(b);
    y_holding_.frame.slack = 0;  // nobody may write there
    residual_holding_ = read_holding(b);
    residual_holding_.frame.slack = 0;
    Random& r = setting_.random;
    fill_output(r);
    std::vector<reference::Group> oracle;
    for (Group& g : groups_) {
      fill_group(r, g);
      oracle.push_back(g.oracle());
    }
    expected_.resize(outputs());
    membranes_.resize(outputs());
    counts_.resize(N_);
    reference::conv(oracle.data(), static_cast<int>(oracle.size()), bias_.data(),
                    residual_bytes_ ? residual_.data() : nullptr, scale_, K_, limit_,
                    top_.empty() ? nullptr : top_.data(), N_, OH_, OW_, O_, expected_.data(),
                    counts_.data(), membranes_.data());
  }

  std::string describe() const override {
    std::string out = text(
        "conv%s N%ld -> %ldx%ldx%ld K=%d limit=%d planes=%d residual=%d%s y_bytes=%d threads=%d "
        "at_end=%d+%ld tops=%d step=%.17g",
        on_maps_ ? " on maps" : "", long(N_), long(OH_), long(OW_), long(O_), K_, limit_,
        plane_bits_, residual_bytes_, in_place_ ? " in place" : "", y_bytes_, setting_.threads,
        setting_.edge.at_end, long(setting_.edge.offset), capped_, step_);
    if (on_maps_) out += " y" + describe_holding(y_holding_);
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& c = groups_[i];
      out += text(
          "; x %ldx%ldx%ld k%dx%d s%dx%d p%d,%d,%d,%d d%dx%d g%d pad%d [%d,%d] "
          "bytes=%d weight_bytes=%d",
          long(c.H), long(c.W), long(c.C), c.g.kernel_h, c.g.kernel_w, c.g.stride_h, c.g.stride_w,
          c.g.pad_top, c.g.pad_bottom, c.g.pad_left, c.g.pad_right, c.g.dilation_h, c.g.dilation_w,
          c.g.groups, c.g.pad_code, c.x_min, c.x_max, c.x_bytes, c.weight_bytes);
      if (on_maps_) out += describe_holding(holdings_[i]);
    }
    return out;
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    const std::string wrong =
        on_maps_ ? run_on_maps(kernels, memory) : run_on_batch(kernels, memory);
    if (wrong.empty() && !memory.margins_untouched()) return "wrote beside its memory";
    return wrong;
  }

 private:
  int64_t outputs() const { return N_ * OH_ * OW_ * O_; }

  static std::string describe_holding(const Holding& h) {
    return text(" (halo %ld gaps %ld,%ld%s%s)", long(h.frame.halo), long(h.frame.pixel_gap),
                long(h.frame.row_gap), h.slack ? " slack" : "", h.other_code ? " other code" : "");
  }

  // Sizes that are ragged on purpose, and such that fill whole tiles.
  void read_sizes(Bytes& b) {
    OH_ = b.in(1, 9);
    OW_ = b.in(1, 16);
    if (b.chance(15)) OH_ = b.in(1, 3), OW_ = b.in(17, 70);
    const int64_t grouped = b.chance(35) ? b.in(2, 4) : 1;
    const int64_t style = b.in(0, 3);
    O_ = grouped * (style == 0   ? b.in(1, 70)
                    : style == 1 ? 8 * b.in(1, 12)
                    : style == 2 ? 64 * b.in(1, 3)
                                 : b.in(60, 200));
    const int64_t count = b.chance(30) ? 2 : 1;
    for (int64_t i = 0; i < count; ++i) {
      Group c{};
      const int64_t kind = b.in(0, 9);  // 7, 8: depthwise, 9: grouped
      c.g.groups = static_cast<int32_t>(kind == 9 ? grouped : kind >= 7 ? O_ : 1);
      const int64_t per = kind == 7 || kind == 8 ? 1 : b.chance(40) ? 4 * b.in(1, 16) : b.in(1, 40);
      c.C = c.g.groups * per;
      read_window(b, c.g);
      groups_.push_back(c);
      holdings_.push_back(read_holding(b));
    }
    int64_t fan_in = 0;
    for (const Group& c : groups_) fan_in += c.fan_in();
    while (outputs() * fan_in > kMostProducts && outputs() > O_) {
      int64_t& most = N_ > 1 ? N_ : OH_ > OW_ ? OH_ : OW_;
      most /= 2;
    }
    for (Group& c : groups_) {
      c.H = input_size(b, OH_, c.g.kernel_h, c.g.stride_h, c.g.dilation_h, c.g.pad_top,
                       c.g.pad_bottom);
      c.W = input_size(b, OW_, c.g.kernel_w, c.g.stride_w, c.g.dilation_w, c.g.pad_left,
                       c.g.pad_right);
      read_types(b, c);
    }
  }

  static void read_window(Bytes& b, Geometry& g) {
    g.kernel_h = static_cast<int32_t>(b.in(1, 5));
    g.kernel_w = static_cast<int32_t>(b.in(1, 5));
    if (b.chance(25)) g.kernel_h = g.kernel_w = 1;
    if (b.chance(5)) g.kernel_h = 1, g.kernel_w = static_cast<int32_t>(b.in(6, 40));
    if (b.chance(3)) g.kernel_w = 1, g.kernel_h = static_cast<int32_t>(b.in(6, 20));
    g.stride_h = g.stride_w = 1;
    if (b.chance(50)) {
      g.stride_h = static_cast<int32_t>(b.in(1, 3));
      g.stride_w = static_cast<int32_t>(b.in(1, 3));
    }
    g.dilation_h = b.chance(25) ? static_cast<int32_t>(b.in(2, 3)) : 1;
    g.dilation_w = b.chance(25) ? static_cast<int32_t>(b.in(2, 3)) : 1;
  }

  // The input size that gives the wanted output, part of it moved into the padding.
  static int64_t input_size(Bytes& b, int64_t out, int32_t kernel, int32_t stride, int32_t dilation,
                            int32_t& before, int32_t& after) {
    const int64_t needed =
        (out - 1) * stride + dilation * (kernel - 1) + 1 + (b.chance(30) ? b.in(0, stride - 1) : 0);
    if (b.chance(60)) {
      before = static_cast<int32_t>(b.in(0, std::min<int64_t>(3, needed - 1)));
      after = static_cast<int32_t>(b.in(0, std::min<int64_t>(3, needed - 1 - before)));
    }
    return needed - before - after;
  }

  static void read_types(Bytes& b, Group& c) {
    const int64_t kind = b.in(0, 3);  // words of at most 8 bits twice, wider words, graded values
    const int64_t bits = kind < 2 ? b.in(1, 8) : b.in(9, 15);
    c.x_max = kind == 3 ? static_cast<int32_t>(b.in(1, 32767)) : (1 << bits) - 1;
    c.x_min = kind == 3 ? -static_cast<int32_t>(b.in(1, 32767)) : 0;
    c.x_bytes = kind < 2 && !b.chance(10) ? 1 : 2;
    c.weight_bytes = b.pick({1, 2});
    if (b.chance(30)) c.g.pad_code = static_cast<int32_t>(b.in(c.x_min, c.x_max));
  }

  void fill_output(Random& r) {
    const float special[] = {
        std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f};
    const float spread = std::ldexp(1.0f, K_ ? K_ : 12);
    bias_.resize(O_);
    for (float& v : bias_) v = r.chance(4) ? special[r.in(0, 5)] : r.real(-0.3f, 0.8f) * spread;
    residual_.resize(residual_bytes_ ? outputs() : 0);
    for (int32_t& v : residual_)
      v = static_cast<int32_t>(residual_bytes_ == 1 ? r.in(0, 255) : r.in(-32767, 32767));
    scale_ = r.real(0.0f, 0.1f) * (residual_bytes_ == 2 ? 0.05f : 1.0f);
    if (!capped_) return;
    const int64_t largest = (1 << K_) - 1;  // often among the tops, so that not every channel stops
    for (int64_t o = 0; o < O_; ++o)
      top_.push_back(static_cast<float>(r.chance(40) ? largest : r.in(0, largest)));
  }

  // Fill 0: uniform, 1: extreme, 2: sparse.
  void fill_group(Random& r, Group& c) const {
    const int64_t fill = r.in(0, 2);
    c.x.resize(N_ * c.H * c.W * c.C);
    for (int32_t& v : c.x) {
      v = static_cast<int32_t>(r.in(c.x_min, c.x_max));
      if (fill == 1) v = r.chance(50) ? c.x_max : c.x_min;
      if (fill == 2 && r.chance(80)) v = 0;
    }
    // The contract bounds x*sum(|w|) below 2^31; a large weight may use all of that.
    const int64_t largest_x = std::max(c.x_max, -c.x_min);
    const int64_t bound = ((int64_t{1} << 31) - 1) / (largest_x * c.fan_in());
    const int64_t w_top = std::min<int64_t>(c.weight_bytes == 1 ? 127 : 32767, bound);
    const bool same_sign = r.chance(30);  // drives sums to the bound, above 2^24
    c.w.resize(O_ * c.fan_in());
    for (int64_t o = 0; o < O_; ++o) {
      const bool silent = r.chance(5);
      for (int64_t i = 0; i < c.fan_in(); ++i) {
        int32_t v = static_cast<int32_t>(fill == 1 ? w_top : r.in(0, w_top));
        if (!(same_sign ? o % 2 : r.chance(50))) v = -v;
        c.w[o * c.fan_in() + i] = silent ? 0 : v;
      }
    }
    const float unit = static_cast<float>(std::max<int64_t>(1, largest_x * w_top));
    const float scale = 1.0f / unit * r.real(0.1f, 300.0f);
    c.m.resize(O_);
    for (float& v : c.m) v = scale * r.real(0.01f, 1.0f);
  }

  // Packs a group's weights; returns the bytes.
  int64_t pack_group(const Kernels& kernels, const Group& c, Memory& memory,
                     const uint8_t*& packed) const {
    const Layout layout = layout_of(kernels, c.g, O_, c.per(), c.weight_bytes, c.x_min, c.x_max);
    const uint8_t* weight = take_elements(memory, c.w, c.weight_bytes);
    uint8_t* to = memory.take(layout.bytes, 2);
    pack(kernels, layout, c.g, O_, c.per(), c.x_min, c.x_max, weight, c.weight_bytes, to);
    packed = to;
    return layout.bytes;
  }

  std::string run_on_batch(const Kernels& kernels, Memory& memory) const {
    ConvCall call{};
    std::vector<std::optional<Field>> x(groups_.size());
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& c = groups_[i];
      x[i].emplace(memory, N_ * c.H, c.W, c.C, c.x_bytes, Frame{});
      x[i]->put(c.x.data(), 0);
      x[i]->remember();
      ConvInput& in = call.input[i];
      in = {x[i]->map().data, c.x_bytes, c.H, c.W, c.C, nullptr, 0, memory.take_copy(c.m), c.g};
      in.packed_bytes = pack_group(kernels, c, memory, in.packed);
      check_packed(kernels, in, O_, "packed");
    }
    Field y(memory, N_ * OH_, OW_, O_, y_bytes_, Frame{});
    y.remember();
    uint8_t* floats = memory.take(4 * outputs(), 4);
    std::vector<int64_t> zeros(N_);
    call.input_count = static_cast<int32_t>(groups_.size());
    call.images = N_;
    call.out_h = OH_;
    call.out_w = OW_;
    call.out_channels = O_;
    call.bias = memory.take_copy(bias_);
    call.residual = residual_bytes_ ? take_elements(memory, residual_, residual_bytes_) : nullptr;
    call.residual_bytes = residual_bytes_;
    call.residual_scale = scale_;
    call.K = K_;
    call.limit = limit_;
    call.plane_bits = plane_bits_;
    call.top = capped_ ? memory.take_copy(top_) : nullptr;
    call.step = step_;
    call.y = step_ > 0 ? floats : y.map().data;
    if (count_) call.counts = memory.take_copy(zeros);
    conv(kernels, call, setting_.executor());
    for (std::optional<Field>& field : x)
      if (!field->untouched(false)) return "wrote into its input";
    return step_ > 0 ? compare_floats(floats, call.counts) : compare(y, call.counts);
  }

  std::string compare_floats(uint8_t* y, const int64_t* counts) const {
    plant_fault(y, 4 * outputs());
    const FloatEnvironment environment;  // the caller's is another, see check()
    for (int64_t i = 0; i < outputs(); ++i) {
      const float want = K_ ? static_cast<float>(expected_[i] * step_) : membranes_[i];
      float got;
      std::memcpy(&got, y + 4 * i, 4);
      if (std::memcmp(&got, &want, 4) && !(std::isnan(got) && std::isnan(want)))
        return text("float %ld: got %.9g, expected %.9g", long(i), got, want);
    }
    for (int64_t n = 0; n < N_ && counts; ++n)
      if (counts[n] != counts_[n])
        return text("spikes of image %ld: got %ld, expected %ld", long(n), long(counts[n]),
                    long(counts_[n]));
    return "";
  }

  std::string run_on_maps(const Kernels& kernels, Memory& memory) const {
    ConvLayer layer{};
    ConvImage image{};
    image.count = true;
    std::vector<Field> x;
    const float* m[2] = {};
    layer.group_count = static_cast<int32_t>(groups_.size());
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& c = groups_[i];
      const Holding& h = holdings_[i];
      const uint8_t* packed;
      pack_group(kernels, c, memory, packed);
      const ConvGroup& group = layer.group[i] = conv_group(kernels, packed);
      m[i] = memory.take_copy(c.m);
      Field& field = x.emplace_back(memory, c.H, c.W, c.C, c.x_bytes, h.frame);
      field.put(c.x.data(), h.other_code ? c.g.pad_code ^ 1 : c.g.pad_code);
      field.remember();
      Map& map = image.x[i] = field.map();
      if (readable(kernels, group, map, h.other_code ? 0 : h.frame.halo, h.slack))
        map.data -= c.g.pad_top * map.row + c.g.pad_left * map.pixel;
      else
        map = prepare(kernels, group, map, memory.take(prepared_bytes(group, map), 2),
                      setting_.executor());
    }
    layer.separate = separate(layer);
    layer.out_channels = O_;
    layer.K = K_;
    layer.limit = limit_;
    layer.has_residual = residual_bytes_ > 0;
    layer.residual_scale = scale_;
    const auto floats = [&](int64_t n) { return reinterpret_cast<float*>(memory.take(4 * n, 4)); };
    pad_parameters(kernels, layer, m, memory.take_copy(bias_),
                   capped_ ? memory.take_copy(top_) : nullptr,
                   floats(parameter_floats(kernels, layer)));
    Field y(memory, OH_, OW_, O_, y_bytes_, y_holding_.frame);
    image.y = y.map();
    std::optional<Field> residual;
    if (in_place_) {
      y.put(residual_.data(), 77);
      image.residual = image.y;
    } else if (residual_bytes_) {
      residual.emplace(memory, OH_, OW_, O_, residual_bytes_, residual_holding_.frame);
      residual->put(residual_.data(), 77);
      residual->remember();
      image.residual = residual->map();
    }
    if (layer.separate)
      image.sums = reinterpret_cast<int32_t*>(floats(OH_ * OW_ * O_ + kernels.lanes));
    image.plane_bits = plane_bits_;
    if (ahead_) leading_weights(kernels, layer, image.ahead);
    y.remember();
    const int64_t spikes = conv_image(kernels, layer, image, setting_.executor());
    for (Field& field : x)
      if (!field.untouched(false)) return "wrote into its input";
    if (residual && !residual->untouched(false)) return "wrote into its residual";
    return compare(y, &spikes);
  }

  std::string compare(Field& y, const int64_t* counts) const {
    const Map& map = y.map();
    plant_fault(map.data, (map.height - 1) * map.row + (map.width - 1) * map.pixel +
                              map.channels * map.bytes);
    if (!y.untouched(true)) return "wrote outside its output";
    const std::vector<int32_t> got = y.values();
    for (int64_t i = 0; i < outputs(); ++i)
      if (got[i] != expected_[i])
        return text("image %ld row %ld col %ld channel %ld: got %d, expected %d",
                    long(i / (OH_ * OW_ * O_)), long(i / (OW_ * O_) % OH_), long(i / O_ % OW_),
                    long(i % O_), got[i], expected_[i]);
    for (int64_t n = 0; n < N_; ++n)
      if (counts[n] != counts_[n])
        return text("spikes of image %ld: got %ld, expected %ld", long(n), long(counts[n]),
                    long(counts_[n]));
    return "";
  }

  bool on_maps_, in_place_, ahead_, capped_, count_;
  double step_;  // of float output; 0: codes
  int64_t N_, OH_, OW_, O_;
  std::vector<Group> groups_;
  std::vector<Holding> holdings_;
  Holding y_holding_, residual_holding_;
  int32_t K_, limit_, plane_bits_, y_bytes_, residual_bytes_;
  std::vector<float> bias_, top_, membranes_;
  std::vector<int32_t> residual_, expected_;
  std::vector<int64_t> counts_;
  float scale_;
};

}  // namespace

std::unique_ptr<Case> conv_case(Bytes& bytes) { return std::make_unique<ConvCase>(bytes); }

}  // namespace fskernel::testing
