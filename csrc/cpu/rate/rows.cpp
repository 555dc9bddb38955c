#include "rows.h"

#include <algorithm>
#include <cstring>

#include "../../sealed_header.h"

namespace fskernel {
namespace {

// Bytes of a block that shall stay in the second cache level while pixel after pixel reads rows of
// it, but no narrower than a few vectors, since every spike costs as much again as one of them.
constexpr int64_t kBlockBytes = 640 << 10, kFewVectors = 2;
constexpr int32_t kRowsLayout = 16;               // of the header, beside those of Family
constexpr int64_t kMostBytes = int64_t{1} << 32;  // positions in a block have 32 bits

int64_t up(int64_t n, int64_t d) { return (n + d - 1) / d; }

}  // namespace

int64_t row_vectors(const Kernels& kernels, int64_t out, int64_t inputs, int32_t weight_bytes) {
  const int64_t vector_bytes = 4 * kernels.lanes;
  const int64_t all = up(out * 2 * weight_bytes, vector_bytes);
  const int64_t fit = kBlockBytes / (std::max<int64_t>(inputs, 1) * vector_bytes);
  const int64_t most = std::clamp<int64_t>(fit, kFewVectors, kEventVectors);
  return up(all, up(all, most));  // blocks of equal width
}

Rows rows_of(const Kernels& kernels, const Geometry& g, int64_t out, int64_t in,
             int32_t weight_bytes, int64_t vectors) {
  Rows r{};
  const int64_t vector_bytes = 4 * kernels.lanes;
  r.weight_bytes = 2 * weight_bytes;
  r.vectors = vectors;
  r.block_channels = vectors * vector_bytes / r.weight_bytes;
  r.blocks = up(out, r.block_channels);
  r.row_bytes = vectors * vector_bytes;
  r.column_bytes = in * r.row_bytes;
  r.block_bytes = int64_t{g.kernel_h} * g.kernel_w * r.column_bytes;
  r.bytes = kPackHeaderBytes + r.blocks * r.block_bytes;
  r.exist = g.groups == 1 && r.block_bytes < kMostBytes;
  return r;
}

Rows rows_of(const Kernels& kernels, const uint8_t* rows) {
  PackHeader h;
  std::memcpy(&h, rows, sizeof h);
  return rows_of(kernels, h.geometry, h.out_channels, h.in_channels_per_group, h.weight_bytes,
                 h.x_max);
}

void pack_rows(const Kernels& kernels, const Rows& r, const Geometry& g, int64_t out, int64_t in,
               const void* weight, int32_t weight_bytes, uint8_t* to) {
  std::memset(to, 0, r.bytes);
  // What stands for the largest code elsewhere is the width of a row.
  const auto vectors = static_cast<int32_t>(r.vectors);
  const PackHeader h =
      sealed_header(kernels.name, g, out, in, weight_bytes, 0, vectors, kRowsLayout);
  std::memcpy(to, &h, sizeof h);
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  for (int64_t o = 0; o < out; ++o) {
    uint8_t* block = to + kPackHeaderBytes + o / r.block_channels * r.block_bytes;
    for (int64_t i = 0; i < in; ++i)
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t from = (o * in + i) * taps + tap;
        const int32_t w = weight_bytes == 1 ? static_cast<const int8_t*>(weight)[from]
                                            : static_cast<const int16_t*>(weight)[from];
        std::memcpy(
            block + tap * r.column_bytes + i * r.row_bytes + o % r.block_channels * r.weight_bytes,
            &w, r.weight_bytes);  // the low bytes come first
      }
  }
}

Rows check_rows(const Kernels& kernels, const ConvInput& in, const uint8_t* rows, int64_t bytes,
                int64_t out, const std::string& name) {
  ConvInput as = in;
  as.packed = rows;
  as.packed_bytes = bytes;
  as.declared = false;  // spikes are 0 or 1
  PackHeader header{};
  if (bytes >= kPackHeaderBytes) std::memcpy(&header, rows, sizeof header);
  check_header(header, as, out, name, kernels.name,
               std::string(kernels.name) + " runs now: make the rows again after set_isa",
               [&](const PackHeader& h) {
                 // Weights that were packed for the dense path hold a code there, perhaps 0.
                 if (h.layout != kRowsLayout || h.x_max < 1 || h.x_max > kEventVectors)
                   return PackedForm{kRowsLayout, -1};
                 const Rows r = rows_of(kernels, h.geometry, h.out_channels,
                                        h.in_channels_per_group, h.weight_bytes, h.x_max);
                 return PackedForm{kRowsLayout, r.bytes};
               });
  return rows_of(kernels, rows);
}

}  // namespace fskernel
