// The convolution operator as far as no device is involved: checks, outputs, the call.
#pragma once

#include <optional>

#include "../checked_numbers.h"
#include "../checked_sizes.h"
#include "../conv_call.h"
#include "../cpu/conv/conv_layer.h"
#include "../cuda/byte_map.h"
#include "checks.h"

namespace fskernel {

using checks::Tensor;

// Activations as an operator is given them: a dense tensor, or the bytes of a map that a layer on a
// GPU left, with the numbers that say what it is (map_as); no numbers: dense.
// Or float values [N, C, H, W], of any strides, that become codes of `encoded_bytes`.
struct Given {
  Given(const Tensor& t) : tensor(t) {}
  Given(const Tensor& t, std::vector<int64_t> numbers) : tensor(t), map(std::move(numbers)) {}
  Given(const Tensor& t, int32_t encoded_bytes) : tensor(t), encoded_bytes(encoded_bytes) {}

  Tensor tensor;
  std::vector<int64_t> map;
  int32_t encoded_bytes = 0;
};

// A synapse group as an operator is told it: the 12 numbers of its geometry and, where the caller
// declares the range of its codes, that range's two.
struct Synapse {
  Synapse(const std::vector<int64_t>& v, const std::string& name)
      : geometry(checks::geometry({v.begin(), v.begin() + std::min<size_t>(v.size(), 12)},
                                  name.c_str())),
        declared(v.size() > 12) {
    if (!declared) return;
    FS_CHECK(v.size() == 14, name, " has ", v.size(), " numbers: expected the 12 of ",
             "Geometry.as_ints(), or these and the declared range's two");
    for (size_t i = 12; i < 14; ++i)
      FS_CHECK(v[i] >= -32768 && v[i] <= 32767, name, ": the declared range ends at ", v[i],
               ", expected a number from -32768 to 32767");
    x_min = static_cast<int32_t>(v[12]), x_max = static_cast<int32_t>(v[13]);
  }

  Geometry geometry;
  bool declared;
  int32_t x_min = 0, x_max = 0;
};

// Checked activations, with what keeps their memory alive.
struct Codes : CodesShape {
  Codes() = default;
  Codes(const Given& given, const std::string& name, checks::Place place) {
    if (given.encoded_bytes) {
      memory = given.tensor;
      checks::values(memory, name.c_str(), place);
      images = memory.size(0), channels = memory.size(1);
      height = memory.size(2), width = memory.size(3);
      bytes = given.encoded_bytes;
      return;
    }
    if (given.map.empty()) {
      memory = checks::activations(given.tensor, name.c_str(), place);
      images = memory.size(0), height = memory.size(1), width = memory.size(2);
      channels = memory.size(3), bytes = checks::bytes_of(memory);
      return;
    }
    memory = given.tensor;  // of two planes, it may have more than 2^31 bytes
    FS_CHECK(place.holds(memory), name, " is not on ", place.name());
    FS_CHECK(memory.scalar_type() == checks::ScalarType::Byte && memory.dim() == 1 &&
                 memory.is_contiguous(),
             name, " is ", checks::type_name(memory.scalar_type()), " of shape ",
             checks::shape(memory), ": expected the bytes of a map, contiguous uint8");
    static_cast<CodesShape&>(*this) = map_as(given.map, name);
    const int64_t wanted = cuda::kept_map(kept, images, height, width, channels, bytes).bytes();
    FS_CHECK(memory.numel() == wanted, name, " is a byte map of ", memory.numel(),
             " bytes: expected ", wanted, " for ", shape());
    FS_CHECK(reinterpret_cast<uintptr_t>(memory.const_data_ptr()) % 16 == 0, name,
             " is a byte map whose memory is not aligned to 16 bytes");
  }
  std::string shape() const {
    std::ostringstream out;
    out << '[' << images << ", " << height << ", " << width << ", " << channels << ']';
    return out.str();
  }

  Tensor memory;
};

// The arguments of a convolution that its operators share, as they come.
struct ConvArguments {
  Given x;
  Tensor packed, m;
  std::vector<int64_t> geometry;
  Tensor bias;
  std::optional<Given> x2{};
  std::optional<Tensor> packed2{}, m2{};
  std::vector<int64_t> geometry2{};
  std::optional<Given> residual{};
  std::optional<Tensor> r{};
  int64_t K = 1, limit = 1, plane_bits = 0;
};

// The checked arguments of one convolution and its outputs, with what keeps their memory alive.
struct CheckedConv {
  ConvCall call{};
  Tensor y, counts;

