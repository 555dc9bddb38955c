#include <bit>
#include <cmath>
#include <limits>

#include "../cpp/oracles.h"
#include "cases.h"
#include "cuda/tensor_layout.h"
#include "random.h"
#include "reference.h"
#include "target.h"

namespace fskernel::testing {
namespace {

Codes draw_codes(Random& r, const Kind& kind, int64_t n, int64_t h, int64_t w, int64_t c) {
  return {n, h, w, c, kind.codes(r, n * h * w * c)};
}

}  // namespace

std::string image_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  Target target(seed);
  const int64_t N = r.in(1, 3), C = r.pick({1, 3, 3, 8, 10, 17}), H = r.in(1, 9), W = r.in(1, 9);
  const int32_t K = r.chance(70) ? 0 : r.in32(1, 15), limit = r.pick({127, 8191, 32767});
  const float inv_step = static_cast<float>(r.in(1, 9000)) / 7;
  const float offset = K ? 0.5f : 0.0f;
  std::vector<float> x(static_cast<size_t>(N * C * H * W));
  for (float& v : x) v = static_cast<float>(r.in(-4000, 4000)) / 1024;
  x[static_cast<size_t>(r.in(0, N * C * H * W - 1))] = std::numeric_limits<float>::quiet_NaN();
  x[static_cast<size_t>(r.in(0, N * C * H * W - 1))] = std::numeric_limits<float>::infinity();
  const bool channels_last = r.chance(50);
  const int32_t bytes = K >= 1 && K <= 8 ? 1 : 2;
  cuda::EncodeCall call{};
  call.x = target.give("x", x);
  call.images = N, call.channels = C, call.height = H, call.width = W;
  call.stride_n = C * H * W;
  call.stride_c = channels_last ? 1 : H * W;
  call.stride_h = channels_last ? W * C : W;
  call.stride_w = channels_last ? C : 1;
  call.inv_step = inv_step, call.offset = offset, call.K = K, call.limit = limit;
  if (r.chance(60))
    call.y_kept = {true,
                   r.in32(0, 3),
                   r.in32(0, 3),
                   r.in32(0, 3),
                   r.in32(0, 3),
                   r.in32(0, 127),
                   C <= 8 && r.chance(50) ? 8 : 0};
  const cuda::ByteMap map = cuda::kept_map(call.y_kept, N, H, W, C, bytes);
  const int64_t size = call.y_kept.map ? map.bytes() : N * C * H * W * bytes;
  call.y = target.take("y", size);
  target.check(cuda::launch_encode(call, target.where()));
  const auto y = target.back<uint8_t>(call.y, size);
  for (int64_t i = 0; i < N * C * H * W; ++i) {
    const int64_t c = i % C, col = i / C % W, row = i / C / W % H, n = i / C / W / H;
    const float value = x[static_cast<size_t>(n * call.stride_n + c * call.stride_c +
                                              row * call.stride_h + col * call.stride_w)];
    const int32_t wanted = encoded(value, inv_step, offset, K, limit);
    int32_t got;
    if (call.y_kept.map) {
      const int64_t at =
          ((n * map.rows + row + map.top) * map.cols + col + map.left) * map.channels + c;
      got = y[static_cast<size_t>(at)];
      if (bytes == 2)
        got = static_cast<int8_t>(got) * 256 + y[static_cast<size_t>(at + map.plane())];
    } else {
      got = code_at(y, i, bytes);
    }
    if (got != wanted) return differs("code", i, got, wanted);
  }
  return "";
}

std::string pool_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  Target target(seed);
  const int64_t out_h = r.in(1, 5), out_w = r.in(1, 5);
  const Window window(r, out_h, out_w, 3);
  Kind kind(r);
  const bool maximum = r.chance(50);
  if (!maximum) kind.x_max = kind.x_max % 3000, kind.x_min = kind.x_min % 3000;  // sums fit
  const Codes x =
      draw_codes(r, kind, r.in(1, 3), window.height, window.width, r.pick({1, 3, 4, 20}));
  const int32_t y_bytes = maximum ? kind.bytes : 2;
  const int64_t outputs = x.N * out_h * out_w * x.C;
  uint8_t* y = target.take("y", outputs * y_bytes);
  target.check(cuda::launch_pool({target.give("x", as_bytes(x.v, kind.bytes)), kind.bytes, x.N, x.H,
                                  x.W, x.C, out_h, out_w, window.g, maximum, y},
                                 target.where()));
  const Codes wanted = pooled(x, window.g, maximum, kind.bytes == 1 ? 0 : -32768, out_h, out_w);
  const auto got = target.back<uint8_t>(y, outputs * y_bytes);
  for (int64_t i = 0; i < outputs; ++i)
    if (code_at(got, i, y_bytes) != wanted.v[i])
      return differs(maximum ? "maximum" : "sum", i, code_at(got, i, y_bytes), wanted.v[i]);
  return "";
}

