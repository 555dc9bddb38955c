// Float tensors, of every type and order of memory: the encoder, and whole layers from floats to
// floats, against loops that are read off the contract. How types are rounded is torch's to judge,
// in the Python tests; here it is the library's own.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "case.h"
#include "cpu/conv/conv_batch.h"
#include "cpu/conv/pack.h"
#include "cpu/pool_readout_encode.h"
#include "field.h"
#include "oracles.h"
#include "reference.h"

namespace fskernel::testing {
namespace {

// Values [H, W, C] of an image in memory of its own; may have gaps, and channels first or last.
struct Values {
  FloatType type;
  int64_t stride_n, stride_c, stride_h, stride_w, elements;

  Values(Bytes& b, int64_t N, int64_t H, int64_t W, int64_t C)
      : type(static_cast<FloatType>(b.pick({0, 0, 1, 2, 3}))) {
    const int64_t gap = b.chance(30) ? b.in(1, 20) : 0;
    if (b.chance(50)) {
      stride_c = 1;
      stride_w = C + gap;
      stride_h = W * stride_w;
      stride_n = H * stride_h;
    } else {
      stride_w = b.chance(10) ? 2 : 1;
      stride_h = W * stride_w + gap;
      stride_c = H * stride_h;
      stride_n = C * stride_c;
    }
    elements =
        (N - 1) * stride_n + (H - 1) * stride_h + (W - 1) * stride_w + (C - 1) * stride_c + 1;
  }

  template <class T>
  static uint8_t* put(Memory& memory, std::vector<float>& values) {
    const FloatEnvironment environment;  // the caller's is another, see check()
    std::vector<T> typed(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      if constexpr (sizeof(T) == 4) {
        typed[i] = values[i];
      } else {
        from_float(values[i], typed[i]);
        values[i] = to_float(typed[i]);  // what is there after all
      }
    }
    return reinterpret_cast<uint8_t*>(memory.take_copy(typed));
  }
  // Rounds the values to the type and takes memory for them.
  const uint8_t* put(Memory& memory, std::vector<float>& values) const {
    switch (type) {
      case FloatType::kFloat64:
        return put<double>(memory, values);
      case FloatType::kFloat16:
        return put<Half>(memory, values);
      case FloatType::kBFloat16:
        return put<BrainFloat>(memory, values);
      default:
        return put<float>(memory, values);
    }
  }
};

float read(const uint8_t* at, FloatType type) {
  const auto as = [&](auto v) {
    std::memcpy(&v, at, sizeof v);
    return v;
  };
  switch (type) {
    case FloatType::kFloat64:
      return static_cast<float>(as(0.0));
    case FloatType::kFloat16:
      return to_float(as(Half{}));
    case FloatType::kBFloat16:
      return to_float(as(BrainFloat{}));
    default:
      return as(0.0f);
  }
}

float rounded(float v, FloatType type) {
  Half half;
  BrainFloat brain;
  if (type == FloatType::kFloat16) return from_float(v, half), to_float(half);
  if (type == FloatType::kBFloat16) return from_float(v, brain), to_float(brain);
  return v;
}

const float kSpecial[] = {
    std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f};

class EncodeCase : public Case {
 public:
  explicit EncodeCase(Bytes& b) : Case(b) {
    K_ = b.chance(50) ? 0 : static_cast<int32_t>(b.in(1, 15));
    limit_ = b.chance(50) ? static_cast<int32_t>(b.in(1, 32767)) : 32767;
    y_bytes_ = K_ >= 1 && K_ <= 8 && !b.chance(30) ? 1 : 2;
    H_ = b.in(1, 12);
    W_ = b.chance(40) ? 64 * b.in(1, 3) : b.in(1, 200);
    C_ = b.chance(70) ? b.in(1, 9) : b.in(1, 70);
    frame_ = {b.in(0, 3), b.chance(40) ? b.in(1, 40) : 0, b.chance(40) ? b.in(1, 70) : 0};
    values_.emplace_back(b, 1, H_, W_, C_);
    Random& r = setting_.random;
    const float top = static_cast<float>(K_ ? (1 << K_) - 1 : limit_);
    inv_step_ = r.real(0.01f, 4.0f) * top;
    offset_ = K_ ? static_cast<float>(b.pick({0.0, 0.5, -0.25})) : 0.0f;
    x_.resize(values_[0].elements);
    for (float& v : x_) {
      v = r.real(-1.5f, 1.5f);
      if (r.chance(30)) v = (static_cast<float>(r.in(-20, 20)) + 0.5f) / inv_step_;  // near ties
      if (r.chance(4)) v = kSpecial[r.in(0, 5)];
    }
  }