  // What the operator is asked for beside its neurons' words.
  struct Asked {
    std::optional<Tensor> top{};     // [O] largest words
    std::optional<double> step{};    // float output
    bool count = true;               // spikes
    std::optional<Tensor> table{};   // of shaped neurons
    std::optional<Tensor> fitted{};  // of fitted ones, whose code of zero is `zero`
    int64_t zero = 0;
    // Where set, y has the values' type, and its channels come first or last.
    std::optional<checks::ScalarType> type{};
    bool channels_first = false;
  };

  // check_packed(input, output channels, argument's name) throws for weights packed otherwise.
  template <class CheckPacked>
  CheckedConv(checks::Place place, const ConvArguments& arguments, CheckPacked&& check_packed,
              const Asked& asked, const Kept& y_kept = {}) {
    const auto& [x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, K, limit,
                 plane_bits] = arguments;
    checks::in_range(K, 0, asked.fitted.has_value() ? 16 : 15, "K",
                     "time steps; 0 gives graded output");
    checks::in_range(limit, 1, 32767, "limit", "of graded output");
    checks::plane_bits(plane_bits);
    FS_CHECK(x2.has_value() == packed2.has_value() && x2.has_value() == m2.has_value(),
             "x2, packed2 and m2 belong together: pass all of them or none");
    FS_CHECK(residual.has_value() == r.has_value(),
             "residual and r belong together: pass both or none");
    FS_CHECK(bias.dim() == 1, "bias has shape ", checks::shape(bias), ": expected [O]");
    const int64_t channels = bias.size(0);
    bias_ = checks::per_channel(bias, "bias", channels, place);
    const Size out = group(0, place, x, packed, m, geometry, "", check_packed);
    const int64_t N = x_[0].images;
    check_fits({N, out.h, out.w, channels}, "the output would have");
    if (x2.has_value()) {
      const Size second = group(1, place, *x2, *packed2, *m2, geometry2, "2", check_packed);
      FS_CHECK(x_[1].images == N && second.h == out.h && second.w == out.w, "x2 of shape ",
               x_[1].shape(), " gives ", x_[1].images, " images of ", second.h, "x", second.w,
               ", but x gives ", N, " images of ", out.h, "x", out.w,
               ": both synapse groups feed the same neurons");
    }
    if (residual.has_value()) {
      residual_ = Codes(*residual, "residual", place);
      FS_CHECK(residual_.images == N && residual_.height == out.h && residual_.width == out.w &&
                   residual_.channels == channels,
               "residual has shape ", residual_.shape(), ": expected that of the output, [", N,
               ", ", out.h, ", ", out.w, ", ", channels, "]");
      // Read here, before anything runs, so it stays on the CPU for every device.
      FS_CHECK(r->numel() == 1 && r->scalar_type() == checks::ScalarType::Float && r->is_cpu(),
               "r has shape ", checks::shape(*r), " and type ", checks::type_name(r->scalar_type()),
               ": expected one float32 on the CPU");
      call.residual = residual_.memory.const_data_ptr();
      call.residual_bytes = residual_.bytes;
      call.residual_kept = residual_.kept;
      call.residual_scale = *static_cast<const float*>(r->const_data_ptr());
    }
    if (asked.top.has_value()) {
      FS_CHECK(K > 0, "top is given with K=0: without neurons nothing has a largest word");
      top_ = checks::per_channel(*asked.top, "top", channels, place);
      call.top = static_cast<const float*>(top_.const_data_ptr());
      if (place.gpu < 0) check_tops(call.top, channels, static_cast<int32_t>(K), "top");
    }
    if (asked.table.has_value()) {
      FS_CHECK(K > 0, "table is given with K=0: it is of neurons, which have a K of 1 to 15");
      FS_CHECK(!asked.top.has_value() && !asked.step.has_value(), "table is given with ",
               asked.top.has_value() ? "top: the table ends where its neurons shall stop"
                                     : "step: words of shaped neurons have a code of zero; decode "
                                       "them, and subtract it");
      table_ = checks::tables(*asked.table, "table", channels, place);
      call.shape = checks::as_shape(table_);
      if (place.gpu < 0) check_shape(call.shape, table_.size(0), static_cast<int32_t>(K), "table");
    }
    FS_CHECK(asked.zero == 0 || asked.fitted.has_value(), "zero=", asked.zero,
             " is given without fitted: it is the code of zero of fitted neurons");
    if (asked.fitted.has_value()) {
      FS_CHECK(K > 0, "fitted is given with K=0: K is the bits of the neurons' codes, 1 to 16");
      FS_CHECK(!asked.top.has_value() && !asked.step.has_value() && !asked.table.has_value(),
               "fitted is given with top, step or table: its neurons have neither a largest word ",
               "nor a table, and their codes a code of zero; decode them, and subtract it");
      fitted_ = checks::dense(*asked.fitted, "fitted", 2, "[3, steps]", {checks::ScalarType::Float},
                              place);
      FS_CHECK(fitted_.size(0) == 3 && fitted_.size(1) >= 1 && fitted_.size(1) <= kMostSteps,
               "fitted has shape ", checks::shape(fitted_),
               ": expected [3, steps], thresholds, resets and worths of 1 to 16 steps");
      checks::in_range(asked.zero, 0, (int64_t{1} << K) - 1, "zero", "a code of the K bits");
      call.fitted = {static_cast<const float*>(fitted_.const_data_ptr()),
                     static_cast<int32_t>(fitted_.size(1)), static_cast<float>(asked.zero)};
      if (place.gpu < 0) check_fitted(call.fitted, static_cast<int32_t>(K), "fitted");
    }
    if (asked.step.has_value()) {
      checks::step(*asked.step, K);
      FS_CHECK(!y_kept.map, "step and halo are given: a byte map holds codes, not floats");
      FS_CHECK(place.gpu < 0 || N * out.h * out.w * channels < (int64_t{1} << 30),
               "the output would have 2^30 or more floats, beyond what a kernel addresses: split ",
               "the batch");
      call.step = *asked.step;
    }
    if (y_kept.map) {
      const int32_t bytes = word_bytes(K);
      const int64_t size = cuda::kept_map(y_kept, N, out.h, out.w, channels, bytes).bytes();
      y = checks::new_tensor(x_[0].memory, {size}, checks::ScalarType::Byte);
      call.y_kept = y_kept;
    } else if (asked.type.has_value()) {
      y = asked.channels_first
              ? checks::new_tensor(x_[0].memory, {N, channels, out.h, out.w}, *asked.type)
              : checks::new_tensor(x_[0].memory, {N, out.h, out.w, channels}, *asked.type);
    } else {
      y = checks::new_tensor(
          x_[0].memory, {N, out.h, out.w, channels},
          asked.step.has_value() ? checks::ScalarType::Float : checks::word_type(K));
    }
    counts = torch::stable::new_zeros(x_[0].memory, std::vector<int64_t>{asked.count ? N : 0},
                                      checks::ScalarType::Long);
    call.images = N;
    call.out_h = out.h;
    call.out_w = out.w;
    call.out_channels = channels;
    call.bias = static_cast<const float*>(bias_.const_data_ptr());
    call.K = static_cast<int32_t>(K);
    call.limit = static_cast<int32_t>(limit);
    call.plane_bits = static_cast<int32_t>(plane_bits);
    call.y = y.mutable_data_ptr();
    if (asked.count) call.counts = static_cast<int64_t*>(counts.mutable_data_ptr());
  }

