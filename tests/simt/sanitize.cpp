// The tensor-core kernels in the emulator on pseudo-random layers, against csrc/reference.h; needs
// neither torch nor Python. Meant for the address and undefined-behaviour sanitisers:
//
//   sanitize [cases] [seed]     ends with status 1 at the first failure, and prints what repeats it
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/conv.h"
#include "reference.h"
#include "simt/launch.h"

using namespace fskernel;

namespace {

struct Emulator {
  simt::Options options;
  std::vector<simt::Buffer> buffers;
  int count = 1;

  int multiprocessors() const { return count; }
  template <class Args>
  int launch(const cuda::Launch& how, void (*kernel)(Args), const Args& args) {
    simt::launch({{static_cast<int>(how.blocks)}, how.threads, how.shared_bytes}, buffers, options,
                 [=] { kernel(args); });
    return 0;
  }
};

// Of its exact size, so that the sanitiser sees one byte too many; aligned as device memory is.
struct Memory {
  explicit Memory(int64_t n) : bytes(n) {
    if (posix_memalign(&data, 256, n ? n : 1)) std::abort();
    std::memset(data, 0xcd, n);
  }
  Memory(const Memory&) = delete;
  ~Memory() { std::free(data); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t bytes;
  void* data = nullptr;
};

struct Random {
  std::mt19937_64 engine;
  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return in(1, 100) <= percent; }
  template <class T>
  T pick(std::initializer_list<T> from) {
    return from.begin()[in(0, static_cast<int64_t>(from.size()) - 1)];
  }
};

struct Input {
  Geometry g{};
  int64_t height, width, channels;
  int32_t x_bytes, weight_bytes, x_min, x_max;
  std::vector<int32_t> x, w;
  std::vector<float> m;
};

void put(void* to, int32_t bytes, const std::vector<int32_t>& from) {
  for (size_t i = 0; i < from.size(); ++i)
    if (bytes == 1)
      static_cast<uint8_t*>(to)[i] = static_cast<uint8_t>(from[i]);
    else
      static_cast<int16_t*>(to)[i] = static_cast<int16_t>(from[i]);
}

// Words of 1..15 steps, or graded values.
void draw_kind(Random& r, int32_t& x_min, int32_t& x_max, int32_t& bytes) {
  const int K = static_cast<int>(r.in(0, 15));
  x_max = K ? (1 << K) - 1 : r.pick({127, 2047, 32767});
  x_min = K ? 0 : -x_max;
  bytes = K && K <= 8 ? 1 : 2;
}

Input draw_input(Random& r, int64_t images, int64_t out, int64_t out_h, int64_t out_w, bool first) {
  Input in;
  Geometry& g = in.g;
  const bool large = first && r.chance(10);
  g.kernel_h = static_cast<int32_t>(large ? 7 : first ? r.in(1, 3) : 1);
  g.kernel_w = static_cast<int32_t>(large ? 7 : first ? r.in(1, 3) : 1);
  g.stride_h = static_cast<int32_t>(r.in(1, 3)), g.stride_w = static_cast<int32_t>(r.in(1, 3));
  g.dilation_h = static_cast<int32_t>(r.in(1, 2)), g.dilation_w = static_cast<int32_t>(r.in(1, 2));
  g.groups = 1;
  const int64_t need_h = (out_h - 1) * g.stride_h + g.dilation_h * (g.kernel_h - 1) + 1;
  const int64_t need_w = (out_w - 1) * g.stride_w + g.dilation_w * (g.kernel_w - 1) + 1;
  if (need_h > 4)
    g.pad_top = static_cast<int32_t>(r.in(0, 2)), g.pad_bottom = static_cast<int32_t>(r.in(0, 1));
  if (need_w > 4)
    g.pad_left = static_cast<int32_t>(r.in(0, 2)), g.pad_right = static_cast<int32_t>(r.in(0, 1));
  in.height = need_h - g.pad_top - g.pad_bottom + r.in(0, g.stride_h - 1);
  in.width = need_w - g.pad_left - g.pad_right + r.in(0, g.stride_w - 1);
  in.channels = r.pick({3, 8, 16, 20, 64, 72});
  draw_kind(r, in.x_min, in.x_max, in.x_bytes);
  in.weight_bytes = r.pick({1, 2});
  g.pad_code = static_cast<int32_t>(r.chance(50) ? 0 : r.in(in.x_min, in.x_max));
  const int64_t terms = in.channels * g.kernel_h * g.kernel_w;
  int64_t top = in.weight_bytes == 1 ? 127 : 32767;
  top = std::min(top, ((int64_t{1} << 31) - 1) / (int64_t{in.x_max} * terms));  // sums must fit
  in.x.resize(images * in.height * in.width * in.channels);
  for (int32_t& x : in.x)
    x = static_cast<int32_t>(r.chance(10) ? in.x_max : r.in(in.x_min, in.x_max));
  in.w.resize(out * terms);
  for (int32_t& w : in.w) w = static_cast<int32_t>(r.chance(10) ? top : r.in(-top, top));
  in.m.resize(out);
  for (float& m : in.m)
    m = static_cast<float>(r.in(-600, 1400)) /
        (static_cast<float>(in.x_max) * (top + 1.0f) * terms) * 16;
  return in;
}

// What is wrong, or an empty string.
std::string run_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  const int64_t images = r.in(1, 4), out_h = r.in(1, 6), out_w = r.in(1, 6);
  const int64_t out = r.pick({1, 10, 24, 64, 72, 128});
  const int64_t outputs = images * out_h * out_w * out;
  std::vector<Input> inputs;
  for (int64_t i = r.in(1, 2); i > 0; --i)
    inputs.push_back(draw_input(r, images, out, out_h, out_w, inputs.empty()));
  const int32_t K = static_cast<int32_t>(r.in(0, 15)), limit = r.pick({127, 32767});
  std::vector<float> bias(out);
  for (float& b : bias) b = static_cast<float>(r.in(-4000, 12000)) / 16 * (1 << K) / 1024;
  int32_t r_min = 0, r_max = 0, r_bytes = 0;
  std::vector<int32_t> residual;
  if (r.chance(40)) {
    draw_kind(r, r_min, r_max, r_bytes);
    residual.resize(outputs);
    for (int32_t& x : residual) x = static_cast<int32_t>(r.in(r_min, r_max));
  }
  const float residual_scale = 0.37f;

