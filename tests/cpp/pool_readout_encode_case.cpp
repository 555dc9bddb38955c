// Pools, products, readout and synaptic events, on maps with halos and gaps, against loops that are
// read off the contract.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "case.h"
#include "cpu/pool_readout_encode.h"
#include "field.h"
#include "oracles.h"
#include "reference.h"

namespace fskernel::testing {
namespace {

Frame read_frame(Bytes& b) {
  Frame f{};
  f.halo = b.in(0, 3);
  if (b.chance(40)) f.pixel_gap = b.in(1, 40);
  if (b.chance(40)) f.row_gap = b.in(1, 70);
  return f;
}

int64_t read_channels(Bytes& b) { return b.chance(40) ? 16 * b.in(1, 10) : b.in(1, 150); }

std::string place(const Setting& s) {
  return text("threads=%d at_end=%d+%ld", s.threads, s.edge.at_end, long(s.edge.offset));
}

std::string shape(int64_t height, int64_t width, int64_t channels, const Frame& f) {
  return text("%ldx%ldx%ld (halo %ld gaps %ld,%ld)", long(height), long(width), long(channels),
              long(f.halo), long(f.pixel_gap), long(f.row_gap));
}

std::string compare(Field& y, const std::vector<int32_t>& expected) {
  const Map& map = y.map();
  plant_fault(map.data,
              (map.height - 1) * map.row + (map.width - 1) * map.pixel + map.channels * map.bytes);
  if (!y.untouched(true)) return "wrote outside its output";
  const std::vector<int32_t> got = y.values();
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] != expected[i])
      return text("row %ld col %ld channel %ld: got %d, expected %d",
                  long(i / map.channels / map.width), long(i / map.channels % map.width),
                  long(i % map.channels), got[i], expected[i]);
  return "";
}

std::string finish(const Memory& memory, Field* x, const std::string& wrong) {
  if (!wrong.empty()) return wrong;
  if (x && !x->untouched(false)) return "wrote into its input";
  return memory.margins_untouched() ? "" : "wrote beside its memory";
}

class PoolCase : public Case {
 public:
  explicit PoolCase(Bytes& b) : Case(b) {
    maximum_ = b.chance(50);
    bytes_ = b.pick({1, 2});
    H_ = b.in(1, 14);
    W_ = b.in(1, 14);
    C_ = read_channels(b);
    for (int32_t* kernel : {&g_.kernel_h, &g_.kernel_w})
      *kernel = static_cast<int32_t>(b.chance(15) ? b.in(5, 14) : b.in(1, 4));
    for (int32_t* step : {&g_.stride_h, &g_.stride_w, &g_.dilation_h, &g_.dilation_w})
      *step = static_cast<int32_t>(b.chance(40) ? b.in(1, 3) : 1);
    for (int32_t* pad : {&g_.pad_top, &g_.pad_bottom, &g_.pad_left, &g_.pad_right})
      *pad = static_cast<int32_t>(b.chance(50) ? b.in(0, 4) : 0);
    g_.groups = 1;
    OH_ = fit(H_, g_.kernel_h, g_.stride_h, g_.pad_top, g_.pad_bottom, g_.dilation_h);
    OW_ = fit(W_, g_.kernel_w, g_.stride_w, g_.pad_left, g_.pad_right, g_.dilation_w);
    in_ = read_frame(b);
    out_ = read_frame(b);
    // A sum of n values is refused beforehand unless n*x_max fits 16 bits.
    if (bytes_ == 1 && !maximum_ && 255 * taps() > 32767) bytes_ = 2;
    const int64_t top = bytes_ == 1 ? 255 : maximum_ ? 32767 : 32767 / taps();
    const int64_t low = bytes_ == 1 || b.chance(30) ? 0 : maximum_ ? -32768 : -top;
    x_.resize(H_ * W_ * C_);
    for (int32_t& v : x_)
      v = static_cast<int32_t>(setting_.random.chance(10) ? low : setting_.random.in(low, top));
    const int32_t lowest = bytes_ == 1 ? 0 : -32768;
    expected_ = pooled({1, H_, W_, C_, x_}, g_, maximum_, lowest, OH_, OW_).v;
  }