std::string product_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  Target target(seed);
  const Kind of_a(r), of_b(r);
  const Codes a = draw_codes(r, of_a, r.in(1, 3), r.in(1, 7), r.in(1, 7), r.pick({1, 3, 4, 20}));
  const bool one_pixel = r.chance(30), one_channel = r.chance(30);
  const Codes b =
      draw_codes(r, of_b, a.N, one_pixel ? 1 : a.H, one_pixel ? 1 : a.W, one_channel ? 1 : a.C);
  const int32_t K = r.in32(0, 15), limit = r.pick({127, 32767}), bytes = K >= 1 && K <= 8 ? 1 : 2;
  const int32_t zero_a = of_a.K ? r.in32(0, of_a.x_max) : 0;
  const int32_t zero_b = of_b.K ? r.in32(0, of_b.x_max) : 0;
  std::vector<float> m(static_cast<size_t>(a.C)), bias(static_cast<size_t>(a.C));
  const float top = static_cast<float>(K ? 1 << K : limit);
  const float reach = static_cast<float>(of_a.x_max) * static_cast<float>(of_b.x_max);
  for (float& v : m) v = static_cast<float>(r.in(-4096, 4096)) / 2048 * top / reach;
  for (float& v : bias) v = static_cast<float>(r.in(0, 4096)) / 4096 * top;
  const int64_t outputs = a.N * a.H * a.W * a.C;
  std::vector<int32_t> wanted(static_cast<size_t>(outputs));
  std::vector<int64_t> spikes(static_cast<size_t>(a.N));
  const std::vector<int64_t> none(static_cast<size_t>(a.N));
  reference::gate(a.v.data(), b.v.data(), b.H, b.W, b.C, zero_a, zero_b, m.data(), bias.data(), K,
                  limit, a.N, a.H, a.W, a.C, wanted.data(), spikes.data());
  uint8_t* y = target.take("y", outputs * bytes);
  auto* counts = reinterpret_cast<int64_t*>(target.take_state("counts", a.N * 8, none.data()));
  const Gate gate{zero_a, zero_b, target.give("m", m), target.give("bias", bias), K, limit};
  target.check(cuda::launch_product(
      {target.give("a", as_bytes(a.v, of_a.bytes)), target.give("b", as_bytes(b.v, of_b.bytes)),
       of_a.bytes, of_b.bytes, a.N, a.H * a.W, a.C, b.H * b.W, b.C, gate, y, counts},
      target.where()));
  const auto got = target.back<uint8_t>(y, outputs * bytes);
  for (int64_t i = 0; i < outputs; ++i)
    if (code_at(got, i, bytes) != wanted[i])
      return differs("product", i, code_at(got, i, bytes), wanted[i]);
  const auto counted = target.back<int64_t>(counts, a.N);
  for (int64_t n = 0; n < a.N; ++n)
    if (counted[n] != spikes[n])
      return differs("the spikes of image", n, static_cast<double>(counted[n]),
                     static_cast<double>(spikes[n]));
  return "";
}

std::string readout_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  Target target(seed);
  const Kind kind(r);
  const bool pool = r.chance(50);
  const Codes x = draw_codes(r, kind, r.in(1, 3), r.in(1, 4), r.in(1, 4), r.pick({1, 5, 32, 70}));
  const int64_t features = pool ? x.C : x.H * x.W * x.C, out = r.in(1, 12);
  const int32_t weight_bytes = r.pick({1, 2});
  std::vector<int32_t> w(static_cast<size_t>(out * features));
  const int64_t top = weight_bytes == 1 ? 127 : 32767;
  for (int32_t& v : w) v = r.in32(-top, top);
  std::vector<float> m(static_cast<size_t>(out)), bias(static_cast<size_t>(out));
  for (float& v : m) v = static_cast<float>(r.in(-100, 100)) / 4096;
  for (float& v : bias) v = static_cast<float>(r.in(-100, 100)) / 16;
  auto* sums = reinterpret_cast<int32_t*>(target.take("sums", x.N * x.C * 4));
  auto* y = reinterpret_cast<float*>(target.take("y", x.N * out * 4));
  target.check(
      cuda::launch_readout({target.give("x", as_bytes(x.v, kind.bytes)), kind.bytes, x.N, x.H * x.W,
                            x.C, pool, sums, target.give("weight", as_bytes(w, weight_bytes)),
                            weight_bytes, out, target.give("m", m), target.give("bias", bias), y},
                           target.where()));
  const auto got = target.back<float>(y, x.N * out);
  for (int64_t i = 0; i < x.N * out; ++i) {
    const float wanted = read_out(x, i / out, w, features, i % out, m[i % out], bias[i % out]);
    if (got[i] != wanted) return differs("logit", i, got[i], wanted);
  }
  return "";
}

std::string events_case(uint64_t seed) {
  Random r{std::mt19937_64(seed)};
  Target target(seed);
  const Kind kind(r);
  const Codes x = draw_codes(r, kind, r.in(1, 3), r.in(1, 5), r.in(1, 5), r.pick({1, 5, 32, 70}));
  std::vector<int64_t> fan_y(static_cast<size_t>(x.H)), fan_x(static_cast<size_t>(x.W));
  for (int64_t& f : fan_y) f = r.in(0, 99);
  for (int64_t& f : fan_x) f = r.in(0, 99999);
  const std::vector<int64_t> none(static_cast<size_t>(x.N));
  auto* events = reinterpret_cast<int64_t*>(target.take_state("events", x.N * 8, none.data()));
  target.check(cuda::launch_events(
      {target.give("words", as_bytes(x.v, kind.bytes)), kind.bytes, x.N, x.H, x.W, x.C,
       target.give("fan_y", fan_y), target.give("fan_x", fan_x), events},
      target.where()));
  const auto got = target.back<int64_t>(events, x.N);
  const uint32_t mask = kind.bytes == 1 ? 255 : 65535;
  for (int64_t n = 0; n < x.N; ++n) {
    int64_t wanted = 0;
    for (int64_t row = 0; row < x.H; ++row)
      for (int64_t col = 0; col < x.W; ++col)
        for (int64_t c = 0; c < x.C; ++c)
          wanted += std::popcount(static_cast<uint32_t>(x.at(n, row, col, c)) & mask) * fan_y[row] *
                    fan_x[col];
    if (got[n] != wanted)
      return differs("the events of image", n, static_cast<double>(got[n]),
                     static_cast<double>(wanted));
  }
  return "";
}

}  // namespace fskernel::testing
