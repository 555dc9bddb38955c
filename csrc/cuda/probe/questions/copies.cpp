// Where the copy engine puts the bytes of images, boxes and clusters.
#include <algorithm>
#include <array>
#include <set>

#include "../model.h"
#include "question.h"
#include "random.h"

namespace fskernel::probe {
namespace {

Tensor random_tensor(int n, int h, int w, int c) {
  Random random(static_cast<uint32_t>(n + 10 * h + 100 * w + c));
  Tensor x{n, h, w, c, {}};
  x.bytes = random.bytes(static_cast<size_t>(x.size()));
  for (uint8_t& v : x.bytes) v = v ? v : 1;  // zeros are what is filled in
  return x;
}
// As rows of `width` bytes lie behind the copy engine: in row r, piece p at place p xor some of r.
Bytes in_rows(const std::vector<Bytes>& rows, int swizzle) {
  Bytes box(rows.size() * rows[0].size());
  const size_t width = rows[0].size();
  for (size_t r = 0; r < rows.size(); ++r)
    for (size_t k = 0; k < width; ++k) {
      size_t piece = k / 16;
      if (swizzle) {  // the pattern steps every 128 bytes, by as many pieces as a span has
        const size_t span = static_cast<size_t>(swizzle) / 16, at = r * width / 16 + piece;
        piece = (piece & ~(span - 1)) | ((piece ^ at / 8) & (span - 1));
      }
      box[r * width + 16 * piece + k % 16] = rows[r][k];
    }
  return box;
}

struct Convolution {
  int kernel, stride, dilation, pad;
};

// Tiles of 128 output pixels through taps, expected from the convolution's definition.
std::vector<Case> im2col_cases(Machine& machine, const Tensor& x, Convolution v, int box_pixels,
                               int box_bytes, int swizzle, bool patched = true, int blocks = 1) {
  const auto outputs = [&](int size) {
    return (size + 2 * v.pad - v.dilation * (v.kernel - 1) - 1) / v.stride + 1;
  };
  const int out_h = outputs(x.h), out_w = outputs(x.w), total = x.n * out_h * out_w;
  const int tiles = (total + box_pixels - 1) / box_pixels;
  std::set<int> asked{0, tiles - 1};
  if (x.n > 1) asked.insert(out_h * out_w / box_pixels);  // holds the first image's end
  std::set<std::pair<int, int>> taps;
  for (const int ky : {0, v.kernel / 2, v.kernel - 1})
    for (const int kx : {0, v.kernel / 2, v.kernel - 1}) taps.insert({ky, kx});
  std::vector<Case> cases;
  for (const int tile : asked)
    for (const auto& [ky, kx] : taps) {
      const int first = tile * box_pixels;
      Im2col q{.x = x, .low_w = -v.pad, .low_h = -v.pad};
      q.high_w = q.high_h = v.pad - (v.kernel - 1) * v.dilation;
      q.stride_w = q.stride_h = v.stride;
      q.box_pixels = box_pixels, q.box_bytes = box_bytes, q.swizzle = swizzle;
      q.patched = patched, q.blocks = blocks;
      q.c = 0;
      q.n = first / (out_h * out_w);
      q.h = first / out_w % out_h * v.stride - v.pad;
      q.w = first % out_w * v.stride - v.pad;
      q.offset_w = kx * v.dilation, q.offset_h = ky * v.dilation;
      std::vector<Bytes> rows;
      for (int p = first; p < first + box_pixels; ++p) {
        const int n = p / (out_h * out_w), y = p / out_w % out_h, at = p % out_w;
        const int in_y = y * v.stride - v.pad + ky * v.dilation;
        const int in_x = at * v.stride - v.pad + kx * v.dilation;
        Bytes row(box_bytes);
        if (n < x.n && in_y >= 0 && in_y < x.h && in_x >= 0 && in_x < x.w)
          for (int c = 0; c < std::min(box_bytes, x.c); ++c)
            row[c] = x.bytes[((static_cast<size_t>(n) * x.h + in_y) * x.w + in_x) * x.c + c];
        rows.push_back(row);
      }
      Bytes expected = in_rows(rows, swizzle), unswizzled = in_rows(rows, 0);
      for (int i = 1; i < blocks; ++i) {
        const auto twice = [](Bytes& b) {
          b.reserve(2 * b.size()), b.insert(b.end(), b.begin(), b.end());
        };
        twice(expected), twice(unswizzled);
      }
      Case one{"tile " + std::to_string(tile) + " of " + std::to_string(tiles) + ", tap " +
                   std::to_string(ky) + "," + std::to_string(kx),
               machine.ask(q),
               {{"pixels of the convolution", std::move(expected)}}};
      if (swizzle) one.hypotheses.push_back({"not swizzled", std::move(unswizzled)});
      cases.push_back(std::move(one));
    }
  return cases;
}
// 150,336 bytes: above the size below which drivers make another map.
const Tensor& large() {
  static const Tensor x = random_tensor(3, 29, 27, 64);
  return x;
}
const Tensor& even() {
  static const Tensor x = random_tensor(3, 30, 28, 64);
  return x;
}
const Tensor& small() {
  static const Tensor x = random_tensor(2, 9, 7, 64);
  return x;
}

Answer channels_question(Machine& machine) {
  return judge(im2col_cases(machine, random_tensor(3, 31, 33, 48), {3, 1, 1, 1}, 128, 64, 64));
}

Answer box_question(Machine& machine, int swizzle) {
  std::vector<Case> cases;
  const Tensor& x = large();
  const int bytes = swizzle ? std::min(swizzle, x.c) : x.c;
  for (const auto& [h, w, n] : {std::array{-1, -1, 0}, {11, -1, 1}, {25, 20, 2}, {-2, 26, 2}}) {
    Box q{.x = x, .box_w = x.w + 2, .box_h = 6, .box_bytes = bytes, .swizzle = swizzle};
    q.c = 0, q.w = w, q.h = h, q.n = n;
    std::vector<Bytes> rows;
    for (int y = h; y < h + q.box_h; ++y)
      for (int at = w; at < w + q.box_w; ++at) {
        Bytes row(bytes);
        if (y >= 0 && y < x.h && at >= 0 && at < x.w)
          for (int c = 0; c < bytes; ++c)
            row[c] = x.bytes[((static_cast<size_t>(n) * x.h + y) * x.w + at) * x.c + c];
        rows.push_back(row);
      }
    Case one{"from row " + std::to_string(h) + ", column " + std::to_string(w),
             machine.ask(q),
             {{"zeros outside", in_rows(rows, swizzle)}}};
    if (swizzle) one.hypotheses.push_back({"not swizzled", in_rows(rows, 0)});
    cases.push_back(std::move(one));
  }
  return judge(cases);
}

Answer store_question(Machine& machine) {
  std::vector<Case> cases;
  for (const int swizzle : {0, 64, 128})
    for (const auto& [row, column] : {std::array{0, 0}, {32, 48}, {-3, -16}, {30, 0}}) {
      Random random(5);
      StoreBox q{.rows = 37, .columns = 80, .guard = 256, .box_rows = 16};
      q.box_columns = swizzle ? std::min(swizzle, 64) : 64;
      q.swizzle = swizzle, q.row = row, q.column = column;
      q.shared = random.bytes(static_cast<size_t>(q.box_rows) * q.box_columns);
      Bytes expected(static_cast<size_t>(q.rows) * q.columns + 2 * q.guard, 0xa5);
      for (int at = 0; at < q.rows * q.columns; ++at) {
        const int r = at / q.columns - row, c = at % q.columns - column;
        if (r < 0 || r >= q.box_rows || c < 0 || c >= q.box_columns) continue;
        const int piece = r * q.box_columns / 16 + c / 16;  // of all, and the row of 128 it is in
        const int place = swizzle ? piece ^ (piece / 8 & (swizzle / 16 - 1)) : piece;
        expected[q.guard + at] = q.shared[16 * place + c % 16];
      }
      cases.push_back({"to row " + std::to_string(row) + ", column " + std::to_string(column) +
                           ", swizzle " + std::to_string(swizzle),
                       machine.ask(q),
                       {{"clipped", expected}}});
    }
  return judge(cases);
}

Answer bulk_question(Machine& machine, int blocks) {
  Random random(6);
  const Bulk q{random.bytes(16384), blocks};
  Bytes expected = q.from;
  if (blocks == 2) expected.insert(expected.end(), q.from.begin(), q.from.end());
  return judge({{"16 KB", machine.ask(q), {{"all bytes everywhere", expected}}}});
}

Answer remote_question(Machine& machine) {
  Random random(8);
  const Remote q{random.bytes(8192)};
  Bytes exchanged = q.from;
  std::rotate(exchanged.begin(), exchanged.begin() + 4096, exchanged.end());
  return judge({{"4 KB each", machine.ask(q), {{"the other's", exchanged}, {"its own", q.from}}}});
}

}  // namespace

std::vector<Question> copy_questions() {
  std::vector<Question> all;
  const auto add = [&](std::string name, std::string assumed, int arch, auto ask) {
    all.push_back({std::move(name), std::move(assumed), arch, true, ask});
  };
  // With a stride of 2 the box's far corner matters where sizes are even.
  const auto im2col = [&](const std::string& name, const std::string& assumed, Convolution v,
                          int bytes, int swizzle) {
    add("im2col/" + name, assumed, 90, [=](Machine& m) {
      return judge(im2col_cases(m, v.stride == 2 ? even() : large(), v, 128, bytes, swizzle));
    });
  };
  im2col("3x3", "padding, images, ragged end", {3, 1, 1, 1}, 64, 0);
  im2col("3x3,stride=2", "the same in steps of 2", {3, 2, 1, 1}, 64, 0);
  im2col("3x3,dilation=2", "the same, taps 2 apart", {3, 1, 2, 2}, 64, 0);
  im2col("3x3,stride+dilation=2", "the same, both", {3, 2, 2, 2}, 64, 0);
  im2col("3x3,no-padding", "box ends inside the image", {3, 1, 1, 0}, 64, 0);
  im2col("7x7,stride=2", "the same, padding 3", {7, 2, 1, 3}, 64, 0);
  im2col("1x1,stride=2", "every other pixel", {1, 2, 1, 0}, 64, 0);
  im2col("swizzle=64", "pieces by address bits", {3, 1, 1, 1}, 64, 64);
  im2col("swizzle=32", "pieces by address bits", {3, 1, 1, 1}, 32, 32);
  add("im2col/swizzle=128", "pieces by address bits", 90, [](Machine& m) {
    return judge(im2col_cases(m, random_tensor(3, 21, 19, 128), {3, 1, 1, 1}, 128, 128, 128));
  });
  add("im2col/ragged-channels", "zeros behind 48 of 64", 90, channels_question);
  add("im2col/small,patched", "right with bit 21 cleared", 90,
      [](Machine& m) { return judge(im2col_cases(m, small(), {3, 1, 1, 1}, 64, 64, 64, true)); });
  all.push_back({"im2col/small,unpatched", "wrong up to driver 13.1", 90, true,
                 [](Machine& m) {
                   Answer a = judge(im2col_cases(m, small(), {3, 1, 1, 1}, 64, 64, 64, false));
                   const Facts facts = m.facts();
                   if (facts.driver && facts.driver <= 13010)
                     a.holds = a.holds == Holds::kYes ? Holds::kNo : Holds::kYes;
                   return a;
                 },
                 [](const std::string& why) { return Answer{Holds::kYes, why, ""}; }});
  for (const int swizzle : {0, 32, 64})
    add("box/swizzle=" + std::to_string(swizzle), "zeros outside", 90,
        [=](Machine& m) { return box_question(m, swizzle); });
  add("box/store", "clipped on all sides", 90, store_question);
  add("cluster/bulk", "plain bulk copy", 90, [](Machine& m) { return bulk_question(m, 1); });
  add("cluster/multicast", "both blocks get both halves", 90,
      [](Machine& m) { return bulk_question(m, 2); });
  add("cluster/im2col-multicast", "both blocks get both halves", 90, [](Machine& m) {
    return judge(im2col_cases(m, large(), {3, 1, 1, 1}, 128, 64, 64, true, 2));
  });
  add("cluster/remote-reads", "the other block's bytes", 90, remote_question);

  return all;
}

}  // namespace fskernel::probe