  std::string describe() const override {
    return text("%s pool bytes=%d ", maximum_ ? "max" : "sum", bytes_) + shape(H_, W_, C_, in_) +
           " -> " + shape(OH_, OW_, C_, out_) +
           text(" k%dx%d s%dx%d p%d,%d,%d,%d d%dx%d ", g_.kernel_h, g_.kernel_w, g_.stride_h,
                g_.stride_w, g_.pad_top, g_.pad_bottom, g_.pad_left, g_.pad_right, g_.dilation_h,
                g_.dilation_w) +
           place(setting_);
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    Field x(memory, H_, W_, C_, bytes_, in_), y(memory, OH_, OW_, C_, maximum_ ? bytes_ : 2, out_);
    x.put(x_.data(), 99);
    x.remember();
    y.remember();
    pool(kernels, g_, maximum_, x.map(), y.map(), setting_.executor());
    return finish(memory, &x, compare(y, expected_));
  }

 private:
  int64_t taps() const { return int64_t{g_.kernel_h} * g_.kernel_w; }

  // Output size; a kernel that is too large becomes a smaller one.
  static int64_t fit(int64_t size, int32_t& kernel, int32_t stride, int32_t before, int32_t after,
                     int32_t dilation) {
    while (output_size(size, kernel, stride, before, after, dilation) < 1) --kernel;
    return output_size(size, kernel, stride, before, after, dilation);
  }

  bool maximum_;
  int32_t bytes_;
  int64_t H_, W_, C_, OH_, OW_;
  Geometry g_{};
  Frame in_, out_;
  std::vector<int32_t> x_, expected_;
};

class ProductCase : public Case {
 public:
  explicit ProductCase(Bytes& b) : Case(b) {
    H_ = b.in(1, 12);
    W_ = b.in(1, 12);
    C_ = read_channels(b);
    const bool one_pixel = b.chance(30), one_channel = b.chance(30);
    by_ = {1, one_pixel ? 1 : H_, one_pixel ? 1 : W_, one_channel ? 1 : C_, {}};
    p_.K = static_cast<int32_t>(b.chance(25) ? 0 : b.in(1, 15));
    p_.limit = static_cast<int32_t>(b.pick({1, 127, 32767}));
    y_bytes_ = p_.K >= 1 && p_.K <= 8 ? b.pick({1, 2}) : 2;
    draw(b, a_bytes_, H_ * W_ * C_, a_, p_.zero_a);
    draw(b, b_bytes_, by_.H * by_.W * by_.C, by_.v, p_.zero_b);
    Random& r = setting_.random;
    const float top = static_cast<float>(p_.K ? 1 << p_.K : p_.limit);
    const float reach = (a_bytes_ == 1 ? 255.0f : 32767.0f) * (b_bytes_ == 1 ? 255.0f : 32767.0f);
    for (int64_t c = 0; c < C_; ++c) {
      m_.push_back(r.chance(5) ? 3e38f : r.real(-4.0f, 4.0f) * top / reach);
      bias_.push_back(r.chance(5) ? -3e38f : r.real(0.0f, 1.0f) * top);
    }
    frames_[0] = read_frame(b), frames_[1] = read_frame(b), frames_[2] = read_frame(b);
    counted_ = b.chance(60);
    expected_.resize(H_ * W_ * C_);
    reference::gate(a_.data(), by_.v.data(), by_.H, by_.W, by_.C, p_.zero_a, p_.zero_b, m_.data(),
                    bias_.data(), p_.K, p_.limit, 1, H_, W_, C_, expected_.data(), &spikes_);
  }