  std::string describe() const override {
    const Values& v = values_[0];
    return text(
        "encode K=%d limit=%d y_bytes=%d type %d strides %ld,%ld,%ld %ldx%ldx%ld threads=%d", K_,
        limit_, y_bytes_, static_cast<int>(v.type), long(v.stride_c), long(v.stride_h),
        long(v.stride_w), long(H_), long(W_), long(C_), setting_.threads);
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    const Values& v = values_[0];
    std::vector<float> x = x_;
    const uint8_t* data = v.put(memory, x);
    Field y(memory, H_, W_, C_, y_bytes_, frame_);
    y.remember();
    const Encoded seen =
        encode(kernels, {inv_step_, offset_, K_, limit_},
               {data, v.type, v.stride_c, v.stride_h, v.stride_w}, y.map(), setting_.executor());
    plant_fault(y.map().data, (H_ - 1) * y.map().row + (W_ - 1) * y.map().pixel + C_ * y_bytes_);
    if (!y.untouched(true)) return "wrote outside its output";
    const std::vector<int32_t> got = y.values();
    const FloatEnvironment environment;  // the caller's is another, see check()
    Encoded wanted;
    for (int64_t i = 0; i < H_ * W_ * C_; ++i) {
      const float value =
          x[i / C_ / W_ * v.stride_h + i / C_ % W_ * v.stride_w + i % C_ * v.stride_c];
      const int32_t code = encoded(value, inv_step_, offset_, K_, limit_);
      if (got[i] != code)
        return text("value %ld, %.9g: got %d, expected %d", long(i), value, got[i], code);
      wanted.least = std::fmin(wanted.least, value);
      const float whole = static_cast<float>(1 << K_);
      const float v = K_ ? std::fma(value, inv_step_, offset_) : std::abs(value * inv_step_);
      wanted.beyond += v > (K_ ? whole + offset_ : static_cast<float>(limit_) + 1) * (1 + 0x1p-20f);
    }
    if (seen.least != wanted.least || seen.beyond != wanted.beyond)
      return text("met %.9g and %ld beyond, expected %.9g and %ld", seen.least, long(seen.beyond),
                  wanted.least, long(wanted.beyond));
    return memory.margins_untouched() ? "" : "wrote beside its memory";
  }

