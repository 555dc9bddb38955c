// What a warp's and a warpgroup's instructions do with registers and shared memory.
#include "../model.h"
#include "question.h"
#include "random.h"

namespace fskernel::probe {
namespace {

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

}  // namespace

std::vector<Question> product_questions() {
  std::vector<Question> all;
  const auto add = [&](std::string name, std::string assumed, int arch, auto ask) {
    all.push_back({std::move(name), std::move(assumed), arch, true, ask});
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
  return all;
}

}  // namespace fskernel::probe