  std::string describe() const override {
    return text("product bytes=%d,%d,%d K%d zeros=%d,%d ", a_bytes_, b_bytes_, y_bytes_, p_.K,
                p_.zero_a, p_.zero_b) +
           shape(H_, W_, C_, frames_[0]) + " by " + shape(by_.H, by_.W, by_.C, frames_[1]) +
           " -> " + shape(H_, W_, C_, frames_[2]) + " " + place(setting_);
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    Field a(memory, H_, W_, C_, a_bytes_, frames_[0]);
    Field by(memory, by_.H, by_.W, by_.C, b_bytes_, frames_[1]);
    Field y(memory, H_, W_, C_, y_bytes_, frames_[2]);
    a.put(a_.data(), 99);
    by.put(by_.v.data(), 99);
    a.remember();
    by.remember();
    y.remember();
    Gate p = p_;
    p.m = memory.take_copy(m_);
    p.bias = memory.take_copy(bias_);
    const int64_t spikes =
        product(kernels, p, a.map(), by.map(), y.map(), counted_, setting_.executor());
    const std::string wrong = finish(memory, &a, compare(y, expected_));
    if (!wrong.empty()) return wrong;
    if (!by.untouched(false)) return "wrote into its second input";
    return !counted_ || spikes == spikes_
               ? ""
               : text("spikes: got %ld, expected %ld", long(spikes), long(spikes_));
  }

 private:
  // Words with any code of zero, or graded values.
  void draw(Bytes& b, int32_t& bytes, int64_t n, std::vector<int32_t>& values, int32_t& zero) {
    bytes = b.pick({1, 2});
    const bool graded = bytes == 2 && b.chance(40);
    const int32_t top = bytes == 1 ? 255 : 32767, low = graded ? -top : 0;
    zero = graded || b.chance(40) ? 0 : b.chance(30) ? top : static_cast<int32_t>(b.in(0, top));
    values.resize(n);
    Random& r = setting_.random;
    for (int32_t& v : values)
      v = r.chance(10) ? low : r.chance(10) ? top : static_cast<int32_t>(r.in(low, top));
  }

  int64_t H_, W_, C_, spikes_ = 0;
  int32_t a_bytes_, b_bytes_, y_bytes_;
  bool counted_;
  Gate p_{};
  Codes by_;
  Frame frames_[3];
  std::vector<float> m_, bias_;
  std::vector<int32_t> a_, expected_;
};

class ReadoutCase : public Case {
 public:
  explicit ReadoutCase(Bytes& b) : Case(b) {
    bytes_ = b.pick({1, 2});
    weight_bytes_ = b.pick({1, 2});
    sum_pixels_ = b.chance(50);
    H_ = b.in(1, 7);
    W_ = b.in(1, 7);
    C_ = read_channels(b);
    if (b.chance(25)) H_ = 1, W_ = b.in(1, 5), C_ = b.in(1000, 12000);  // lanes may fill up
    features_ = sum_pixels_ ? C_ : H_ * W_ * C_;
    out_ = b.in(1, std::clamp<int64_t>(200000 / features_, 1, 40));
    frame_ = read_frame(b);
    const bool signed_values = bytes_ == 2 && b.chance(50);
    // Sums on both sides of where the kernels change the form of the features.
    const int64_t largest = b.pick({200, 32767, 33500, 45000, 65279, 65600, 1 << 20, 1 << 20});
    const int64_t pixels = sum_pixels_ ? H_ * W_ : 1;
    const int64_t top = std::clamp<int64_t>(largest / pixels, 1, bytes_ == 1 ? 255 : 32767);
    const bool extreme = b.chance(40), same_sign = b.chance(50);
    Random& r = setting_.random;
    const auto value = [&](int64_t low, int64_t high) {
      if (!extreme) return static_cast<int32_t>(r.in(low, high));
      return static_cast<int32_t>(same_sign || r.chance(50) ? high : low);
    };
    x_.resize(H_ * W_ * C_);
    for (int32_t& v : x_) v = value(signed_values ? -top : 0, top);
    const int64_t w_top = weight_bytes_ == 1 ? 127 : 32767;
    w_.resize(out_ * features_);
    for (int32_t& v : w_) v = value(-w_top, w_top);
    for (int64_t o = 0; o < out_; ++o) {
      const float unit = setting_.flushes() ? 0x1p-130f : 1.0f;  // denormal results
      m_.push_back(unit * r.real(1e-6f, 1.0f));
      bias_.push_back(unit * r.real(-5.0f, 5.0f));
      expected_.push_back(read_out({1, H_, W_, C_, x_}, 0, w_, features_, o, m_[o], bias_[o]));
    }
  }