 private:
  int32_t K_, limit_, y_bytes_;
  int64_t H_, W_, C_;
  Frame frame_;
  float inv_step_, offset_;
  std::vector<Values> values_;  // one
  std::vector<float> x_;
};

// A layer from floats to floats.
class FloatConvCase : public Case {
 public:
  explicit FloatConvCase(Bytes& b) : Case(b) {
    N_ = b.in(1, 3), H_ = b.in(1, 12), W_ = b.in(1, 20);
    const int32_t groups = b.chance(30) ? static_cast<int32_t>(b.in(1, 40)) : 1;
    const int64_t per = b.chance(60) ? 1 : b.in(1, groups > 1 ? 3 : 40);
    C_ = groups * per;
    O_ = groups * (groups > 1 ? b.in(1, 2) : b.in(1, 150));
    g_ = {static_cast<int32_t>(b.in(1, std::min<int64_t>(3, H_))),
          static_cast<int32_t>(b.in(1, std::min<int64_t>(3, W_))),
          static_cast<int32_t>(b.in(1, 2)),
          static_cast<int32_t>(b.in(1, 2)),
          static_cast<int32_t>(b.in(0, 1)),
          static_cast<int32_t>(b.in(0, 1)),
          static_cast<int32_t>(b.in(0, 1)),
          static_cast<int32_t>(b.in(0, 1)),
          1,
          1,
          groups,
          0};
    K_ = b.chance(25) ? 0 : static_cast<int32_t>(b.in(1, 15));
    x_K_ = b.chance(30) ? 0 : static_cast<int32_t>(b.in(1, 15));
    x_limit_ = static_cast<int32_t>(b.in(1, 32767));
    weight_bytes_ = b.pick({1, 2});
    plane_bits_ = b.pick({0, 0, 0, 8, 1});
    channels_first_ = b.chance(50), count_ = b.chance(50), capped_ = K_ && b.chance(40);
    values_.emplace_back(b, N_, H_, W_, C_);
    Random& r = setting_.random;
    const float top = static_cast<float>(x_K_ ? (1 << x_K_) - 1 : x_limit_);
    encoder_ = {r.real(0.1f, 1.0f) * top, x_K_ ? 0.5f : 0.0f, x_K_, x_limit_};
    x_.resize(values_[0].elements);
    for (float& v : x_) v = r.chance(3) ? kSpecial[r.in(0, 5)] : r.real(-1.5f, 2.0f);
    const int64_t fan_in = per * g_.kernel_h * g_.kernel_w;
    const int64_t bound = ((int64_t{1} << 31) - 1) / (static_cast<int64_t>(top) * fan_in);
    const int64_t most = std::min<int64_t>(weight_bytes_ == 1 ? 127 : 32767, bound);
    for (int64_t i = 0; i < O_ * fan_in; ++i) w_.push_back(static_cast<int32_t>(r.in(-most, most)));
    const float spread = K_ ? std::ldexp(1.0f, K_) : 1.0f;
    for (int64_t o = 0; o < O_; ++o) {
      m_.push_back(spread / (top * static_cast<float>(most ? most : 1)) * r.real(0.05f, 0.5f));
      bias_.push_back(r.chance(4) ? kSpecial[r.in(0, 5)] : r.real(-0.3f, 0.8f) * spread);
      top_.push_back(static_cast<float>(r.in(0, (1 << K_) - 1)));
    }
    step_ = K_ ? 0.00123456789 * static_cast<double>(b.in(1, 1000)) : 1;
    out_h_ = output_size(H_, g_.kernel_h, g_.stride_h, g_.pad_top, g_.pad_bottom, 1);
    out_w_ = output_size(W_, g_.kernel_w, g_.stride_w, g_.pad_left, g_.pad_right, 1);
  }

  std::string describe() const override {
    const Values& v = values_[0];
    return text(
        "floats N%ld %ldx%ldx%ld -> %ld k%dx%d s%dx%d p%d,%d,%d,%d g%d K=%d x_K=%d x_limit=%d "
        "weight_bytes=%d planes=%d first=%d count=%d tops=%d type=%d strides %ld,%ld,%ld "
        "step=%.17g threads=%d",
        long(N_), long(H_), long(W_), long(C_), long(O_), g_.kernel_h, g_.kernel_w, g_.stride_h,
        g_.stride_w, g_.pad_top, g_.pad_bottom, g_.pad_left, g_.pad_right, g_.groups, K_, x_K_,
        x_limit_, weight_bytes_, plane_bits_, channels_first_, count_, capped_,
        static_cast<int>(v.type), long(v.stride_c), long(v.stride_h), long(v.stride_w), step_,
        setting_.threads);
  }

