// Words or graded values become a map of byte planes with a halo (../byte_map.h), and a map
// that a layer wrote gets its halo. A thread writes 16 neighbouring bytes of every plane.
#pragma once

#include "gpu.h"

namespace fskernel::cuda {

constexpr int kMapThreads = 256;

struct MapArgs {
  const uint8_t* x;  // [N, height, width, channels]
  uint8_t* map;      // [planes][N][rows][cols][stored]
  int64_t plane;     // bytes between planes
  int32_t x_bytes, planes, pad_code;
  bool aligned;  // x to 16 bytes, and so every pixel's channels
  int32_t height, width, channels;
  int32_t rows, cols, stored, top, left;
  uint32_t pieces;  // of 16 bytes, in a plane or in its halo
};

// A thread writes 16 bytes of every plane's halo; `stored` is a multiple of 16.
FS_KERNEL(kMapThreads, 4) fill_halo(const MapArgs args) {
  const uint32_t piece = static_cast<uint32_t>(gpu::block_x()) * kMapThreads + gpu::thread();
  if (piece >= args.pieces) return;
  const uint32_t in_pixel = static_cast<uint32_t>(args.stored / 16);
  const int beside = args.cols - args.width;  // pixels of the halo in a row of the image
  const int halo = args.rows * args.cols - args.height * args.width;
  const int64_t image = piece / in_pixel / static_cast<uint32_t>(halo);
  int pixel = static_cast<int>(piece / in_pixel % static_cast<uint32_t>(halo));  // of the halo
  int row = 0, col = 0;
  if (pixel < args.top * args.cols) {
    row = pixel / args.cols, col = pixel % args.cols;
  } else if ((pixel -= args.top * args.cols) < args.height * beside) {
    row = args.top + pixel / beside, col = pixel % beside;
    if (col >= args.left) col += args.width;
  } else {
    pixel -= args.height * beside;
    row = args.top + args.height + pixel / args.cols, col = pixel % args.cols;
  }
  uint8_t* to = args.map + ((image * args.rows + row) * args.cols + col) * args.stored +
                piece % in_pixel * 16;
  for (int plane = args.planes - 1; plane >= 0; --plane, to += args.plane) {
    const uint32_t code = (args.pad_code >> 8 * plane & 255) * 0x01010101u;
    gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to), gpu::Bytes16{{code, code, code, code}});
  }
}

FS_KERNEL(kMapThreads, 4) fill_map(const MapArgs args) {
  const uint32_t piece = static_cast<uint32_t>(gpu::block_x()) * kMapThreads + gpu::thread();
  if (piece >= args.pieces) return;
  uint32_t high[4] = {}, low[4] = {};
  uint32_t at = piece * 16;  // of the piece's first byte, later within its pixel, row, ...
  int channel = static_cast<int>(at % static_cast<uint32_t>(args.stored));
  at /= static_cast<uint32_t>(args.stored);
  int col = static_cast<int>(at % static_cast<uint32_t>(args.cols)) - args.left;
  at /= static_cast<uint32_t>(args.cols);
  const int row = static_cast<int>(at % static_cast<uint32_t>(args.rows)) - args.top;
  const int64_t image = at / static_cast<uint32_t>(args.rows);
  const int64_t row_begin = (image * args.height + row) * args.width;
  const bool row_inside = row >= 0 && row < args.height;
  if (args.aligned) {  // the piece lies in one pixel
    const bool inside = row_inside && col >= 0 && col < args.width;
    const uint8_t* x = args.x + ((row_begin + col) * args.channels + channel) * args.x_bytes;
    gpu::Bytes16 pairs[2] = {};
    if (inside) pairs[0] = gpu::load_readonly(reinterpret_cast<const gpu::Bytes16*>(x));
    if (inside && args.x_bytes == 2)
      pairs[1] = gpu::load_readonly(reinterpret_cast<const gpu::Bytes16*>(x) + 1);
    FS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t a = pairs[i / 2].word[i % 2 * 2], b = pairs[i / 2].word[i % 2 * 2 + 1];
      const bool shorts = args.x_bytes == 2;
      low[i] = shorts ? gpu::permute_bytes(a, b, 0x6420) : pairs[0].word[i];
      high[i] = shorts ? gpu::permute_bytes(a, b, 0x7531) : 0;
      if (!inside) low[i] = (args.pad_code & 255) * 0x01010101u;
      if (!inside) high[i] = (args.pad_code >> 8 & 255) * 0x01010101u;
    }
  } else {
    FS_UNROLL
    for (int i = 0; i < 16; ++i) {
      int code = args.pad_code;
      if (row_inside && col >= 0 && col < args.width && channel < args.channels) {
        const int64_t element = (row_begin + col) * args.channels + channel;
        code = args.x_bytes == 1
                   ? gpu::load_readonly(args.x + element)
                   : gpu::load_readonly(reinterpret_cast<const int16_t*>(args.x) + element);
      }
      low[i / 4] |= static_cast<uint32_t>(code & 255) << i % 4 * 8;
      high[i / 4] |= static_cast<uint32_t>(code >> 8 & 255) << i % 4 * 8;
      if (++channel == args.stored) channel = 0, ++col;
    }
  }
  uint8_t* to = args.map + static_cast<uint64_t>(piece) * 16;
  if (args.planes == 2) {
    gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to),
                      gpu::Bytes16{{high[0], high[1], high[2], high[3]}});
    to += args.plane;
  }
  gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to),
                    gpu::Bytes16{{low[0], low[1], low[2], low[3]}});
}

}  // namespace fskernel::cuda