  std::string describe() const override {
    return text("readout bytes=%d weight_bytes=%d%s %ld features -> %ld ", bytes_, weight_bytes_,
                sum_pixels_ ? " summed" : "", long(features_), long(out_)) +
           shape(H_, W_, C_, frame_) + " " + place(setting_);
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    Field x(memory, H_, W_, C_, bytes_, frame_);
    x.put(x_.data(), 99);
    x.remember();
    const Readout task{take_elements(memory, w_, weight_bytes_),
                       weight_bytes_,
                       out_,
                       features_,
                       memory.take_copy(m_),
                       memory.take_copy(bias_),
                       sum_pixels_};
    auto* y = reinterpret_cast<float*>(memory.take(4 * out_, 4));
    readout(kernels, task, x.map(), y, setting_.executor());
    plant_fault(reinterpret_cast<uint8_t*>(y), 4 * out_);
    std::string wrong;
    for (int64_t o = 0; o < out_ && wrong.empty(); ++o)
      if (std::memcmp(&y[o], &expected_[o], sizeof(float)) != 0)
        wrong = text("output %ld: got %.9g, expected %.9g", long(o), double(y[o]),
                     double(expected_[o]));
    return finish(memory, &x, wrong);
  }

 private:
  int32_t bytes_, weight_bytes_;
  bool sum_pixels_;
  int64_t H_, W_, C_, features_, out_;
  Frame frame_;
  std::vector<int32_t> x_, w_;
  std::vector<float> m_, bias_, expected_;
};

// Synaptic events of a dense batch.
class EventsCase : public Case {
 public:
  explicit EventsCase(Bytes& b) : Case(b) {
    bytes_ = b.pick({1, 2});
    N_ = b.in(1, 3);
    H_ = b.in(1, 12);
    W_ = b.in(1, 12);
    C_ = read_channels(b);
    Random& r = setting_.random;
    x_.resize(N_ * H_ * W_ * C_);
    for (int32_t& v : x_) v = static_cast<int32_t>(r.in(0, bytes_ == 1 ? 255 : 32767));
    for (int64_t i = 0; i < H_; ++i) fan_y_.push_back(r.in(0, 5));
    for (int64_t i = 0; i < W_; ++i) fan_x_.push_back(r.in(0, 5));
    expected_.resize(N_);
    for (size_t i = 0; i < x_.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const int64_t fan = fan_y_[at / C_ / W_ % H_] * fan_x_[at / C_ % W_];
      for (int32_t bits = x_[i]; bits; bits >>= 1) expected_[at / C_ / W_ / H_] += fan * (bits & 1);
    }
  }

  std::string describe() const override {
    return text("events bytes=%d N%ld ", bytes_, long(N_)) + shape(H_, W_, C_, {}) + " " +
           place(setting_);
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    Field x(memory, N_ * H_, W_, C_, bytes_, Frame{});
    x.put(x_.data(), 0);
    x.remember();
    int64_t* events = memory.take_copy(std::vector<int64_t>(N_));
    synaptic_events(kernels, x.map().data, bytes_, N_, H_, W_, C_, memory.take_copy(fan_y_),
                    memory.take_copy(fan_x_), events, setting_.executor());
    plant_fault(reinterpret_cast<uint8_t*>(events), 8 * N_);
    for (int64_t n = 0; n < N_; ++n)
      if (events[n] != expected_[n])
        return text("image %ld: got %ld, expected %ld", long(n), long(events[n]),
                    long(expected_[n]));
    return finish(memory, &x, "");
  }

 private:
  int32_t bytes_;
  int64_t N_, H_, W_, C_;
  std::vector<int32_t> x_;
  std::vector<int64_t> fan_y_, fan_x_, expected_;
};

}  // namespace

std::unique_ptr<Case> pool_case(Bytes& bytes) { return std::make_unique<PoolCase>(bytes); }
std::unique_ptr<Case> product_case(Bytes& bytes) { return std::make_unique<ProductCase>(bytes); }
std::unique_ptr<Case> readout_case(Bytes& bytes) { return std::make_unique<ReadoutCase>(bytes); }
std::unique_ptr<Case> events_case(Bytes& bytes) { return std::make_unique<EventsCase>(bytes); }

}  // namespace fskernel::testing
