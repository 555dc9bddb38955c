// What every operator checks before it works. A message names the argument, its value and the cure.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cmath>
#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "../check.h"
#include "../checked_numbers.h"
#include "../checked_sizes.h"
#include "../conv_call.h"
#include "../float_environment.h"
#include "../float_types.h"
#include "../geometry.h"
#include "../neuron.h"

// What a table of operators lists: no operator may compute in its caller's floating-point
// environment.
#define OPERATOR(function) TORCH_BOX(&::fskernel::InFloatEnvironment<&function>::run)

namespace fskernel::checks {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string type_name(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Bool:
      return "bool";
    default:
      return torch::headeronly::toString(type);
  }
}

inline std::vector<int64_t> sizes(const Tensor& t) {
  std::vector<int64_t> out(t.dim());
  for (int64_t i = 0; i < t.dim(); ++i) out[i] = t.size(i);
  return out;
}

inline std::string shape(const std::vector<int64_t>& sizes) {
  std::ostringstream out;
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << ']';
  return out.str();
}
inline std::string shape(const Tensor& t) { return shape(sizes(t)); }

// Where an operator's tensors have to be: on the CPU, or on one GPU.
struct Place {
  int32_t gpu = -1;

  bool holds(const Tensor& t) const {
    return gpu < 0 ? t.is_cpu() : t.is_cuda() && t.get_device_index() == gpu;
  }
  std::string name() const {
    return gpu < 0 ? "the CPU: call .cpu() on it"
                   : "cuda:" + std::to_string(gpu) + ": call .to('cuda:" + std::to_string(gpu) +
                         "') on it";
  }
};

// Checks device, dtype, rank and size; returns the tensor with dense memory.
inline Tensor dense(const Tensor& t, const char* name, int64_t rank, const char* meaning,
                    std::initializer_list<ScalarType> types, Place place = {}) {
  FS_CHECK(place.holds(t), name, " is not on ", place.name());
  bool known = false;
  std::string expected;
  for (const ScalarType type : types) {
    known = known || t.scalar_type() == type;
    expected += (expected.empty() ? "" : " or ") + type_name(type);
  }
  FS_CHECK(known, name, " is ", type_name(t.scalar_type()), ": expected ", expected, " ", meaning);
  FS_CHECK(t.dim() == rank, name, " has shape ", shape(t), ": expected ", rank, " dimensions ",
           meaning);
  check_fits(sizes(t), std::string(name) + " has");
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// Words (uint8 or int16) or graded values (int16), [N, H, W, C].
inline Tensor activations(const Tensor& t, const char* name, Place place = {}) {
  return dense(t, name, 4, "[N, H, W, C]", {ScalarType::Byte, ScalarType::Short}, place);
}

inline Tensor per_channel(const Tensor& t, const char* name, int64_t channels, Place place = {}) {
  const Tensor d = dense(t, name, 1, "[O]", {ScalarType::Float}, place);
  FS_CHECK(d.size(0) == channels, name, " has ", d.size(0), " elements: expected one for ",
           "each of the ", channels, " output channels");
  return d;
}

// The tables of shaped neurons, float32 [1 or channels, 2, segments].
inline Tensor tables(const Tensor& t, const char* name, int64_t channels, Place place = {}) {
  const Tensor d = dense(t, name, 3, "[1 or O, 2, S]", {ScalarType::Float}, place);
  FS_CHECK((d.size(0) == 1 || d.size(0) == channels) && d.size(1) == 2, name, " has shape ",
           shape(d), ": expected [1, 2, S], or [", channels, ", 2, S], slopes and offsets of S ",
           "segments");
  const int64_t S = d.size(2);
  FS_CHECK(S == 32 || S == 64 || S == 128 || S == 256, name, " has ", S,
           " segments: expected 32, 64, 128 or 256");
  return d;
}

inline Shape as_shape(const Tensor& tables) {
  const int64_t S = tables.size(2);
  return {static_cast<const float*>(tables.const_data_ptr()), static_cast<int32_t>(S),
          tables.size(0) > 1 ? 2 * S : 0};
}

inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> size, ScalarType type) {
  return torch::stable::new_empty(like, std::vector<int64_t>(size), type);
}

