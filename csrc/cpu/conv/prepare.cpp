#include "prepare.h"

#include <algorithm>
#include <cstring>

#include "../../checked_sizes.h"
#include "../pool_readout_encode.h"

namespace fskernel {

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

// Calls row(y, to) for every row y of a map of this height and width, and fills what is around them
// with the group's padding.
template <class Row>
static Map with_padding(const ConvGroup& group, int64_t height, int64_t width, int64_t channels,
                        uint8_t* to, const Executor& executor, const Row& row) {
  const Geometry& g = group.header.geometry;
  const int32_t bytes = group.layout.x_bytes;
  Map map = dense_map(to, bytes, height + g.pad_top + g.pad_bottom,
                      width + g.pad_left + g.pad_right, channels);
  split(executor, map.height, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* at = to + i * map.row;
      const int64_t y = i - g.pad_top;
      if (y < 0 || y >= height) {
        fill(at, bytes, g.pad_code, map.width * channels);
        continue;
      }
      fill(at, bytes, g.pad_code, g.pad_left * channels);
      at += g.pad_left * map.pixel;
      row(y, at);
      fill(at + width * map.pixel, bytes, g.pad_code, g.pad_right * channels);
    }
  });
  std::memset(to + map.height * map.row, 0, kReadSlack);
  return map;
}

Map prepare(const Kernels& kernels, const ConvGroup& group, const Map& x, uint8_t* to,
            const Executor& executor) {
  const int32_t bytes = group.layout.x_bytes;
  return with_padding(group, x.height, x.width, x.channels, to, executor,
                      [&](int64_t y, uint8_t* at) {
                        const uint8_t* from = x.data + y * x.row;
                        if (x.pixel == x.channels * x.bytes)
                          return kernels.convert(from, x.bytes, at, bytes, x.width * x.channels);
                        for (int64_t col = 0; col < x.width; ++col)
                          kernels.convert(from + col * x.pixel, x.bytes,
                                          at + col * x.channels * bytes, bytes, x.channels);
                      });
}

Map prepare(const Kernels& kernels, const ConvGroup& group, const Encoder& encoder, const Pixels& x,
            int64_t height, int64_t width, int64_t channels, uint8_t* to, const Executor& executor,
            Encoded& encoded) {
  const Geometry& g = group.header.geometry;
  const Map map =
      with_padding(group, height, width, channels, to, executor, [](int64_t, uint8_t*) {});
  Map inside = map;
  inside.data += g.pad_top * map.row + g.pad_left * map.pixel;
  inside.height = height, inside.width = width;
  encoded = encode(kernels, encoder, x, inside, executor);
  return map;
}

}  // namespace fskernel
