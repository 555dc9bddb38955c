// The questions. What is expected is put together from the definition of a thing (a product of two
// matrices, a convolution's pixels), what may have happened instead from named hypotheses, so that
// a row says which of them a card follows.
#include <algorithm>
#include <cstdio>
#include <map>
#include <random>
#include <set>

#include "model.h"
#include "question.h"

namespace fskernel::probe {
namespace {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t word() { return static_cast<uint32_t>(engine_()); }
  Bytes bytes(size_t n) {
    Bytes b(n);
    for (uint8_t& v : b) v = static_cast<uint8_t>(word());
    return b;
  }
  std::vector<uint32_t> words(size_t n) {
    std::vector<uint32_t> w(n);
    for (uint32_t& v : w) v = word();
    return w;
  }
  // Offsets of 16-byte rows in 1024 bytes, no two equal.
  std::vector<uint32_t> rows(size_t n) {
    std::vector<uint32_t> all(64);
    for (size_t i = 0; i < 64; ++i) all[i] = static_cast<uint32_t>(16 * i);
    for (size_t i = 63; i > 0; --i) std::swap(all[i], all[word() % (i + 1)]);
    all.resize(n);
    return all;
  }

 private:
  std::mt19937 engine_;
};

std::string number(double v, const char* format = "%.0f") {
  char text[64];
  std::snprintf(text, sizeof text, format, v);
  return text;
}
std::string number(int v) { return std::to_string(v); }

// ---- a warp's registers

Case fragments_case(Machine& machine) {
  Random random(1);
  Fragments q{random.words(32 * 4), random.words(32 * 2), random.bytes(1024), random.rows(32)};
  // By the tables of the PTX ISA, element by element.
  const auto byte = [](uint32_t word, int j) { return static_cast<uint8_t>(word >> 8 * j); };
  std::vector<int32_t> sums;
  for (int signs = 0; signs < kSigns; ++signs)
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
        int sum = 0;
        for (int k = 0; k < 32; ++k) {
          const int of_a = row % 8 * 4 + k % 16 / 4,
                    a_register = (row < 8 ? 0 : 1) + (k < 16 ? 0 : 2);
          const int of_b = column * 4 + k % 16 / 4, b_register = k < 16 ? 0 : 1;
          const uint8_t a = byte(q.x[of_a * 4 + a_register], k % 4);
          const uint8_t b = byte(q.w[of_b * 2 + b_register], k % 4);
          sum += (a_signed(signs) ? static_cast<int8_t>(a) : a) *
                 (b_signed(signs) ? static_cast<int8_t>(b) : b);
        }
        sums.push_back(sum);
      }
  std::vector<uint32_t> loaded;
  for (const int matrices : {4, 2})
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < matrices; ++i) {
        uint32_t v;
        std::memcpy(&v, &q.memory[q.row[8 * i + lane / 4] + 4 * (lane % 4)], 4);
        loaded.push_back(v);
      }
  Bytes expected = bytes_of(sums);
  const Bytes more = bytes_of(loaded);
  expected.insert(expected.end(), more.begin(), more.end());
  return {"mma.sync and ldmatrix", machine.ask(q), {{"PTX ISA", expected}}};
}

Case transposed_case(Machine& machine, bool store) {
  Random random(2);
  Transposed q{store, random.words(128), random.bytes(1024), random.rows(32)};
  // Matrix i in memory: row c of the addresses holds, 16 bits each, column c of the matrix whose
  // row r and columns 2t, 2t + 1 lane 4r + t has in its registers.
  Bytes memory(1024, 0xa5);
  std::vector<uint32_t> registers(128), plain(128);
  for (int i = 0; i < 4; ++i)
    for (int c = 0; c < 8; ++c)
      for (int r = 0; r < 8; ++r) {
        const size_t at = q.row[8 * i + c] + 2 * r, in = (4 * r + c / 2) * 4 + i;
        for (int j = 0; j < 2; ++j) {
          memory[at + j] = static_cast<uint8_t>(q.registers[in] >> (16 * (c % 2) + 8 * j));
          registers[in] |= uint32_t{q.memory[at + j]} << (16 * (c % 2) + 8 * j);
          plain[(4 * c + r / 2) * 4 + i] |= uint32_t{q.memory[at + j]} << (16 * (r % 2) + 8 * j);
        }
      }
  if (store) return {"stmatrix.x4.trans", machine.ask(q), {{"PTX ISA", memory}}};
  return {"ldmatrix.x4.trans",
          machine.ask(q),
          {{"PTX ISA", bytes_of(registers)}, {"not transposed", bytes_of(plain)}}};
}

