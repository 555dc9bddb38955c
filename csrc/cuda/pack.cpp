#include "pack.h"

#include <cstring>

#include "../sealed_header.h"
#include "tensor_layout.h"

namespace fskernel::cuda {
namespace {

int64_t weights(const PackHeader& h) {
  return h.out_channels * h.in_channels_per_group * h.geometry.kernel_h * h.geometry.kernel_w;
}

}  // namespace

PackHeader pack_header(const Geometry& geometry, int64_t out_channels,
                       int64_t in_channels_per_group, int32_t weight_bytes, int32_t x_min,
                       int32_t x_max) {
  return sealed_header(kPackName, geometry, out_channels, in_channels_per_group, weight_bytes,
                       x_min, x_max, packed_parts(geometry));
}

int64_t tensor_part(const PackHeader& h) {
  return (kPackHeaderBytes + weights(h) * h.weight_bytes + 127) / 128 * 128;
}

int64_t packed_bytes(const PackHeader& h) {
  return has_tensor_weights(h) ? tensor_part(h) + tensor_packed_bytes(h)
                               : kPackHeaderBytes + weights(h) * h.weight_bytes;
}

void pack(const PackHeader& h, const void* weight, uint8_t* packed) {
  std::memset(packed, 0, packed_bytes(h));
  std::memcpy(packed, &h, sizeof h);
  const int64_t out = h.out_channels, taps = h.geometry.kernel_h * int64_t{h.geometry.kernel_w};
  const int64_t each = h.in_channels_per_group * taps, bytes = h.weight_bytes;
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
  fskernel::check_header(
      header, in, out_channels, name, kPackName,
      "the input is on a GPU: pack the weights on that device", [](const PackHeader& h) {
        const PackHeader made = pack_header(h.geometry, h.out_channels, h.in_channels_per_group,
                                            h.weight_bytes, h.x_min, h.x_max);
        return PackedForm{made.layout, packed_bytes(made)};
      });
}

}  // namespace fskernel::cuda