  std::vector<int32_t> wanted(outputs);
  std::vector<int64_t> wanted_counts(images);
  reference::Group groups[2];
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Input& in = inputs[i];
    const Geometry& g = in.g;
    groups[i] = {in.x.data(), in.w.data(), in.m.data(),  in.height,    in.width,  in.channels,
                 g.kernel_h,  g.kernel_w,  g.stride_h,   g.stride_w,   g.pad_top, g.pad_bottom,
                 g.pad_left,  g.pad_right, g.dilation_h, g.dilation_w, 1,         g.pad_code};
  }
  reference::conv(groups, static_cast<int>(inputs.size()), bias.data(),
                  residual.empty() ? nullptr : residual.data(), residual_scale, K, limit, images,
                  out_h, out_w, out, wanted.data(), wanted_counts.data());

  Emulator device;
  device.options.order = static_cast<simt::Order>(r.in(0, 3));
  device.options.late_copies = r.chance(50);
  device.options.seed = seed;
  device.count = static_cast<int>(r.pick({1, 132}));
  std::vector<std::unique_ptr<Memory>> memory;
  const auto take = [&](const char* name, int64_t bytes, bool writable) {
    memory.push_back(std::make_unique<Memory>(bytes));
    device.buffers.push_back({name, memory.back()->data, bytes, writable});
    return memory.back()->data;
  };
  const auto floats = [&](const char* name, const std::vector<float>& v) {
    void* to = take(name, static_cast<int64_t>(v.size() * 4), false);
    std::memcpy(to, v.data(), v.size() * 4);
    return static_cast<const float*>(to);
  };
  ConvCall call{};
  PackHeader headers[2]{};
  for (const Input& in : inputs) {
    const int i = call.input_count++;
    PackHeader& h = headers[i];
    h.geometry = in.g;
    h.out_channels = out;
    h.in_channels_per_group = in.channels;
    h.x_min = in.x_min, h.x_max = in.x_max;
    h.lanes = in.weight_bytes;
    std::vector<int8_t> bytes(in.w.begin(), in.w.end());
    std::vector<int16_t> shorts(in.w.begin(), in.w.end());
    const int64_t packed_bytes = cuda::tensor_packed_bytes(h);
    auto* packed = static_cast<uint8_t*>(take("weights", packed_bytes, false));
    cuda::pack_tensor_weights(
        h, in.weight_bytes == 1 ? static_cast<const void*>(bytes.data()) : shorts.data(), packed);
    void* x = take("x", static_cast<int64_t>(in.x.size()) * in.x_bytes, false);
    put(x, in.x_bytes, in.x);
    call.input[i] = {x,      in.x_bytes,   in.height,         in.width, in.channels,
                     packed, packed_bytes, floats("m", in.m), in.g};
  }
  call.images = images, call.out_h = out_h, call.out_w = out_w, call.out_channels = out;
  call.bias = floats("bias", bias);
  if (!residual.empty()) {
    void* to = take("residual", outputs * r_bytes, false);
    put(to, r_bytes, residual);
    call.residual = to, call.residual_bytes = r_bytes, call.residual_scale = residual_scale;
  }
  call.K = K, call.limit = limit;
  call.plane_bits = r.pick({0, 0, 0, 0, 4, 2, 1});
  const int32_t y_bytes = K >= 1 && K <= 8 ? 1 : 2;
  call.y = take("y", outputs * y_bytes, true);
  call.counts = static_cast<int64_t*>(take("counts", images * 8, true));
  std::memset(call.counts, 0, images * 8);
  auto* scratch =
      static_cast<uint8_t*>(take("map", cuda::tensor_conv_scratch(call, headers), true));
  const char* name = "";
  try {
    cuda::run_tensor_conv(device, call, headers, scratch, "", name);
  } catch (const simt::Fault& fault) {
    return std::string(name) + ": " + fault.what();
  }
  for (int64_t i = 0; i < outputs; ++i) {
    const int32_t got =
        y_bytes == 1 ? static_cast<uint8_t*>(call.y)[i] : static_cast<int16_t*>(call.y)[i];
    if (got != wanted[i])
      return std::string(name) + ": output " + std::to_string(i) + " is " + std::to_string(got) +
             ", expected " + std::to_string(wanted[i]);
  }
  for (int64_t n = 0; n < images; ++n)
    if (call.counts[n] != wanted_counts[n])
      return std::string(name) + ": image " + std::to_string(n) + " has " +
             std::to_string(call.counts[n]) + " spikes, expected " +
             std::to_string(wanted_counts[n]);
  return "";
}

// A fault leaves its fiber as an exception and the other fibers where they are.
bool faults_arrive() {
  for (int order = 0; order < 4; ++order) {
    try {
      simt::Options options;
      options.order = static_cast<simt::Order>(order);
      simt::launch({{}, 64, 256}, {}, options, [] {
        if (gpu::thread() >= 7) gpu::sync_threads();
        gpu::load_shared<int>(gpu::dynamic_shared());
      });
      return false;
    } catch (const simt::Fault&) {
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 100;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1;
  if (!faults_arrive()) {
    std::printf("FAILED: a broken kernel was not reported\n");
    return 1;
  }
  for (long i = 0; i < cases; ++i) {
    const std::string wrong = run_case(seed + i);
    if (wrong.empty()) continue;
    std::printf("FAILED %s\n  sanitize 1 %llu\n", wrong.c_str(),
                static_cast<unsigned long long>(seed + i));
    return 1;
  }
  std::printf("emulated tensor-core kernels: %ld cases, 0 failed\n", cases);
}