// ---- products of a warpgroup

using Matrix = std::vector<Bytes>;  // rows of 32 bytes

// keep*sums + A*B as the registers hold it.
Bytes multiplied(const Matrix& a, const Matrix& b, int signs, const std::vector<int32_t>* before) {
  const int n = static_cast<int>(b.size());
  std::vector<int32_t> sums(64 * static_cast<size_t>(n));
  for (int r = 0; r < 64; ++r)
    for (int c = 0; c < n; ++c) {
      int dot = 0;
      for (int k = 0; k < 32; ++k)
        dot += (a_signed(signs) ? static_cast<int8_t>(a[r][k]) : a[r][k]) *
               (b_signed(signs) ? static_cast<int8_t>(b[c][k]) : b[c][k]);
      const auto [thread, index] = model::sum_register(r, c);
      const size_t at = static_cast<size_t>(thread) * (n / 2) + index;
      const uint32_t old = before ? static_cast<uint32_t>((*before)[at]) : 0;
      sums[at] = static_cast<int32_t>(old + static_cast<uint32_t>(dot));
    }
  return bytes_of(sums);
}
Matrix random_matrix(Random& random, int rows) {
  Matrix m;
  for (int r = 0; r < rows; ++r) m.push_back(random.bytes(32));
  const uint8_t extremes[] = {0x80, 0x7f, 0xff, 0x00};
  for (int r = 0; r < 4; ++r) m[r].assign(32, extremes[r]);
  return m;
}
// Close to where they wrap, and anywhere.
std::vector<int32_t> random_sums(Random& random, int n) {
  std::vector<int32_t> sums(128 * static_cast<size_t>(n / 2));
  for (int32_t& v : sums) {
    const uint32_t r = random.word();
    const uint32_t near = r >> 2 & 0xffff;
    v = static_cast<int32_t>(r % 4 == 0   ? 0x7fffffffu - near
                             : r % 4 == 1 ? 0x80000000u + near
                             : r % 4 == 2 ? near
                                          : random.word());
  }
  return sums;
}
// Rows of 128 bytes as swizzled memory has them: in row r, piece p lies at place p xor r % 8.
void place(Bytes& shared, size_t at, const Matrix& m, int step) {
  for (size_t r = 0; r < m.size(); ++r)
    for (size_t k = 0; k < 32; ++k) {
      const size_t piece = 2 * static_cast<size_t>(step) + k / 16;
      shared[at + 128 * r + 16 * (piece ^ r % 8) + k % 16] = m[r][k];
    }
}

constexpr uint32_t kBAt = 8192;

Answer products_question(Machine& machine, int n, bool a_in_registers) {
  std::vector<Case> cases;
  for (int signs = 0; signs < kSigns; ++signs)
    for (const bool keep : {true, false}) {
      Random random(static_cast<uint32_t>(100 * n + signs));
      const Matrix a = random_matrix(random, 64), b = random_matrix(random, n);
      Product q{.signs = signs, .n = n, .a_in_registers = a_in_registers, .keep = keep};
      q.shared = random.bytes(kBAt + 128 * static_cast<size_t>(n));
      const int step = signs;  // each of the four in a row of 128 bytes once
      place(q.shared, 0, a, step);
      place(q.shared, kBAt, b, step);
      const uint32_t depth = 32 * static_cast<uint32_t>(step);
      q.a = model::encode({depth, 16, 1024, 128});
      q.b = model::encode({kBAt + depth, 16, 1024, 128});
      if (a_in_registers) {
        q.a_registers.resize(512);
        for (int thread = 0; thread < 128; ++thread)
          for (int j = 0; j < 16; ++j) {
            // Registers 0...3: rows r, r + 8, r, r + 8; the latter two 16 bytes deeper.
            const int row = thread / 32 * 16 + thread % 32 / 4 + (j / 4 == 1 || j / 4 == 3 ? 8 : 0);
            const int k = thread % 4 * 4 + j % 4 + (j >= 8 ? 16 : 0);
            q.a_registers[thread * 4 + j / 4] |= uint32_t{a[row][k]} << 8 * (j % 4);
          }
      }
      q.sums = random_sums(random, n);
      const auto* before = keep ? &q.sums : nullptr;
      cases.push_back({std::string(kSignNames[signs]) + (keep ? ", kept sums" : ", from 0"),
                       machine.ask(q),
                       {{"PTX ISA", multiplied(a, b, signs, before)},
                        {"A and B's signs exchanged", multiplied(a, b,
                                                                 signs == kU8S8   ? kS8U8
                                                                 : signs == kS8U8 ? kU8S8
                                                                                  : signs,
                                                                 before)}}});
    }
  return judge(cases);
}

