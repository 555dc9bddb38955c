#include "pack.h"

#include <cstring>
#include <stdexcept>

#include "../pack_seal.h"
#include "tensor_layout.h"

namespace fskernel::cuda {
namespace {

int64_t weights(const PackHeader& h) {
  return h.out_channels * h.in_channels_per_group * h.geometry.kernel_h * h.geometry.kernel_w;
}

bool same(const Geometry& a, const Geometry& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

PackHeader pack_header(const Geometry& geometry, int64_t out_channels,
                       int64_t in_channels_per_group, int32_t weight_bytes, int32_t x_min,
                       int32_t x_max) {
  PackHeader h{};
  std::memcpy(h.magic, kPackMagic, sizeof h.magic);
  std::memcpy(h.isa, kPackName, sizeof kPackName);
  h.geometry = geometry;
  h.out_channels = out_channels;
  h.in_channels_per_group = in_channels_per_group;
  h.x_min = x_min;
  h.x_max = x_max;
  h.lanes = weight_bytes;
  // Also for the picture's three channels: with a third (7x7) or a seventh (3x3) of its products in
  // use, the tensor core is still ahead of the direct kernel's 3.4 instructions a product.
  h.family = geometry.groups == 1 ? kTensorWeights : kDirectWeights;
  h.seal = seal_of(h);
  return h;
}

int64_t tensor_part(const PackHeader& h) {
  return (kPackHeaderBytes + weights(h) * h.lanes + 127) / 128 * 128;
}

int64_t packed_bytes(const PackHeader& h) {
  return has_tensor_weights(h) ? tensor_part(h) + tensor_packed_bytes(h)
                               : kPackHeaderBytes + weights(h) * h.lanes;
}

void pack(const PackHeader& h, const void* weight, uint8_t* packed) {
  std::memset(packed, 0, packed_bytes(h));
  std::memcpy(packed, &h, sizeof h);
  const int64_t out = h.out_channels, taps = h.geometry.kernel_h * int64_t{h.geometry.kernel_w};
  const int64_t each = h.in_channels_per_group * taps, bytes = h.lanes;
  const auto* from = static_cast<const uint8_t*>(weight);
  for (int64_t o = 0; o < out; ++o)
    for (int64_t k = 0; k < each; ++k) {
      const int64_t i = k / taps, tap = k % taps;
      const int64_t at = (tap * h.in_channels_per_group + i) * out + o;
      std::memcpy(packed + kPackHeaderBytes + at * bytes, from + (o * each + k) * bytes, bytes);
    }
  if (has_tensor_weights(h)) pack_tensor_weights(h, weight, packed + tensor_part(h));
}

void check_header(const PackHeader& header, const ConvInput& in, int64_t out_channels,
                  const std::string& name) {
  PackHeader h = header;
  if (std::memcmp(h.magic, kPackMagic, sizeof h.magic) != 0)
    throw std::invalid_argument(name + " holds no packed weights: make them with ops.pack");
  check_sealed(h, name);
  h.isa[sizeof h.isa - 1] = 0;
  if (std::strcmp(h.isa, kPackName) != 0)
    throw std::invalid_argument(name + " was packed for " + h.isa +
                                ", but the input is on a GPU: pack the weights on that device");
  if (!same(h.geometry, in.geometry))
    throw std::invalid_argument(name +
                                " was packed for another geometry: pass the geometry and pad code "
                                "that ops.pack was given");
  if (h.out_channels != out_channels || h.in_channels_per_group * h.geometry.groups != in.channels)
    throw std::invalid_argument(
        name + " was packed for " + std::to_string(h.in_channels_per_group * h.geometry.groups) +
        " input and " + std::to_string(h.out_channels) + " output channels, but the input has " +
        std::to_string(in.channels) + " and the bias " + std::to_string(out_channels));
  const PackHeader made =
      pack_header(h.geometry, h.out_channels, h.in_channels_per_group, h.lanes, h.x_min, h.x_max);
  if ((h.lanes != 1 && h.lanes != 2) || std::memcmp(&made, &header, sizeof made) != 0 ||
      packed_bytes(h) != in.packed_bytes)
    throw std::invalid_argument(name + kDamaged);
  check_declared(header, in, name);
}

}  // namespace fskernel::cuda
