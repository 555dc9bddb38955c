// What questions are asked with: bytes of every pattern, the same on every machine.
#pragma once

#include <random>
#include <utility>

#include "../machine.h"

namespace fskernel::probe {

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

}  // namespace fskernel::probe
