#include "tensor_layout.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace fskernel::cuda {
namespace {

// The order by bytes, not by taps: a kernel row has no gaps, and its taps alone do not fill
// k-steps.
bool by_bytes(const Geometry& g, int64_t stored) {
  if (g.kernel_h == 1 && g.kernel_w == 1) return true;
  return stored % 64 && (g.kernel_w == 1 || g.dilation_w == 1);
}

}  // namespace

StepOrder step_order(const Geometry& g, int64_t stored, int64_t row) {
  const auto i32 = [](int64_t v) { return static_cast<int32_t>(v); };
  const int64_t step_down = g.dilation_h * row;  // to the next kernel row
  if (by_bytes(g, stored)) {
    const int64_t inner = (g.kernel_w * stored + 63) / 64;
    return {i32(inner), g.kernel_h, 1, 64, i32(step_down - inner * 64), 0};
  }
  const int64_t step = g.dilation_w * stored, chunks = (stored + 63) / 64;
  return {g.kernel_w,
          g.kernel_h,
          i32(chunks),
          i32(step),
          i32(step_down - g.kernel_w * step),
          i32(64 - g.kernel_h * step_down)};
}

int32_t horner_passes(const ByteMap& map, int32_t x_max, int32_t weight_bytes, int32_t plane_bits,
                      ConvPass (&pass)[kMaxPasses]) {
  struct Term {
    int32_t level;  // log2 of what it is worth
    ConvPass pass;
  };
  std::vector<Term> terms;
  for (int32_t bit = 8 * map.planes - plane_bits; bit >= 0; bit -= plane_bits) {
    if (!map.is_signed && bit && x_max >> bit == 0) continue;  // planes without spikes
    const bool top = map.is_signed && bit + plane_bits == 8 * map.planes;
    for (int32_t plane = 0; plane < weight_bytes; ++plane) {
      const bool low = plane > 0;  // unsigned
      ConvPass p{};
      p.x_plane = static_cast<int8_t>(map.planes - 1 - bit / 8);
      p.w_plane = static_cast<int8_t>(plane);
      p.first_bit = static_cast<int8_t>(bit % 8);
      p.product =
          top ? (low ? Product::kS8U8 : Product::kS8S8) : (low ? Product::kU8U8 : Product::kU8S8);
      terms.push_back({bit + 8 * (weight_bytes - 1 - plane), p});
    }
  }
  std::stable_sort(terms.begin(), terms.end(),
                   [](const Term& a, const Term& b) { return a.level > b.level; });
  for (size_t i = 0; i < terms.size(); ++i) {
    pass[i] = terms[i].pass;
    pass[i].shift = static_cast<int8_t>(i ? terms[i - 1].level - terms[i].level : 0);
  }
  return static_cast<int32_t>(terms.size());
}

int64_t tensor_packed_bytes(const PackHeader& h) {
  const StepOrder order =
      step_order(h.geometry, stored_channels(h.geometry, h.in_channels_per_group), 0);
  return kPackHeaderBytes +
         h.weight_bytes * int64_t{order.steps()} * padded_channels(h.out_channels) * 64;
}

