#include "model_machine.h"

// The emulated kernel is another function than the one that a card's unit of this program launches.
#define cuda emulated_cuda
#include "../kernel/probe.cuh"
#undef cuda
#include "../../simt/launch.h"

namespace fskernel::probe {

Facts ModelMachine::facts() { return {.name = "host model", .arch = 90}; }

// By the emulator, which runs the very kernel that the card runs.
Bytes ModelMachine::ask(const Fragments& q) {
  std::vector<int32_t> sums(4 * 32 * 4);
  std::vector<uint32_t> x4(32 * 4), x2(32 * 2);
  const emulated_cuda::ProbeArgs args{q.x.data(),  q.w.data(), q.memory.data(), q.row.data(),
                                      sums.data(), x4.data(),  x2.data()};
  simt::launch({{1}, 32, emulated_cuda::kProbeBytes},
               {simt::reads("x", q.x), simt::reads("w", q.w), simt::reads("bytes", q.memory),
                simt::reads("row", q.row), simt::writes("sums", sums), simt::writes("x4", x4),
                simt::writes("x2", x2)},
               {}, [=] { emulated_cuda::probe(args); });
  Bytes answer = bytes_of(sums);
  for (const Bytes& more : {bytes_of(x4), bytes_of(x2)})
    answer.insert(answer.end(), more.begin(), more.end());
  return answer;
}

Bytes ModelMachine::ask(const Transposed& q) {
  Bytes memory = q.store ? Bytes(q.memory.size(), 0xa5) : q.memory;
  std::vector<uint32_t> registers(32 * 4);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i)
      for (int e = 0; e < 2; ++e) {
        const uint32_t at = model::transposed_address(q.row, lane, i, e);
        uint32_t& r = registers[lane * 4 + i];
        if (q.store) {
          const uint16_t v = static_cast<uint16_t>(q.registers[lane * 4 + i] >> 16 * e);
          std::memcpy(&memory[at], &v, 2);
        } else {
          uint16_t v;
          std::memcpy(&v, &memory[at], 2);
          r |= uint32_t{v} << 16 * e;
        }
      }
  return q.store ? memory : bytes_of(registers);
}

// Reads operands out of memory as the descriptors say, and each thread's sums as the map says.
Bytes ModelMachine::ask(const Product& q) {
  const auto value = [](uint8_t byte, bool is_signed) {
    return is_signed ? static_cast<int8_t>(byte) : static_cast<int>(byte);
  };
  std::vector<std::array<int, 32>> a(64), b(q.n);
  const model::Operand from_a = model::decode(q.a), from_b = model::decode(q.b);
  if (q.a_in_registers) {
    for (int t = 0; t < 128; ++t)
      for (int j = 0; j < 16; ++j) {
        const auto [row, k] = model::a_register_cell(t, j);
        a[row][k] = value(static_cast<uint8_t>(q.a_registers[t * 4 + j / 4] >> 8 * (j % 4)),
                          a_signed(q.signs));
      }
  } else {
    for (int r = 0; r < 64; ++r)
      for (int k = 0; k < 32; ++k)
        a[r][k] = value(q.shared.at(model::address(from_a, r, k)), a_signed(q.signs));
  }
  for (int r = 0; r < q.n; ++r)
    for (int k = 0; k < 32; ++k)
      b[r][k] = value(q.shared.at(model::address(from_b, r, k)), b_signed(q.signs));
  std::vector<int32_t> sums = q.sums;
  for (int t = 0; t < 128; ++t)
    for (int i = 0; i < q.n / 2; ++i) {
      const auto [row, column] = model::sum_cell(t, i);
      int32_t& sum = sums[t * (q.n / 2) + i];
      uint32_t more = q.keep ? static_cast<uint32_t>(sum) : 0;
      for (int k = 0; k < 32; ++k) more += static_cast<uint32_t>(a[row][k] * b[column][k]);
      sum = static_cast<int32_t>(more);
    }
  return bytes_of(sums);
}

Bytes ModelMachine::ask(const Im2col& q) {
  const Bytes box = model::placed(q.x, model::walk(q), q.c, q.box_bytes, q.swizzle);
  Bytes all;
  for (int i = 0; i < q.blocks; ++i) all.insert(all.end(), box.begin(), box.end());
  return all;
}
Bytes ModelMachine::ask(const Box& q) {
  return model::placed(q.x, model::pixels(q), q.c, q.box_bytes, q.swizzle);
}
Bytes ModelMachine::ask(const StoreBox& q) { return model::stored(q); }
Bytes ModelMachine::ask(const Bulk& q) {
  Bytes all;
  for (int i = 0; i < q.blocks; ++i) all.insert(all.end(), q.from.begin(), q.from.end());
  return all;
}
Bytes ModelMachine::ask(const Remote& q) {
  const auto half = q.from.begin() + static_cast<int64_t>(q.from.size() / 2);
  Bytes all(half, q.from.end());
  all.insert(all.end(), q.from.begin(), half);
  return all;
}
Speed ModelMachine::ask(const Rate&) { throw NoAnswer("no model of time"); }

}  // namespace fskernel::probe