// An operator's result, of any number of dimensions.
inline Tensor new_output(const Tensor& like, std::initializer_list<int64_t> size, ScalarType type) {
  check_fits(size, "the output would have");
  return new_tensor(like, size, type);
}

inline ScalarType word_type(int64_t K) {
  return word_bytes(K) == 1 ? ScalarType::Byte : ScalarType::Short;
}

inline int32_t bytes_of(const Tensor& t) { return static_cast<int32_t>(t.element_size()); }

inline void plane_bits(int64_t bits) {
  FS_CHECK(bits == 0 || bits == 1 || bits == 2 || bits == 4 || bits == 8, "plane_bits is ", bits,
           ": expected 0 (all at once), 1, 2, 4 or 8");
}

// `what` it is that has this height and width, for the message.
inline Size output_of(int64_t height, int64_t width, const Geometry& g, const std::string& what) {
  const Size s = output_size(g, height, width);
  FS_CHECK(s.h > 0 && s.w > 0, what, " is too small for a kernel of ", g.kernel_h, "x", g.kernel_w,
           " with dilation ", g.dilation_h, "x", g.dilation_w, " and padding ", g.pad_top, ",",
           g.pad_bottom, ",", g.pad_left, ",", g.pad_right, ": use a larger image or more padding");
  return s;
}

inline Size output_of(const Tensor& x, const Geometry& g, const char* name) {
  return output_of(x.size(1), x.size(2), g, std::string(name) + " of shape " + shape(x));
}

inline void in_range(int64_t value, int64_t low, int64_t high, const char* name,
                     const char* meaning) {
  FS_CHECK(value >= low && value <= high, name, " is ", value, ": expected ", low, " to ", high,
           " (", meaning, ")");
}

// The codes of t that stand for zero.
inline void code_of_zero(const Tensor& t, int64_t zero, const char* name) {
  const bool bytes = t.scalar_type() == ScalarType::Byte;
  in_range(zero, bytes ? 0 : -32767, bytes ? 255 : 32767, name, "a code of its tensor's type");
}

// What a gate multiplies: b has a's pixels or one, and a's channels or one.
inline void multipliable(const Tensor& a, const Tensor& b) {
  const bool same = b.size(1) == a.size(1) && b.size(2) == a.size(2);
  const bool fits = b.size(0) == a.size(0) && (same || (b.size(1) == 1 && b.size(2) == 1)) &&
                    (b.size(3) == a.size(3) || b.size(3) == 1);
  FS_CHECK(fits, "b has shape ", shape(b),
           ": expected a's images, its pixels or one, its channels ", "or one; a has shape ",
           shape(a));
}

// As per_channel, of finite numbers; on a GPU nobody looks, which would have to wait for it.
inline Tensor finite_per_channel(const Tensor& t, const char* name, int64_t channels,
                                 Place place = {}) {
  const Tensor d = per_channel(t, name, channels, place);
  if (place.gpu >= 0) return d;
  const auto* v = static_cast<const float*>(d.const_data_ptr());
  for (int64_t c = 0; c < channels; ++c)
    FS_CHECK(std::isfinite(v[c]), name, " of channel ", c, " is ", v[c],
             ": expected a finite number");
  return d;
}

// Weights to pack for this geometry and range of input codes; returns them with dense memory.
inline Tensor packable(const Tensor& weight, const Geometry& g, int64_t x_min, int64_t x_max,
                       Place place = {}) {
  const Tensor w = dense(weight, "weight", 4, "[O, I/groups, kh, kw]",
                         {ScalarType::Char, ScalarType::Short}, place);
  FS_CHECK(w.size(2) == g.kernel_h && w.size(3) == g.kernel_w, "weight has shape ", shape(w),
           ": the geometry's kernel is ", g.kernel_h, "x", g.kernel_w);
  FS_CHECK(w.size(0) > 0 && w.size(1) > 0 && w.size(0) % g.groups == 0, "weight has shape ",
           shape(w), ": expected at least one channel and output channels that ", g.groups,
           " groups divide");
  in_range(x_min, -32768, 0, "x_min", "the smallest input code");
  in_range(x_max, 0, 32767, "x_max", "the largest input code");
  in_range(g.pad_code, x_min, x_max, "pad_code", "within the range of the input codes");
  return w;
}

