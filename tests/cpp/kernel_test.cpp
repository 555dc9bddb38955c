// Every kernel that was built and runs here against the 30-line reference, over pseudo-random
// geometries that are ragged on purpose and over extreme values. Needs neither torch nor Python.
//
//   kernel_test [cases] [seed] [isa]     case number i of a seed is the same on every machine
//   kernel_test 1 SEED ISA               repeats the failure that was printed
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cpu/conv.h"
#include "cpu/dispatch.h"
#include "cpu/pack.h"
#include "neuron.h"
#include "reference.h"

using namespace fskernel;

namespace {

constexpr int kCanary = 96;  // bytes behind every output that nobody may touch

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return in(1, 100) <= percent; }
  float real(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) / 16777216.0f;
  }
};

struct GroupCase {
  int64_t H, W, C;
  int32_t x_min, x_max, x_bytes, weight_bytes;
  Geometry g;
  std::vector<int32_t> x, w;
  std::vector<uint8_t> x_raw, w_raw;
  std::vector<float> m;
};

std::vector<uint8_t> narrow(const std::vector<int32_t>& values, int bytes) {
  std::vector<uint8_t> out(values.size() * bytes);
  for (size_t i = 0; i < values.size(); ++i) std::memcpy(&out[i * bytes], &values[i], bytes);
  return out;
}

// A group whose output is out_h x out_w x O. Fill 0: uniform, 1: extreme, 2: sparse.
GroupCase make_group(Random& r, int64_t N, int64_t out_h, int64_t out_w, int64_t O, int groups,
                     int64_t channels, bool large) {
  GroupCase c{};
  const int input = static_cast<int>(r.in(0, 2));  // 8-bit words, wider words, graded
  const int bits = static_cast<int>(input == 0 ? r.in(1, 8) : r.in(9, 15));
  c.x_max = input == 2 ? static_cast<int32_t>(r.in(1, 32767)) : (1 << bits) - 1;
  c.x_min = input == 2 ? -static_cast<int32_t>(r.in(1, 32767)) : 0;
  c.x_bytes = input == 0 && !r.chance(10) ? 1 : 2;
  c.weight_bytes = r.chance(50) ? 1 : 2;
  c.C = channels;
  Geometry& g = c.g;
  const int top = large ? 2 : 5;
  g.groups = groups;
  g.kernel_h = static_cast<int32_t>(r.in(1, top));
  g.kernel_w = static_cast<int32_t>(r.in(1, top));
  if (r.chance(30)) g.kernel_h = g.kernel_w = 1;
  g.stride_h = static_cast<int32_t>(r.in(1, 3));
  g.stride_w = static_cast<int32_t>(r.in(1, 3));
  if (r.chance(40)) g.stride_h = g.stride_w = 1;
  g.dilation_h = r.chance(25) ? static_cast<int32_t>(r.in(2, 3)) : 1;
  g.dilation_w = r.chance(25) ? static_cast<int32_t>(r.in(2, 3)) : 1;
  // The input size that gives the wanted output, part of it moved into the padding.
  const auto size = [&](int64_t out, int32_t kernel, int32_t stride, int32_t dilation,
                        int32_t& before, int32_t& after) {
    const int64_t needed = (out - 1) * stride + dilation * (kernel - 1) + 1 + r.in(0, stride - 1);
    if (r.chance(60)) {
      before = static_cast<int32_t>(r.in(0, std::min<int64_t>(3, needed - 1)));
      after = static_cast<int32_t>(r.in(0, std::min<int64_t>(3, needed - 1 - before)));
    }
    return needed - before - after;
  };
  c.H = size(out_h, g.kernel_h, g.stride_h, g.dilation_h, g.pad_top, g.pad_bottom);
  c.W = size(out_w, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left, g.pad_right);
  if (r.chance(30)) g.pad_code = static_cast<int32_t>(r.in(c.x_min, c.x_max));

  const int64_t per = channels / groups, fan_in = per * g.kernel_h * g.kernel_w;
  const int fill = static_cast<int>(r.in(0, 2));
  const auto code = [&]() -> int32_t {
    if (fill == 1) return r.chance(50) ? c.x_max : c.x_min;
    if (fill == 2 && r.chance(80)) return 0;
    return static_cast<int32_t>(r.in(c.x_min, c.x_max));
  };
  c.x.resize(N * c.H * c.W * channels);
  for (auto& v : c.x) v = code();
  // The contract bounds x*sum(|w|) below 2^31; a large weight may use all of that.
  const int64_t largest_x = std::max(c.x_max, -c.x_min);
  const int64_t bound = ((int64_t{1} << 31) - 1) / std::max<int64_t>(1, largest_x * fan_in);
  const int64_t w_top =
      std::max<int64_t>(0, std::min<int64_t>(c.weight_bytes == 1 ? 127 : 32767, bound));
  c.w.resize(O * fan_in);
  const bool same_sign = r.chance(30);  // drives sums to the bound, above 2^24
  for (int64_t o = 0; o < O; ++o) {
    const bool silent = r.chance(5);
    for (int64_t i = 0; i < fan_in; ++i) {
      int32_t v = static_cast<int32_t>(fill == 1 ? w_top : r.in(0, w_top));
      if (!(same_sign ? o % 2 : r.chance(50))) v = -v;
      c.w[o * fan_in + i] = silent ? 0 : v;
    }
  }
  c.m.resize(O);
  const float scale =
      1.0f / static_cast<float>(std::max<int64_t>(1, largest_x * w_top)) * r.real(0.1f, 300.0f);
  for (auto& v : c.m) v = scale * r.real(0.01f, 1.0f);
  c.x_raw = narrow(c.x, c.x_bytes);
  c.w_raw = narrow(c.w, c.weight_bytes);
  return c;
}