// A product whose B is read from random memory by each of several ideas of where its bytes are.
using AddressOf = std::function<uint32_t(int row, int k)>;
Case addressed(Machine& machine, const std::string& label, int n, const model::Operand& b,
               size_t b_bytes, const std::vector<std::pair<std::string, AddressOf>>& ideas) {
  Random random(7);
  const Matrix a = random_matrix(random, 64);
  Product q{.signs = kS8U8, .n = n, .a_in_registers = false, .keep = false};
  q.shared = random.bytes(kBAt + b_bytes);
  place(q.shared, 0, a, 0);
  q.a = model::encode({0, 16, 1024, 128});
  q.b = model::encode(b);
  q.sums.resize(128 * static_cast<size_t>(n / 2));
  Case one{label, machine.ask(q), {}};
  for (const auto& [name, at] : ideas) {
    Matrix rows(n, Bytes(32));
    for (int r = 0; r < n; ++r)
      for (int k = 0; k < 32; ++k) rows[r][k] = q.shared[at(r, k) % q.shared.size()];
    one.hypotheses.push_back({name, multiplied(a, rows, kS8U8, nullptr)});
  }
  return one;
}

Answer swizzle_question(Machine& machine, int width, bool set_base) {
  std::vector<Case> cases;
  const uint32_t row_bytes = static_cast<uint32_t>(width);
  for (uint32_t offset = 0; offset < 8; ++offset)
    for (uint32_t step = 0; step < row_bytes / 32; ++step) {
      const uint32_t first = kBAt + offset * row_bytes, start = first + 32 * step;
      const int base = set_base ? static_cast<int>(start >> 7 & 7) : 0;
      const model::Operand b{start, 16, 8 * row_bytes, width, base};
      const auto at = [=](int r, int k) {
        return start + static_cast<uint32_t>(r) * row_bytes + static_cast<uint32_t>(k);
      };
      const auto with = [=](int (*combine)(int, int)) {
        return [=](int r, int k) {
          const int bits = combine(static_cast<int>(at(r, k) >> 7), base);
          return at(r, k) ^ (static_cast<uint32_t>(bits) & (row_bytes / 16 - 1)) << 4;
        };
      };
      const auto plain = with([](int bits, int) { return bits; });
      const auto minus = with([](int bits, int b) { return bits - b; });
      const auto plus = with([](int bits, int b) { return bits + b; });
      const auto exclusive = with([](int bits, int b) { return bits ^ b; });
      const auto anchored = [=](int r, int k) {  // the pattern begins with the operand
        const uint32_t in = at(r, k) - first;
        return first + (in ^ (in >> 7 & (row_bytes / 16 - 1)) << 4);
      };
      std::vector<std::pair<std::string, AddressOf>> ideas;
      if (set_base)
        ideas = {{"address bits less base", minus},
                 {"base without effect", plain},
                 {"address bits and base", plus},
                 {"address bits xor base", exclusive},
                 {"pattern from the operand on", anchored}};
      else
        ideas = {{"address bits", plain}, {"pattern from the operand on", anchored}};
      cases.push_back(addressed(machine,
                                "row offset " + std::to_string(offset) + ", depth " +
                                    std::to_string(32 * step) + ", base " + std::to_string(base),
                                64, b, 80 * row_bytes, ideas));
    }
  return judge(cases);
}

Answer plain_question(Machine& machine, bool window) {
  std::vector<Case> cases;
  for (const int n : {64, 240})
    for (const uint32_t offset : {0u, 1u, 5u}) {
      const uint32_t depth = window ? 16 : 16 * static_cast<uint32_t>(n);
      const uint32_t start = kBAt + 16 * offset;
      const auto rows = [=](int r, int k) {
        return start + 16 * static_cast<uint32_t>(r) + (k < 16 ? 0 : depth) +
               static_cast<uint32_t>(k % 16);
      };
      const auto exchanged = [=](int r, int k) {
        return start + static_cast<uint32_t>(r / 8) * depth + static_cast<uint32_t>(r % 8) * 16 +
               (k < 16 ? 0 : 128) + static_cast<uint32_t>(k % 16);
      };
      const auto apart = [=](int r, int k) {
        return start + 16 * static_cast<uint32_t>(r) + (k < 16 ? 0 : 128) +
               static_cast<uint32_t>(k % 16);
      };
      cases.push_back(
          addressed(machine, "n = " + std::to_string(n) + ", row offset " + std::to_string(offset),
                    n, {start, depth, 128, 0}, 33 * static_cast<size_t>(n) + 1024,
                    {{"depth by LBO", rows},
                     {"LBO and SBO exchanged", exchanged},
                     {"depth fixed at 128 bytes", apart}}));
    }
  return judge(cases);
}