void pack_tensor_weights(const PackHeader& h, const void* weight, uint8_t* packed) {
  const Geometry& g = h.geometry;
  const int64_t out = h.out_channels, in = h.in_channels_per_group, padded = padded_channels(out);
  const int64_t stored = stored_channels(g, in), taps = int64_t{g.kernel_h} * g.kernel_w;
  const StepOrder order = step_order(g, stored, 0);
  const int64_t plane = order.steps() * padded * 64;
  std::memset(packed, 0, tensor_packed_bytes(h));
  std::memcpy(packed, &h, sizeof h);
  packed += kPackHeaderBytes;
  // The synapse that byte `k` of a step meets: its tap in the kernel row, and its channel.
  const bool by_tap = !by_bytes(g, stored);
  for (int64_t step = 0; step < order.steps(); ++step) {
    const int64_t inner = step % order.inner, ky = step / order.inner % g.kernel_h;
    const int64_t chunk = step / order.inner / g.kernel_h;
    for (int64_t k = 0; k < 64; ++k) {
      const int64_t at = inner * 64 + k;  // in the run of the kernel row
      const int64_t kx = by_tap ? inner : at / stored;
      const int64_t channel = by_tap ? chunk * 64 + k : at % stored;
      if (kx >= g.kernel_w || channel >= in) continue;
      for (int64_t n = 0; n < padded; ++n) {
        const int64_t o = channel_of_row(static_cast<int>(n));
        if (o >= out) continue;
        const int64_t from = (o * in + channel) * taps + ky * g.kernel_w + kx;
        const int32_t w = h.weight_bytes == 1 ? static_cast<const int8_t*>(weight)[from]
                                              : static_cast<const int16_t*>(weight)[from];
        uint8_t* to = packed + (step * padded + n) * 64 + ((k / 16) ^ (n / 2 % 4)) * 16 + k % 16;
        to[0] = static_cast<uint8_t>(h.weight_bytes == 2 ? w >> 8 : w);
        if (h.weight_bytes == 2) to[plane] = static_cast<uint8_t>(w);
      }
    }
  }
}

int64_t read_from(const ByteMap& map, const Geometry& g, TensorGroup& group) {
  const int64_t first = (map.top - g.pad_top) * map.row() + (map.left - g.pad_left) * map.channels;
  if (map.top < g.pad_top || map.left < g.pad_left || first % 16)
    throw std::invalid_argument("a map with a halo of " + std::to_string(map.top) + " rows and " +
                                std::to_string(map.left) + " pixels does not serve a padding of " +
                                std::to_string(g.pad_top) + " and " + std::to_string(g.pad_left));
  group.x_plane = map.plane();
  group.x_image = static_cast<uint32_t>(map.image());
  group.x_row = static_cast<uint32_t>(g.stride_h * map.row());
  group.x_pixel = static_cast<uint32_t>(g.stride_w * map.channels);
  group.order = step_order(g, map.channels, map.row());
  group.steps = group.order.steps();
  return first;
}

namespace {

// The map that an input is kept as, if a layer that wants `wanted` can read it.
ByteMap kept_input(const ConvInput& in, int64_t images, const ByteMap& wanted) {
  const Geometry& g = in.geometry;
  ByteMap map = kept_map(in.kept, images, in.height, in.width, in.channels, in.x_bytes);
  map.is_signed = wanted.is_signed;
  if (map.planes != wanted.planes || map.channels != wanted.channels)
    throw std::invalid_argument("a map of " + std::to_string(map.planes) + " planes and " +
                                std::to_string(map.channels) + " channels does not serve a layer " +
                                "that reads " + std::to_string(wanted.planes) + " and " +
                                std::to_string(wanted.channels));
  const bool padded = g.pad_top || g.pad_bottom || g.pad_left || g.pad_right;
  if (in.kept.bottom < g.pad_bottom || in.kept.right < g.pad_right ||
      (padded && in.kept.pad_code != g.pad_code))
    throw std::invalid_argument("a map with a halo of " + std::to_string(in.kept.bottom) +
                                " rows below, " + std::to_string(in.kept.right) +
                                " pixels to the right and code " +
                                std::to_string(in.kept.pad_code) + " does not serve a padding of " +
                                std::to_string(g.pad_bottom) + ", " + std::to_string(g.pad_right) +
                                " and code " + std::to_string(g.pad_code));
  return map;
}

}  // namespace