bool run_case(const Kernels& kernels, uint64_t seed, std::string& report) {
  Random r{seed};
  const bool large = r.chance(10);
  const int64_t N = r.in(1, 3);
  int64_t OH = r.in(1, 9), OW = r.in(1, 16), O, C;
  if (large) OH = r.in(1, 3), OW = r.in(20, 60);
  int groups[2] = {1, 1};
  int64_t channels[2];
  O = large ? r.in(60, 200) : r.in(1, 70);
  C = r.in(1, large ? 12 : 70);
  const int kind = static_cast<int>(r.in(0, 9));
  if (kind == 0) {  // depthwise
    groups[0] = static_cast<int>(O = C = r.in(2, 100));
  } else if (kind <= 2) {
    groups[0] = static_cast<int>(r.in(2, 4));
    O = groups[0] * r.in(1, 40);
    C = groups[0] * r.in(1, 9);
  }
  channels[0] = C;
  channels[1] = r.in(1, 20);
  const int count = r.chance(30) ? 2 : 1;
  std::vector<GroupCase> input;
  for (int i = 0; i < count; ++i)
    input.push_back(make_group(r, N, OH, OW, O, groups[i], channels[i], large));

  const int K = r.chance(25) ? 0 : static_cast<int>(r.in(1, 15));
  const int limit = r.chance(50) ? 32767 : static_cast<int>(r.in(1, 32767));
  const int plane_choices[] = {0, 0, 1, 2, 4, 8};
  const int plane_bits = plane_choices[r.in(0, 5)];
  const int residual_bytes = r.chance(35) ? static_cast<int>(r.in(1, 2)) : 0;
  const float special[] = {
      std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f};
  std::vector<float> bias(O);
  const float spread = std::ldexp(1.0f, K ? K : 12);
  for (auto& b : bias) b = r.chance(4) ? special[r.in(0, 5)] : r.real(-0.3f, 0.8f) * spread;
  const int64_t total = N * OH * OW * O;
  std::vector<int32_t> residual(residual_bytes ? total : 0);
  for (auto& v : residual)
    v = static_cast<int32_t>(residual_bytes == 1 ? r.in(0, 255) : r.in(-32767, 32767));
  const std::vector<uint8_t> residual_raw = narrow(residual, residual_bytes ? residual_bytes : 1);
  const float scale = r.real(0.0f, 0.1f) * (residual_bytes == 2 ? 0.05f : 1.0f);

  // The reference.
  std::vector<reference::Group> oracle;
  for (const GroupCase& c : input)
    oracle.push_back({c.x.data(), c.w.data(), c.m.data(), c.H, c.W, c.C, c.g.kernel_h, c.g.kernel_w,
                      c.g.stride_h, c.g.stride_w, c.g.pad_top, c.g.pad_bottom, c.g.pad_left,
                      c.g.pad_right, c.g.dilation_h, c.g.dilation_w, c.g.groups, c.g.pad_code});
  std::vector<int32_t> expected(total);
  std::vector<int64_t> expected_counts(N), counts(N, 0);
  reference::conv(oracle.data(), count, bias.data(), residual_bytes ? residual.data() : nullptr,
                  scale, K, limit, N, OH, OW, O, expected.data(), expected_counts.data());

  // The kernel, on inputs that end where their memory ends (a sanitiser sees one byte too many).
  ConvCall call{};
  std::vector<std::vector<uint8_t>> packed(count);
  for (int i = 0; i < count; ++i) {
    const GroupCase& c = input[i];
    const int64_t per = c.C / c.g.groups;
    const Layout layout = layout_of(kernels, c.g, O, per, c.weight_bytes, c.x_min, c.x_max);
    packed[i].resize(layout.bytes);
    pack(kernels, layout, c.g, O, per, c.x_min, c.x_max, c.w_raw.data(), c.weight_bytes,
         packed[i].data());
    call.input[i] = {c.x_raw.data(),   c.x_bytes,    c.H,        c.W, c.C,
                     packed[i].data(), layout.bytes, c.m.data(), c.g};
    check_packed(kernels, call.input[i], O, "packed");
  }
  const int y_bytes = K >= 1 && K <= 8 ? 1 : 2;
  std::vector<uint8_t> y(total * y_bytes + kCanary, 0xa5);
  call.input_count = count;
  call.images = N;
  call.out_h = OH;
  call.out_w = OW;
  call.out_channels = O;
  call.bias = bias.data();
  call.residual = residual_bytes ? residual_raw.data() : nullptr;
  call.residual_bytes = residual_bytes;
  call.residual_scale = scale;
  call.K = K;
  call.limit = limit;
  call.plane_bits = plane_bits;
  call.y = y.data();
  call.counts = counts.data();
  // A second run with "threads" that take their ranges in reverse order must give the same.
  const Executor reversed{3, [](int64_t n, void* context, void (*body)(void*, int64_t, int64_t)) {
                            for (int64_t i = n; i > 0; --i) body(context, i - 1, i);
                          }};
  const std::string family = conv(kernels, call, r.chance(50) ? Executor{1, nullptr} : reversed);
  note_run(kernels, "conv/" + family);

  char line[400];
  const Geometry& g = input[0].g;
  std::snprintf(line, sizeof line,
                "%s N%ld %ldx%ldx%ld -> %ldx%ldx%ld k%dx%d s%dx%d p%d,%d,%d,%d d%dx%d g%d pad%d "
                "groups=%d K=%d planes=%d residual=%d x_bytes=%d x=[%d,%d] weight_bytes=%d",
                family.c_str(), long(N), long(input[0].H), long(input[0].W), long(C), long(OH),
                long(OW), long(O), g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_top,
                g.pad_bottom, g.pad_left, g.pad_right, g.dilation_h, g.dilation_w, g.groups,
                g.pad_code, count, K, plane_bits, residual_bytes, input[0].x_bytes, input[0].x_min,
                input[0].x_max, input[0].weight_bytes);
  for (int64_t i = 0; i < total; ++i) {
    int32_t got = y_bytes == 1 ? y[i] : 0;
    if (y_bytes == 2) {
      int16_t v;
      std::memcpy(&v, &y[2 * i], 2);
      got = v;
    }
    if (got != expected[i]) {
      char where[160];
      std::snprintf(where, sizeof where,
                    "first difference at image %ld row %ld col %ld channel %ld: "
                    "got %d, expected %d; ",
                    long(i / (OH * OW * O)), long(i / (OW * O) % OH), long(i / O % OW), long(i % O),
                    got, expected[i]);
      report = std::string(where) + line;
      return false;
    }
  }
  for (int64_t n = 0; n < N; ++n)
    if (counts[n] != expected_counts[n]) {
      report = "spikes of image " + std::to_string(n) + ": got " + std::to_string(counts[n]) +
               ", expected " + std::to_string(expected_counts[n]) + "; " + line;
      return false;
    }
  for (int i = 0; i < kCanary; ++i)
    if (y[total * y_bytes + i] != 0xa5) {
      report = "wrote behind the output; " + std::string(line);
      return false;
    }
  return true;
}