 private:
  Codes x_[2], residual_;
  Tensor packed_[2], m_[2], bias_, top_, table_, fitted_;

  // Adds one synapse group to the call; returns the size of its output.
  template <class CheckPacked>
  Size group(int i, checks::Place place, const Given& x, const Tensor& packed, const Tensor& m,
             const std::vector<int64_t>& geometry, const std::string& suffix,
             CheckPacked&& check_packed) {
    const auto name = [&](const char* base) { return base + suffix; };
    x_[i] = Codes(x, name("x"), place);
    packed_[i] = checks::dense(packed, name("packed").c_str(), 1, "(made by ops.pack)",
                               {checks::ScalarType::Byte}, place);
    m_[i] = checks::per_channel(m, name("m").c_str(), channels(), place);
    const Synapse synapse(geometry, name("geometry"));
    const Geometry& g = synapse.geometry;
    call.input[i] = {x_[i].memory.const_data_ptr(),
                     x_[i].bytes,
                     x_[i].height,
                     x_[i].width,
                     x_[i].channels,
                     static_cast<const uint8_t*>(packed_[i].const_data_ptr()),
                     packed_[i].numel(),
                     static_cast<const float*>(m_[i].const_data_ptr()),
                     g,
                     x_[i].kept,
                     synapse.declared,
                     synapse.x_min,
                     synapse.x_max};
    call.input_count = i + 1;
    check_packed(call.input[i], channels(), name("packed"));
    check_fits({x_[i].height + g.pad_top + g.pad_bottom, x_[i].width + g.pad_left + g.pad_right,
                x_[i].channels},
               name("x") + " would have, with its padding,");
    return checks::output_of(x_[i].height, x_[i].width, g,
                             name("x") + " of shape " + x_[i].shape());
  }

  int64_t channels() const { return bias_.size(0); }
};

}  // namespace fskernel