TensorConvArgs tensor_conv_args(const ConvCall& call, const PackHeader (&headers)[2],
                                ByteMap (&map)[2]) {
  TensorConvArgs args{};
  const auto reach = [](int64_t bytes, int64_t limit, const char* what) {
    if (bytes > limit)
      throw std::invalid_argument(std::string(what) + " takes " + std::to_string(bytes) +
                                  ": split the batch, at most " + std::to_string(limit) +
                                  " are supported");
  };
  const int64_t pixels = call.images * call.out_h * call.out_w;
  reach(pixels, INT32_MAX - 1024, "the output's number of pixels");
  args.groups = call.input_count;
  for (int32_t g = 0; g < call.input_count; ++g) {
    const ConvInput& in = call.input[g];
    const Geometry& geometry = in.geometry;
    const PackHeader& header = headers[g];
    map[g] = byte_map(geometry, call.images, in.height, in.width, in.channels, header.x_min,
                      header.x_max);
    if (in.kept.map) map[g] = kept_input(in, call.images, map[g]);
    reach(map[g].plane(), UINT32_MAX, "a byte plane of the input with its padding");
    reach(geometry.kernel_h * geometry.dilation_h * map[g].row(), INT32_MAX,
          "the stretch of the input that a kernel spans");
    TensorGroup& group = args.group[g];
    group.weights = in.packed + kPackHeaderBytes;
    group.seal = seal_at(in.packed, header);
    group.m = in.m;
    const int64_t first = read_from(map[g], geometry, group);
    if (in.kept.map) group.x = static_cast<const uint8_t*>(in.x) + first;
    group.w_plane = group.steps * padded_channels(call.out_channels) * 64;
    group.passes = horner_passes(map[g], header.x_max, header.weight_bytes,
                                 call.plane_bits ? call.plane_bits : 8, group.pass);
  }
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  args.aligned = aligned(call.bias) && aligned(call.top);
  for (int32_t g = 0; g < call.input_count; ++g)
    args.aligned = args.aligned && aligned(call.input[g].m);
  args.bias = call.bias;
  // Dense tensors of the output's shape.
  const auto dense = [&](const void* p, int32_t bytes) {
    const int64_t pixel = call.out_channels * bytes;
    return Place{bytes == 1   ? kBytes
                 : bytes == 2 ? kShorts
                              : kFloats,
                 pixel % 16 == 0 && aligned(p),
                 0,
                 static_cast<uint32_t>(call.out_h * call.out_w * pixel),
                 static_cast<uint32_t>(call.out_w * pixel),
                 static_cast<uint32_t>(pixel)};
  };
  const int32_t y_bytes = output_bytes(call);
  reach(pixels * call.out_channels * std::max(y_bytes, 2), UINT32_MAX,
        "the output's number of bytes");
  args.y = static_cast<uint8_t*>(call.y);
  args.y_at = dense(call.y, y_bytes);
  args.residual = static_cast<const uint8_t*>(call.residual);
  args.residual_at = call.residual ? dense(call.residual, call.residual_bytes) : Place{};
  const auto keep = [&](const Kept& kept, int32_t bytes, Place& at) {
    const ByteMap kept_as =
        kept_map(kept, call.images, call.out_h, call.out_w, call.out_channels, bytes);
    int64_t first = 0;
    at = place_in(kept_as, first);
    return first;
  };
  if (call.y_kept.map && y_bytes == 1 && (call.y_kept.pad_code & ~255))
    throw std::invalid_argument("a map of 8-bit words has no place for the pad code " +
                                std::to_string(call.y_kept.pad_code));
  if (call.y_kept.map) args.y += keep(call.y_kept, y_bytes, args.y_at);
  if (call.residual_kept.map)
    args.residual += keep(call.residual_kept, call.residual_bytes, args.residual_at);
  args.residual_scale = call.residual_scale;
  args.counts = call.counts;
  args.membrane = call.membrane;
  args.membrane_aligned = call.out_channels % 4 == 0 && aligned(call.membrane);
  args.one_by_one = call.out_channels % 16 || !args.y_at.aligned ||
                    (args.residual_at.form != kNone && !args.residual_at.aligned) ||
                    (args.membrane && !args.membrane_aligned);
  args.out_h = static_cast<int32_t>(call.out_h);
  args.out_w = static_cast<int32_t>(call.out_w);
  args.pixels = static_cast<int32_t>(pixels);
  args.channels = static_cast<int32_t>(call.out_channels);
  args.padded_channels = static_cast<int32_t>(padded_channels(call.out_channels));
  args.K = call.K;
  args.top = static_cast<float>(call.K ? (1 << call.K) - 1 : call.limit);
  args.tops = call.top;
  args.shape = call.shape;
  args.fitted = call.fitted;
  args.step = call.step;
  return args;
}

}  // namespace fskernel::cuda
