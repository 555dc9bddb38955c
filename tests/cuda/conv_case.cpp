#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "cases.h"
#include "cuda/pack.h"
#include "cuda/tensor_layout.h"
#include "random.h"
#include "reference.h"
#include "target.h"

namespace fskernel::testing {
namespace {

// One synapse group and its input.
struct Input {
  Input(Random& r, int64_t images, int64_t out, int64_t out_h, int64_t out_w, bool first,
        bool grouped)
      : kind(r), window(r, out_h, out_w, first ? r.pick({1, 3, 3, 7}) : 1) {
    Geometry& g = window.g;
    channels = grouped ? r.pick({2, 6, 12}) : r.pick({3, 8, 16, 20, 64, 72});
    if (grouped) g.groups = r.pick({2, static_cast<int>(channels)});
    if (out % g.groups) g.groups = 1;
    weight_bytes = r.pick({1, 2});
    g.pad_code = r.chance(50) ? 0 : r.in32(kind.x_min, kind.x_max);
    const int64_t terms = channels / g.groups * g.kernel_h * g.kernel_w;
    int64_t top = weight_bytes == 1 ? 127 : 32767;
    top = std::min(top, ((int64_t{1} << 31) - 1) / (int64_t{kind.x_max} * terms));  // sums must fit
    x = kind.codes(r, images * window.height * window.width * channels);
    w.resize(static_cast<size_t>(out * terms));
    for (int32_t& v : w) v = static_cast<int32_t>(r.chance(10) ? top : r.in(-top, top));
    m.resize(static_cast<size_t>(out));
    for (float& v : m)
      v = static_cast<float>(r.in(-600, 1400)) /
          (static_cast<float>(kind.x_max) * (static_cast<float>(top) + 1.0f) *
           static_cast<float>(terms)) *
          16;
  }

  reference::Group group() const {
    const Geometry& g = window.g;
    return {x.data(),   w.data(),    m.data(),     window.height, window.width, channels,
            g.kernel_h, g.kernel_w,  g.stride_h,   g.stride_w,    g.pad_top,    g.pad_bottom,
            g.pad_left, g.pad_right, g.dilation_h, g.dilation_w,  g.groups,     g.pad_code};
  }

  Kind kind;
  Window window;
  int64_t channels;
  int32_t weight_bytes;
  std::vector<int32_t> x, w;
  std::vector<float> m;
};

// The codes of a map; `wrong` names a halo that is not its code.
std::vector<int32_t> dense(const std::vector<uint8_t>& v, const cuda::ByteMap& map, int64_t h,
                           int64_t w, int64_t channels, int32_t pad_code, std::string& wrong) {
  std::vector<int32_t> codes;
  for (int64_t n = 0; n < map.images; ++n)
    for (int64_t row = 0; row < map.rows; ++row)
      for (int64_t col = 0; col < map.cols; ++col)
        for (int64_t c = 0; c < map.channels; ++c) {
          const int64_t at = ((n * map.rows + row) * map.cols + col) * map.channels + c;
          int32_t code = v[static_cast<size_t>(at)];
          if (map.planes == 2)
            code = static_cast<int8_t>(code) * 256 + v[static_cast<size_t>(at + map.plane())];
          const int64_t y = row - map.top, x = col - map.left;
          if (y >= 0 && y < h && x >= 0 && x < w) {
            if (c < channels) codes.push_back(code);
          } else if (code != pad_code && c < channels) {
            wrong = "the halo holds " + std::to_string(code);
          }
        }
  return codes;
}

// What the contract's items 3 and 4 give before the neuron.
std::vector<float> membranes(const std::vector<reference::Group>& groups,
                             const std::vector<float>& bias, const std::vector<int32_t>& residual,
                             float r, int64_t images, int64_t out_h, int64_t out_w) {
  const int64_t out = static_cast<int64_t>(bias.size());
  std::vector<float> v;
  for (int64_t at = 0; at < images * out_h * out_w * out; ++at) {
    const int64_t o = at % out, ox = at / out % out_w, oy = at / out / out_w % out_h;
    float value = bias[o];
    for (const reference::Group& g : groups)
      value = std::fma(static_cast<float>(static_cast<int32_t>(
                           reference::sum(g, out, at / out / out_w / out_h, oy, ox, o))),
                       g.m[o], value);
    if (!residual.empty()) value = std::fma(static_cast<float>(residual[at]), r, value);
    v.push_back(value);
  }
  return v;
}

}  // namespace

std::string conv_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  Target target(seed);
  const int64_t images = r.in(1, 4), out_h = r.in(1, 6), out_w = r.in(1, 6);
  const bool grouped = r.chance(25), rate = r.chance(20);
  const int64_t out = grouped ? r.pick({6, 12, 24}) : r.pick({1, 10, 24, 64, 72, 128});
  const int64_t outputs = images * out_h * out_w * out;
  std::vector<Input> inputs;
  for (int64_t i = r.in(1, 2); i > 0; --i)
    inputs.emplace_back(r, images, out, out_h, out_w, inputs.empty(), grouped);
  const int32_t K = rate ? 1 : r.in32(0, 15), limit = r.pick({127, 32767});
  const int32_t y_bytes = K >= 1 && K <= 8 ? 1 : 2;
  std::vector<float> bias(static_cast<size_t>(out));
  for (float& b : bias)
    b = static_cast<float>(r.in(-4000, 12000)) / 16 * static_cast<float>(1 << K) / 1024;
  std::vector<int32_t> residual;
  const Kind residual_kind(r);
  if (r.chance(40)) residual = residual_kind.codes(r, outputs);
  const float residual_scale = 0.37f;