// ---- copies

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

// ---- rates

// A rate holds where it is within 15 % of what was assumed, or of the nearer end of a range.
Answer within(double seen, double low, double high, std::string text, std::string detail) {
  const bool yes = seen >= 0.85 * low && seen <= 1.15 * high;
  return {yes ? Holds::kYes : Holds::kNo, std::move(text), std::move(detail)};
}
Answer off_hopper(const Facts& facts, std::string text) {
  return {Holds::kNotRun, std::move(text), "nothing is assumed of " + facts.name};
}
std::string spent(const Speed& s) {
  return number(1e3 * s.seconds, "%.1f") + " ms, " + number(s.sms) + " SMs" +
         (s.hertz > 0 ? ", clock " + number(1e-9 * s.hertz, "%.3f") + " GHz" : "");
}

constexpr double kDataSheet = 989.5e12;  // int8 multiply-accumulates/s, H100 SXM: 132 SMs

Answer tensor_rate(Machine& machine, Work work, int n, double share) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{work, n});
  const double rate = s.units / s.seconds, clocks = s.units / s.sms / s.clocks;
  const double assumed = share * kDataSheet * s.sms / 132;
  const std::string text = number(1e-12 * rate) + " T/s; " + number(clocks) + " a clock";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(rate, assumed, assumed, text,
                spent(s) + "; " + number(100 * rate / assumed) + " % of the assumed rate");
}
Answer bytes_a_clock(Machine& machine, Work work, double low, double high) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{work});
  const double rate = s.units / s.sms / s.clocks;
  const std::string text =
      number(rate, "%.1f") + " B a clock; " + number(1e-12 * s.units / s.seconds, "%.2f") + " TB/s";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(rate, low, high, text, spent(s));
}
Answer multicast_rate(Machine& machine) {
  const Facts facts = machine.facts();
  const Speed one = machine.ask(Rate{Work::kL2Copies}), two = machine.ask(Rate{Work::kL2Multicast});
  const double alone = one.units / one.sms / one.clocks, both = two.units / two.sms / two.clocks;
  const std::string text =
      number(both / alone, "%.2f") + " times; " + number(both, "%.1f") + " B a clock arrive";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(both / alone, 2, 2, text,
                number(alone, "%.1f") + " bytes a clock without; " + spent(two));
}
Answer copy_rate(Machine& machine) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{Work::kMemoryCopy});
  const double rate = s.units / s.seconds;
  const std::string text = number(1e-12 * rate, "%.2f") + " TB/s";
  const bool h200 = facts.name.find("H200") != std::string::npos;
  if (!h200 && facts.name.find("H100") == std::string::npos) return off_hopper(facts, text);
  const double assumed = h200 ? 4.3e12 : 3.0e12;
  return within(rate, assumed, assumed, text, spent(s));
}
Answer clock_rate(Machine& machine, Work work, int n, double assumed) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{work, n, 0.5});
  const std::string text = number(1e-9 * s.hertz, "%.3f") + " GHz";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(s.hertz, assumed, assumed, text,
                spent(s) + "; the driver names " + number(1e-6 * facts.clock_khz, "%.3f") + " GHz");
}

}  // namespace