// A readout's input and weights.
inline void readable(const Tensor& x, const Tensor& weight, bool pooled) {
  const int64_t pixels = x.size(1) * x.size(2), features = (pooled ? 1 : pixels) * x.size(3);
  FS_CHECK(weight.size(1) == features, "weight has shape ", shape(weight), ": x of shape ",
           shape(x), pooled ? ", summed over its pixels," : "", " has ", features, " features");
  FS_CHECK(!pooled || pixels <= 65536, "x has ", pixels, " pixels in an image: at most ",
           "65536 can be summed in 32 bits, use a smaller image");
}

inline FloatType float_type(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return FloatType::kFloat32;
    case ScalarType::Double:
      return FloatType::kFloat64;
    case ScalarType::Half:
      return FloatType::kFloat16;
    case ScalarType::BFloat16:
      return FloatType::kBFloat16;
    default:
      fail("x is ", type_name(type),
           ": expected float32, float64, float16 or bfloat16, call .float() on it");
  }
}

// Float values to encode. The CPU's encoder reads all float types, a GPU's float32 alone.
inline void values(const Tensor& x, const char* name, Place place) {
  FS_CHECK(place.holds(x), name, " is not on ", place.name());
  if (place.gpu < 0) float_type(x.scalar_type());
  FS_CHECK(place.gpu < 0 || x.scalar_type() == ScalarType::Float, name, " is ",
           type_name(x.scalar_type()), ": expected float32, call .float() on it");
  FS_CHECK(x.dim() == 4, name, " has shape ", shape(x), ": expected [N, C, H, W]");
  check_fits(sizes(x), std::string(name) + " has");
}

inline void inverse_step(double inv_step) {
  FS_CHECK(inv_step > 0 && inv_step <= 3.4e38, "inv_step is ", inv_step,
           ": expected a positive number, 1/step");
}

inline void encodable(const Tensor& x, double inv_step, Place place) {
  values(x, "x", place);
  inverse_step(inv_step);
}

// What a word's unit stands for.
inline void step(double step, int64_t K) {
  FS_CHECK(step > 0 && step <= 3.4e38, "step is ", step, ": expected a positive number");
  FS_CHECK(K > 0 || step == 1, "step is ", step, ": without neurons (K=0) y are the membrane ",
           "potentials themselves, expected 1");
}

// The neurons of encoded words.
inline void words(double offset, int64_t K) {
  in_range(K, 1, 15, "K", "time steps");
  FS_CHECK(offset >= -1e6 && offset <= 1e6, "offset is ", offset,
           ": expected 0 (floor), 0.5 (nearest) or another finite number of thresholds");
}

// The codes that float values become: words of K steps, or (K = 0) graded values up to `limit`.
inline void encoder(double offset, int64_t K, int64_t limit) {
  if (K) return words(offset, K);
  in_range(limit, 1, 32767, "x_limit", "of graded values");
}

// Of checked numbers.
inline Encoder as_encoder(double inv_step, double offset, int64_t K, int64_t limit) {
  return {static_cast<float>(inv_step), static_cast<float>(offset), static_cast<int32_t>(K),
          static_cast<int32_t>(limit)};
}

// Synapses that leave each row and column of a map of words.
inline void fans(const Tensor& words, const Tensor& fan_y, const Tensor& fan_x) {
  FS_CHECK(fan_y.size(0) == words.size(1) && fan_x.size(0) == words.size(2), "fan_y has ",
           fan_y.size(0), " and fan_x ", fan_x.size(0), " elements: words of shape ", shape(words),
           " have ", words.size(1), " rows and ", words.size(2), " columns");
}

}  // namespace fskernel::checks