  std::vector<float> top;
  if (K > 0 && !rate && r.chance(35))
    for (int64_t o = 0; o < out; ++o)
      top.push_back(static_cast<float>(r.chance(40) ? (1 << K) - 1 : r.in(0, (1 << K) - 1)));
  const bool floats = !rate && r.chance(25);
  const double step = K ? 0.0123456789 * static_cast<double>(r.in(1, 1000)) : 1;

  std::vector<reference::Group> groups;
  for (const Input& in : inputs) groups.push_back(in.group());
  std::vector<int32_t> wanted(static_cast<size_t>(outputs));
  std::vector<int64_t> wanted_counts(static_cast<size_t>(images));
  std::vector<float> membrane, wanted_membrane;
  if (rate) {
    const auto current = membranes(groups, bias, residual, residual_scale, images, out_h, out_w);
    for (int64_t i = 0; i < outputs; ++i) {
      membrane.push_back(static_cast<float>(r.in(-1000, 1000)) / 1024);
      float u = membrane.back() + current[i];
      wanted[i] = u >= 1.0f;
      if (wanted[i]) u -= 1.0f;
      wanted_membrane.push_back(u);
      wanted_counts[i / (outputs / images)] += wanted[i];
    }
  } else {
    reference::conv(groups.data(), static_cast<int>(groups.size()), bias.data(),
                    residual.empty() ? nullptr : residual.data(), residual_scale, K, limit,
                    top.empty() ? nullptr : top.data(), images, out_h, out_w, out, wanted.data(),
                    wanted_counts.data());
  }

