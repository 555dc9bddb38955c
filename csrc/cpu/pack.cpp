#include "pack.h"

#include <cstring>

namespace fskernel {
namespace {

int64_t up(int64_t n, int64_t d) { return (n + d - 1) / d; }

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
  l.bytes = kPackHeaderBytes + l.groups * l.vectors * l.vector_bytes;
  return l;
}

int32_t weight_at(const void* weight, int32_t bytes, int64_t at) {
  return bytes == 1 ? static_cast<const int8_t*>(weight)[at]
                    : static_cast<const int16_t*>(weight)[at];
}

}  // namespace

Layout layout_of(const Kernels& kernels, const Geometry& g, int64_t out, int64_t in,
                 int32_t weight_bytes, int32_t x_min, int32_t x_max) {
  const bool words8 = x_min >= 0 && x_max <= 255;
  const bool depthwise = g.groups > 1 && in == 1 && out == g.groups;
  const int32_t family = depthwise ? (words8 ? kDepthU8 : kDepthS16)
                         : words8 && weight_bytes == 1 && kernels.has_u8s8 ? kU8S8
                                                                           : kS16S16;
  return with_family(kernels, g, out, in, family);
}

Layout layout_of(const Kernels& kernels, const PackHeader& h) {
  return with_family(kernels, h.geometry, h.out_channels, h.in_channels_per_group, h.family);
}

void pack(const Kernels& kernels, const Layout& l, const Geometry& g, int64_t out, int64_t in,
          int32_t x_min, int32_t x_max, const void* weight, int32_t weight_bytes, uint8_t* packed) {
  std::memset(packed, 0, l.bytes);
  PackHeader h{};
  std::memcpy(h.magic, kPackMagic, sizeof h.magic);
  std::strncpy(h.isa, kernels.name, sizeof h.isa - 1);
  h.geometry = g;
  h.out_channels = out;
  h.in_channels_per_group = in;
  h.x_min = x_min;
  h.x_max = x_max;
  h.family = l.family;
  h.lanes = kernels.lanes;
  std::memcpy(packed, &h, sizeof h);

  const int64_t lanes = kernels.lanes, per_dword = 4 / l.x_bytes, taps = g.kernel_h * g.kernel_w;
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
}

}  // namespace fskernel
