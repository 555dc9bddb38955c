// Maps as a kernel can read them: with the padding around them, in operands of its type.
#include <algorithm>
#include <cstring>

#include "checked.h"
#include "conv.h"

namespace fskernel {

Map dense_map(const void* data, int32_t bytes, int64_t height, int64_t width, int64_t channels) {
  auto* at = const_cast<uint8_t*>(static_cast<const uint8_t*>(data));
  return {at, channels * bytes, width * channels * bytes, bytes, height, width, channels};
}

void fill(uint8_t* to, int32_t bytes, int32_t code, int64_t n) {
  if (bytes == 1)
    std::memset(to, code, n);
  else
    std::fill_n(reinterpret_cast<int16_t*>(to), n, static_cast<int16_t>(code));
}

bool readable(const Kernels& kernels, const ConvGroup& group, const Map& x, int64_t halo,
              bool slack) {
  const Geometry& g = group.header.geometry;
  const Layout& l = group.layout;
  const int32_t padding = std::max({g.pad_top, g.pad_bottom, g.pad_left, g.pad_right});
  const bool ragged =
      l.depthwise ? x.channels % kernels.lanes != 0 : l.run_length * l.x_bytes % 4 != 0;
  const bool gaps = l.inner_runs < g.kernel_w && x.pixel != x.channels * x.bytes;
  return x.bytes == l.x_bytes && padding <= halo && (slack || !ragged) && !gaps;
}

int64_t prepared_bytes(const ConvGroup& group, const Map& x) {
  const Geometry& g = group.header.geometry;
  return checked_sum(
      {checked_product({x.height + g.pad_top + g.pad_bottom, x.width + g.pad_left + g.pad_right,
                        x.channels, group.layout.x_bytes}),
       kReadSlack});
}

Map prepare(const Kernels& kernels, const ConvGroup& group, const Map& x, uint8_t* to,
            const Executor& executor) {
  const Geometry& g = group.header.geometry;
  const int32_t bytes = group.layout.x_bytes;
  Map map = dense_map(to, bytes, x.height + g.pad_top + g.pad_bottom,
                      x.width + g.pad_left + g.pad_right, x.channels);
  split(executor, map.height, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint8_t* at = to + row * map.row;
      const int64_t y = row - g.pad_top;
      if (y < 0 || y >= x.height) {
        fill(at, bytes, g.pad_code, map.width * x.channels);
        continue;
      }
      fill(at, bytes, g.pad_code, g.pad_left * x.channels);
      at += g.pad_left * map.pixel;
      const uint8_t* from = x.data + y * x.row;
      if (x.pixel == x.channels * x.bytes)
        kernels.convert(from, x.bytes, at, bytes, x.width * x.channels);
      else
        for (int64_t col = 0; col < x.width; ++col)
          kernels.convert(from + col * x.pixel, x.bytes, at + col * map.pixel, bytes, x.channels);
      fill(at + x.width * map.pixel, bytes, g.pad_code, g.pad_right * x.channels);
    }
  });
  std::memset(to + map.height * map.row, 0, kReadSlack);
  return map;
}

}  // namespace fskernel