  ConvCall call{};
  PackHeader headers[2]{};
  bool tensor_cores = true;
  for (const Input& in : inputs) {
    const int i = call.input_count++;
    const Geometry& g = in.window.g;
    headers[i] = cuda::pack_header(g, out, in.channels / g.groups, in.weight_bytes, in.kind.x_min,
                                   in.kind.x_max);
    tensor_cores = tensor_cores && cuda::has_tensor_weights(headers[i]);
    const std::vector<uint8_t> weights = as_bytes(in.w, in.weight_bytes);
    std::vector<uint8_t> packed(static_cast<size_t>(cuda::packed_bytes(headers[i])));
    cuda::pack(headers[i], weights.data(), packed.data());
    call.input[i] = {target.give("x", as_bytes(in.x, in.kind.bytes)),
                     in.kind.bytes,
                     in.window.height,
                     in.window.width,
                     in.channels,
                     target.give("packed", packed),
                     static_cast<int64_t>(packed.size()),
                     target.give("m", in.m),
                     g};
  }
  call.images = images, call.out_h = out_h, call.out_w = out_w, call.out_channels = out;
  call.bias = target.give("bias", bias);
  if (!residual.empty()) {
    call.residual = target.give("residual", as_bytes(residual, residual_kind.bytes));
    call.residual_bytes = residual_kind.bytes;
    call.residual_scale = residual_scale;
  }
  call.K = K, call.limit = limit;
  call.plane_bits = rate ? 0 : r.pick({0, 0, 0, 0, 4, 2, 1});
  const std::string kernel = !tensor_cores || r.chance(20) ? "direct" : "";
  if (!top.empty()) call.top = target.give("top", top);
  if (floats) call.step = step;
  if (kernel.empty() && !rate && !floats && r.chance(40))
    call.y_kept = {true,         r.in32(0, 2), r.in32(0, 2),
                   r.in32(0, 2), r.in32(0, 2), y_bytes == 1 ? r.in32(0, 255) : r.in32(-300, 300)};
  const cuda::ByteMap y_map = cuda::kept_map(call.y_kept, images, out_h, out_w, out, y_bytes);
  const int64_t bytes = call.y_kept.map ? y_map.bytes() : outputs * (floats ? 4 : y_bytes);
  call.y = target.take("y", bytes);
  const std::vector<int64_t> none(static_cast<size_t>(images));
  call.counts = reinterpret_cast<int64_t*>(target.take_state("counts", images * 8, none.data()));
  if (rate)
    call.membrane =
        reinterpret_cast<float*>(target.take_state("membrane", outputs * 4, membrane.data()));
  uint8_t* scratch = target.take("scratch", cuda::conv_scratch_bytes(call, headers, kernel));
  const char* name = "";
  try {
    target.check(cuda::launch_conv(call, headers, scratch, kernel, target.where(), name));
  } catch (const std::exception& error) {
    throw std::runtime_error(std::string(name) + ": " + error.what());
  }

  const auto memory = target.back<uint8_t>(call.y, bytes);
  std::vector<int32_t> got;
  std::string wrong;
  if (call.y_kept.map)
    got = dense(memory, y_map, out_h, out_w, out, call.y_kept.pad_code, wrong);
  else if (!floats)
    for (int64_t i = 0; i < outputs; ++i) got.push_back(code_at(memory, i, y_bytes));
  const std::string where = std::string(name) + ": ";
  if (!wrong.empty()) return where + wrong;
  if (floats) {
    const auto v = membranes(groups, bias, residual, residual_scale, images, out_h, out_w);
    for (int64_t i = 0; i < outputs; ++i) {
      const float want = K ? static_cast<float>(wanted[i] * step) : v[i];
      float found;
      std::memcpy(&found, memory.data() + 4 * i, 4);
      if (found != want) return where + differs("float", i, found, want);
    }
    got = wanted;
  }
  for (int64_t i = 0; i < outputs; ++i)
    if (got[i] != wanted[i]) return where + differs("output", i, got[i], wanted[i]);
  const auto counts = target.back<int64_t>(call.counts, images);
  for (int64_t n = 0; n < images; ++n)
    if (counts[n] != wanted_counts[n])
      return where + differs("the spikes of image", n, static_cast<double>(counts[n]),
                             static_cast<double>(wanted_counts[n]));
  if (rate) {
    const auto after = target.back<float>(call.membrane, outputs);
    for (int64_t i = 0; i < outputs; ++i)
      if (after[i] != wanted_membrane[i])
        return where + differs("membrane", i, after[i], wanted_membrane[i]);
  }
  return "";
}

}  // namespace fskernel::testing