// The neuron's closed form is its loop: at every threshold, a few floats around it, and far away.
bool neuron_agrees() {
  const auto same = [](float v, int K) {
    return fskernel::fire(v, std::ldexp(1.0f, K) - 1) == fire_loop(v, K);
  };
  for (int K = 1; K <= 15; ++K) {
    for (int32_t code = -2; code <= (1 << K) + 2; ++code) {
      float below = static_cast<float>(code), above = below;
      for (int ulp = 0; ulp < 4; ++ulp) {
        if (!same(below, K) || !same(above, K)) return false;
        below = std::nextafter(below, -INFINITY);
        above = std::nextafter(above, INFINITY);
      }
    }
    for (const float v : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY, 3e38f,
                          -3e38f, 1e-42f, -1e-42f, 2147483648.0f, 4294967296.0f})
      if (!same(v, K)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 200;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1;
  const std::string only = argc > 3 ? argv[3] : "";
  bool any = false;
  int failures = 0;
  if (!neuron_agrees()) {
    std::printf("FAILED: the neuron's closed form differs from its loop\n");
    ++failures;
  }
  for (const Kernels* kernels : built_kernels()) {
    if (!only.empty() && only != kernels->name) continue;
    if (!kernels->supported()) {
      std::printf("%-20s built, but this processor does not support it\n", kernels->name);
      continue;
    }
    any = true;
    long failed = 0;
    for (long i = 0; i < cases; ++i) {
      std::string report;
      if (run_case(*kernels, seed + i, report)) continue;
      ++failed;
      std::printf("FAILED %s: %s\n  repeat with: kernel_test 1 %llu %s\n", kernels->name,
                  report.c_str(), static_cast<unsigned long long>(seed + i), kernels->name);
      if (failed == 5) break;
    }
    std::printf("%-20s %ld cases, %ld failed\n", kernels->name, cases, failed);
    std::fflush(stdout);
    failures += failed > 0;
  }
  if (!any) std::printf("no kernel named '%s' runs here\n", only.c_str());
  return failures || !any;
}
