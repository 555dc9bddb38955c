// What we assume of the hardware, as functions of plain C++: which thread holds which sum, which
// byte a descriptor's row and column is, where the copy engine puts what it fetches. The probe
// compares a card with them; the emulator rests on them. tests/csrc/test_probe_model.py derives
// each a second time.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "machine.h"

namespace fskernel::probe::model {

// ---- sums and operands of a warpgroup's product, m64nNk32

struct Cell {
  int row, column;
  bool operator==(const Cell&) const = default;
};
struct Register {
  int thread, index;
  bool operator==(const Register&) const = default;
};
// Row (of A) and column (row of B) of register `index` of a thread's sums.
constexpr Cell sum_cell(int thread, int index) {
  return {thread / 32 * 16 + thread % 32 / 4 + index / 2 % 2 * 8,
          index / 4 * 8 + thread % 4 * 2 + index % 2};
}
constexpr Register sum_register(int row, int column) {
  return {row / 16 * 32 + row % 8 * 4 + column % 8 / 2,
          column / 8 * 4 + row % 16 / 8 * 2 + column % 2};
}
// Row and depth of byte 0...15 of the four registers of A that a thread holds.
constexpr Cell a_register_cell(int thread, int byte) {
  return {thread / 32 * 16 + thread % 32 / 4 + byte / 4 % 2 * 8,
          thread % 4 * 4 + byte % 4 + byte / 8 * 16};
}

// ---- swizzle and descriptors

// Of rows of `width` bytes (0: none), bits 7... of an address choose among the 16-byte pieces of a
// row; `base` is what a descriptor's base offset takes away from them.
constexpr uint32_t swizzled(uint32_t address, int width, int base = 0) {
  if (!width) return address;
  const uint32_t pieces = static_cast<uint32_t>(width) / 16;
  return address ^ ((((address >> 7) - static_cast<uint32_t>(base)) & (pieces - 1)) << 4);
}

struct Operand {
  uint32_t start;    // bytes
  uint32_t leading;  // without swizzle: from one 16 bytes of depth to the next
  uint32_t stride;   // from eight rows to the next eight
  int width;         // 128, 64, 32; 0: rows of 16 bytes, no swizzle
  int base = 0;      // 0...7
};
constexpr uint64_t encode(const Operand& o) {
  const uint64_t kind = o.width == 128 ? 1 : o.width == 64 ? 2 : o.width == 32 ? 3 : 0;
  return uint64_t{(o.start & 0x3ffff) >> 4} | uint64_t{(o.leading & 0x3ffff) >> 4} << 16 |
         uint64_t{(o.stride & 0x3ffff) >> 4} << 32 | static_cast<uint64_t>(o.base & 7) << 49 |
         kind << 62;
}
constexpr Operand decode(uint64_t bits) {
  const auto field = [bits](int at) { return static_cast<uint32_t>(bits >> at & 0x3fff) << 4; };
  const int kind = static_cast<int>(bits >> 62);
  return {field(0), field(16), field(32), kind ? 256 >> kind : 0, static_cast<int>(bits >> 49 & 7)};
}
// Where byte k (0...31) of a row lies.
constexpr uint32_t address(const Operand& o, int row, int k) {
  const uint32_t r = static_cast<uint32_t>(row), depth = static_cast<uint32_t>(k);
  const uint32_t group = o.start + r / 8 * o.stride;
  if (!o.width) return group + r % 8 * 16 + depth / 16 * o.leading + depth % 16;
  return swizzled(group + r % 8 * static_cast<uint32_t>(o.width) + depth, o.width, o.base);
}

// ---- the copy engine

struct Pixel {
  int n, h, w;
  bool operator==(const Pixel&) const = default;
};
// The pixels of an im2col copy: from the first one on in steps of the stride, inside the bounding
// box [low, size + high); then the next row of the box, then the next image.
inline std::vector<Pixel> walk(const Im2col& q) {
  std::vector<Pixel> pixels;
  int n = q.n, h = q.h, w = q.w;
  for (int i = 0; i < q.box_pixels; ++i) {
    pixels.push_back({n, h + q.offset_h, w + q.offset_w});
    if ((w += q.stride_w) < q.x.w + q.high_w) continue;
    w = q.low_w;
    if ((h += q.stride_h) < q.x.h + q.high_h) continue;
    h = q.low_h, ++n;
  }
  return pixels;
}
// A byte of the tensor, 0 where there is none.
inline uint8_t element(const Tensor& x, Pixel p, int c) {
  if (p.n < 0 || p.n >= x.n || p.h < 0 || p.h >= x.h || p.w < 0 || p.w >= x.w || c < 0 || c >= x.c)
    return 0;
  return x.bytes[((static_cast<size_t>(p.n) * x.h + p.h) * x.w + p.w) * x.c + c];
}
inline std::vector<Pixel> pixels(const Box& q) {
  std::vector<Pixel> all;
  for (int y = 0; y < q.box_h; ++y)
    for (int x = 0; x < q.box_w; ++x) all.push_back({q.n, q.h + y, q.w + x});
  return all;
}
// Shared memory after a copy of these pixels' channels from `c` on, begun at a multiple of 1024.
inline Bytes placed(const Tensor& x, const std::vector<Pixel>& pixels, int c, int bytes,
                    int swizzle) {
  Bytes box(pixels.size() * bytes);
  for (size_t i = 0; i < box.size(); ++i)
    box[swizzled(static_cast<uint32_t>(i), swizzle)] =
        element(x, pixels[i / bytes], c + static_cast<int>(i % bytes));
  return box;
}
// The matrix after a store, with its guards; what lies outside the matrix is not stored.
inline Bytes stored(const StoreBox& q) {
  Bytes to(static_cast<size_t>(q.rows) * q.columns + 2 * q.guard, 0xa5);
  for (int r = 0; r < q.box_rows; ++r)
    for (int c = 0; c < q.box_columns; ++c) {
      const int row = q.row + r, column = q.column + c;
      if (row < 0 || row >= q.rows || column < 0 || column >= q.columns) continue;
      const uint32_t at = static_cast<uint32_t>(r * q.box_columns + c);
      to[q.guard + static_cast<size_t>(row) * q.columns + column] =
          q.shared[swizzled(at, q.swizzle)];
    }
  return to;
}

// ---- transposing matrix moves

// Where in memory element e (0, 1) of register i of a lane lies, counted from the rows' addresses.
constexpr uint32_t transposed_address(const std::vector<uint32_t>& row, int lane, int i, int e) {
  return row[8 * i + lane % 4 * 2 + e] + static_cast<uint32_t>(lane / 4) * 2;
}

}  // namespace fskernel::probe::model
