#include "pack.h"

#include <cstring>

#include "../../sealed_header.h"

namespace fskernel {
namespace {

int64_t up(int64_t n, int64_t d) { return (n + d - 1) / d; }

// How many neighbouring outputs shall share the operands of a kernel row, and how many operands
// that takes. The cost of an output is that of its multiplications and of its share of
// interleaving.
void choose_depth(const Kernels& kernels, const Geometry& g, int64_t out, Layout& l) {
  if (!l.depthwise || g.kernel_w > kMaxDepthWidth) return;
  const int64_t taps = depth_taps(l.family), vectors = depth_vectors(l.family);
  const int64_t shuffles = l.family == kDepthU8 ? 8 : 2;
  int64_t best = 0;
  for (int64_t outputs = 1; outputs <= (g.dilation_w == 1 ? 2 : 1); ++outputs) {
    const int64_t operands = up(g.kernel_w + (outputs - 1) * g.stride_w, taps);
    const int64_t cost = 2 * operands * (shuffles + outputs * vectors) / outputs;
    if (outputs == 1 || cost < best) {
      best = cost;
      l.depth_outputs = outputs;
      l.depth_operands = operands;
    }
  }
  l.depth_blocks = up(out, depth_channels(kernels, l));
}

int64_t depth_bytes(const Kernels& kernels, const Geometry& g, const Layout& l) {
  return l.depth_blocks * g.kernel_h * l.depth_operands * l.depth_outputs *
         depth_vectors(l.family) * kernels.lanes * 4;
}

Layout with_family(const Kernels& kernels, const Geometry& g, int64_t out, int64_t in,
                   int32_t family) {
  Layout l{};
  l.family = family;
  l.depthwise = family == kDepthU8 || family == kDepthS16;
  l.x_bytes = family == kU8S8 || family == kDepthU8 ? 1 : 2;
  l.groups = l.depthwise ? 1 : g.groups;
  l.channels = out / l.groups;
  l.vectors = up(l.channels, kernels.lanes);
  l.blocks = up(l.vectors, kernels.max_vectors);
  const bool merged = g.groups == 1 && g.dilation_w == 1;
  l.outer_runs = g.kernel_h;
  l.inner_runs = merged ? 1 : g.kernel_w;
  l.run_length = merged ? g.kernel_w * in : in;
  l.dwords = l.depthwise ? 1 : up(l.run_length, 4 / l.x_bytes);
  l.vector_bytes = l.outer_runs * l.inner_runs * l.dwords * kernels.lanes * 4;
  choose_depth(kernels, g, out, l);
  l.depth_at = kPackHeaderBytes + l.groups * l.vectors * l.vector_bytes;
  l.bytes = l.depth_at + depth_bytes(kernels, g, l);
  return l;
}

int32_t weight_at(const void* weight, int32_t bytes, int64_t at) {
  return bytes == 1 ? static_cast<const int8_t*>(weight)[at]
                    : static_cast<const int16_t*>(weight)[at];
}

void pack_depth(const Kernels& kernels, const Layout& l, const Geometry& g, int64_t out,
                const void* weight, int32_t weight_bytes, uint8_t* to) {
  const int64_t taps = depth_taps(l.family), vectors = depth_vectors(l.family);
  const int64_t bytes = 4 / taps, lanes = kernels.lanes;
  for (int64_t block = 0; block < l.depth_blocks; ++block)
    for (int64_t ky = 0; ky < g.kernel_h; ++ky)
      for (int64_t operand = 0; operand < l.depth_operands; ++operand)
        for (int64_t output = 0; output < l.depth_outputs; ++output)
          for (int64_t vector = 0; vector < vectors; ++vector)
            for (int64_t lane = 0; lane < lanes; ++lane, to += 4) {
              const int64_t o = block * vectors * lanes + depth_order(l.family, vector, lane);
              for (int64_t tap = 0; tap < taps && o < out; ++tap) {
                const int64_t kx = operand * taps + tap - output * g.stride_w;
                if (kx < 0 || kx >= g.kernel_w) continue;
                const int64_t at = (o * g.kernel_h + ky) * g.kernel_w + kx;
                const int16_t w = static_cast<int16_t>(weight_at(weight, weight_bytes, at));
                std::memcpy(to + tap * bytes, &w, bytes);  // the low byte comes first
              }
            }
}

}  // namespace

Layout layout_of(const Kernels& kernels, const Geometry& g, int64_t out, int64_t in,
                 int32_t weight_bytes, int32_t x_min, int32_t x_max) {
  const bool words8 = x_min >= 0 && x_max <= 255;
  const bool depthwise = g.groups > 1 && in == 1 && out == g.groups;
  const bool bytes = words8 && weight_bytes == 1 && kernels.has_u8s8;
  const int32_t family = depthwise ? (bytes ? kDepthU8 : kDepthS16) : bytes ? kU8S8 : kS16S16;
  return with_family(kernels, g, out, in, family);
}

Layout layout_of(const Kernels& kernels, const PackHeader& h) {
  return with_family(kernels, h.geometry, h.out_channels, h.in_channels_per_group, h.layout);
}

void pack(const Kernels& kernels, const Layout& l, const Geometry& g, int64_t out, int64_t in,
          int32_t x_min, int32_t x_max, const void* weight, int32_t weight_bytes, uint8_t* packed) {
  std::memset(packed, 0, l.bytes);
  const PackHeader h =
      sealed_header(kernels.name, g, out, in, weight_bytes, x_min, x_max, l.family);
  std::memcpy(packed, &h, sizeof h);

  const int64_t lanes = kernels.lanes, per_dword = 4 / l.x_bytes,
                taps = int64_t{g.kernel_h} * g.kernel_w;
  const bool merged = l.inner_runs == 1 && l.run_length != in;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t group = o / l.channels, vector = o % l.channels / lanes;
    const int64_t lane = o % l.channels % lanes;
    const int64_t block = ((vector + 1) * l.blocks - 1) / l.vectors;  // inverse of block_begin
    const int64_t first = block_begin(l, block), in_block = block_begin(l, block + 1) - first;
    uint8_t* base = packed + kPackHeaderBytes + (group * l.vectors + first) * l.vector_bytes;
    for (int64_t i = 0; i < in; ++i)
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t ky = tap / g.kernel_w, kx = tap % g.kernel_w;
        const int64_t run = merged ? ky : ky * l.inner_runs + kx;
        const int64_t k = merged ? kx * in + i : i;
        const int64_t dword = run * l.dwords + k / per_dword;
        const int64_t slot = (dword * in_block + vector - first) * lanes + lane;
        const int32_t w = weight_at(weight, weight_bytes, (o * in + i) * taps + tap);
        if (l.family == kU8S8) {
          const int8_t value = static_cast<int8_t>(w);
          std::memcpy(base + 4 * slot + k % per_dword, &value, 1);
        } else {  // depthwise: the lower half of the lane, per_dword*k is 0
          const int16_t value = static_cast<int16_t>(w);
          std::memcpy(base + 4 * slot + (l.depthwise ? 0 : 2 * (k % per_dword)), &value, 2);
        }
      }
  }
  if (l.depth_operands) pack_depth(kernels, l, g, out, weight, weight_bytes, packed + l.depth_at);
}

PackHeader check_packed(const Kernels& kernels, const ConvInput& in, int64_t out_channels,
                        const std::string& name) {
  PackHeader header{};
  if (in.packed_bytes >= kPackHeaderBytes) std::memcpy(&header, in.packed, sizeof header);
  check_header(header, in, out_channels, name, kernels.name,
               std::string(kernels.name) + " runs now: pack the weights again after set_isa",
               [&](const PackHeader& h) {
                 const Layout layout =
                     layout_of(kernels, h.geometry, h.out_channels, h.in_channels_per_group,
                               h.weight_bytes, h.x_min, h.x_max);
                 return PackedForm{layout.family, layout.bytes};
               });
  return header;
}

}  // namespace fskernel