  std::string run(const Kernels& kernels) const override {
    Memory memory(setting_.edge);
    const Values& v = values_[0];
    std::vector<float> x = x_;
    const int64_t outputs = N_ * out_h_ * out_w_ * O_, bytes = float_bytes(v.type);
    const int32_t x_min = x_K_ ? 0 : -x_limit_, x_max = x_K_ ? (1 << x_K_) - 1 : x_limit_;
    FloatConv f{};
    ConvCall& call = f.call;
    call.input_count = 1;
    ConvInput& in = call.input[0];
    in.x = v.put(memory, x);
    in.height = H_, in.width = W_, in.channels = C_, in.geometry = g_;
    const int64_t per = C_ / g_.groups;
    const Layout layout = layout_of(kernels, g_, O_, per, weight_bytes_, x_min, x_max);
    uint8_t* packed = memory.take(layout.bytes, 2);
    pack(kernels, layout, g_, O_, per, x_min, x_max, take_elements(memory, w_, weight_bytes_),
         weight_bytes_, packed);
    in.packed = packed, in.packed_bytes = layout.bytes;
    in.m = memory.take_copy(m_);
    call.images = N_, call.out_h = out_h_, call.out_w = out_w_, call.out_channels = O_;
    call.bias = memory.take_copy(bias_);
    call.top = capped_ ? memory.take_copy(top_) : nullptr;
    call.K = K_, call.limit = 32767, call.plane_bits = plane_bits_, call.step = step_;
    const std::vector<int64_t> zeros(N_);
    if (count_) call.counts = memory.take_copy(zeros);
    f.encoder = encoder_, f.type = v.type, f.channels_first = channels_first_;
    f.stride_n = v.stride_n, f.stride_c = v.stride_c;
    f.stride_h = v.stride_h, f.stride_w = v.stride_w;
    uint8_t* y = memory.take(outputs * bytes, bytes);
    f.y = y;
    Encoded seen;
    conv(kernels, f, setting_.executor(), seen);
    plant_fault(y, outputs * bytes);

    const FloatEnvironment environment;  // the caller's is another, see check()
    std::vector<int32_t> codes, words(outputs);
    for (int64_t i = 0; i < N_ * H_ * W_ * C_; ++i)
      codes.push_back(encoded(x[i / C_ / W_ / H_ * v.stride_n + i / C_ / W_ % H_ * v.stride_h +
                                i / C_ % W_ * v.stride_w + i % C_ * v.stride_c],
                              encoder_.inv_step, encoder_.offset, x_K_, x_limit_));
    const reference::Group group{
        codes.data(), w_.data(),    m_.data(),   H_,          W_,         C_,
        g_.kernel_h,  g_.kernel_w,  g_.stride_h, g_.stride_w, g_.pad_top, g_.pad_bottom,
        g_.pad_left,  g_.pad_right, 1,           1,           g_.groups,  g_.pad_code};
    std::vector<float> membranes(outputs);
    std::vector<int64_t> counts(N_);
    reference::conv(&group, 1, bias_.data(), nullptr, 0.0f, K_, 32767,
                    capped_ ? top_.data() : nullptr, N_, out_h_, out_w_, O_, words.data(),
                    counts.data(), membranes.data());
    const int64_t pixels = out_h_ * out_w_;
    for (int64_t i = 0; i < outputs; ++i) {
      const int64_t n = i / O_ / pixels, pixel = i / O_ % pixels, o = i % O_;
      const int64_t at = channels_first_ ? (n * O_ + o) * pixels + pixel : i;
      const float got = read(y + at * bytes, v.type);
      const float want = rounded(K_ ? static_cast<float>(words[i] * step_) : membranes[i], v.type);
      if (std::memcmp(&got, &want, 4) && !(std::isnan(got) && std::isnan(want)))
        return text("image %ld pixel %ld channel %ld: got %.9g, expected %.9g", long(n),
                    long(pixel), long(o), got, want);
    }
    for (int64_t n = 0; n < N_ && count_; ++n)
      if (call.counts[n] != counts[n])
        return text("spikes of image %ld: got %ld, expected %ld", long(n), long(call.counts[n]),
                    long(counts[n]));
    return memory.margins_untouched() ? "" : "wrote beside its memory";
  }

 private:
  int64_t N_, H_, W_, C_, O_, out_h_, out_w_;
  int32_t K_, x_K_, x_limit_, weight_bytes_, plane_bits_;
  Geometry g_;
  Encoder encoder_;
  bool channels_first_, count_, capped_;
  double step_;
  std::vector<Values> values_;  // one
  std::vector<float> x_, m_, bias_, top_;
  std::vector<int32_t> w_;
};

}  // namespace

std::unique_ptr<Case> encode_case(Bytes& bytes) { return std::make_unique<EncodeCase>(bytes); }
std::unique_ptr<Case> floats_case(Bytes& bytes) { return std::make_unique<FloatConvCase>(bytes); }

}  // namespace fskernel::testing