Answer judge(const std::vector<Case>& cases) {
  std::map<std::string, int> fits;
  size_t bytes = 0;
  std::string detail;
  int wrong = 0;
  const int all = static_cast<int>(cases.size());
  for (const Case& one : cases) {
    bytes += one.seen.size();
    bool explained = false;
    for (const Hypothesis& h : one.hypotheses)
      if (one.seen == h.bytes) ++fits[h.name], explained = true;
    const Bytes& ours = one.hypotheses[0].bytes;
    if (one.seen == ours) continue;
    ++wrong;
    size_t differ = one.seen.size() == ours.size() ? 0 : 1, first = 0;
    for (size_t i = std::min(one.seen.size(), ours.size()); i-- > 0;)
      if (one.seen[i] != ours[i]) ++differ, first = i;
    if (detail.empty())
      detail = one.label + ": " + std::to_string(differ) + " of " + std::to_string(ours.size()) +
               " bytes differ, the first at " + std::to_string(first) +
               (explained ? "" : ", as no hypothesis has it");
  }
  if (!wrong)
    return {Holds::kYes, all == 1 ? "as assumed" : "as assumed, " + number(all) + " cases",
            std::to_string(bytes) + " bytes are equal"};
  std::string seen = "as assumed in " + std::to_string(all - wrong) + " of " + std::to_string(all);
  for (const auto& [name, n] : fits)
    if (n > all - wrong) seen = name + " in " + std::to_string(n) + " of " + std::to_string(all);
  return {Holds::kNo, seen, detail};
}

std::vector<Question> questions() {
  std::vector<Question> all;
  const auto add = [&](std::string name, std::string assumed, int arch, auto ask) {
    all.push_back({std::move(name), std::move(assumed), arch, true, ask});
  };
  const auto rate = [&](std::string name, std::string assumed, int arch, auto ask) {
    all.push_back({"rate/" + std::move(name), std::move(assumed), arch, false, ask});
  };
  add("fragments/mma+ldmatrix", "PTX tables, four sign kinds", 80,
      [](Machine& m) { return judge({fragments_case(m)}); });
  add("fragments/ldmatrix.trans", "16-bit elements transposed", 80,
      [](Machine& m) { return judge({transposed_case(m, false)}); });
  add("fragments/stmatrix.trans", "16-bit elements transposed", 90,
      [](Machine& m) { return judge({transposed_case(m, true)}); });
  for (const bool in_registers : {false, true})
    for (const int n : {8, 64, 128, 208, 224, 240, 256})
      add(std::string(in_registers ? "wgmma/registers" : "wgmma/shared") +
              ",n=" + std::to_string(n),
          "exact, wrapping, four kinds", 90,
          [=](Machine& m) { return products_question(m, n, in_registers); });
  for (const bool base : {false, true})
    for (const int width : {128, 64, 32})
      add("swizzle/" + std::to_string(width) + (base ? ",base-set" : ",any-row"),
          base ? "address bits less base" : "address bits, rows 0 to 7", 90,
          [=](Machine& m) { return swizzle_question(m, width, base); });
  add("window/apart", "LBO is depth, SBO 8 rows", 90,
      [](Machine& m) { return plain_question(m, false); });
  add("window/lbo=16", "second half is the next row", 90,
      [](Machine& m) { return plain_question(m, true); });
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

  for (const int n : {64, 128, 192, 208, 224, 240, 256})
    rate("wgmma-int8,n=" + std::to_string(n), "792 T/s, 0.80 of peak", 90,
         [=](Machine& m) { return tensor_rate(m, Work::kProducts, n, 0.80); });
  rate("wgmma-fp16,n=256", "396 T/s, 0.80 of peak", 90,
       [](Machine& m) { return tensor_rate(m, Work::kHalfProducts, 256, 0.40); });
  rate("mma.sync-int8", "613 T/s, 0.62 of peak", 80,
       [](Machine& m) { return tensor_rate(m, Work::kWarpProducts, 0, 0.62); });
  rate("l2-loads", "24 to 35 B a clock and SM", 80,
       [](Machine& m) { return bytes_a_clock(m, Work::kL2Loads, 24, 35); });
  rate("l2-copies", "24 to 35 B a clock and SM", 90,
       [](Machine& m) { return bytes_a_clock(m, Work::kL2Copies, 24, 35); });
  rate("l2-multicast", "2 times l2-copies", 90, multicast_rate);
  rate("shared-loads", "128 B a clock and SM", 80,
       [](Machine& m) { return bytes_a_clock(m, Work::kSharedLoads, 128, 128); });
  rate("memory-copy", "3.0 TB/s, H200 4.3 TB/s", 80, copy_rate);
  rate("clock,light", "1.755 GHz", 80,
       [](Machine& m) { return clock_rate(m, Work::kSharedLoads, 0, 1.755e9); });
  rate("clock,tensor", "1.46 GHz, 0.80 of 1.83", 90,
       [](Machine& m) { return clock_rate(m, Work::kProducts, 256, 1.464e9); });
  return all;
}

}  // namespace fskernel::probe
