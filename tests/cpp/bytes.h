// What test cases are made of: a byte string for the decisions, pseudo-random numbers for the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace fskernel::testing {

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return in(1, 100) <= percent; }
  float real(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) / 16777216.0f;
  }
};

// Decisions read off a byte string. Behind its end all bytes are 0, which is always the plainest
// choice: a shorter string is a simpler case.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint64_t number(int bytes) {
    uint64_t v = 0;
    for (; bytes > 0; --bytes, ++used_) v = v << 8 | (used_ < size_ ? data_[used_] : 0);
    return v;
  }
  int64_t in(int64_t low, int64_t high) {
    const auto n = static_cast<uint64_t>(high - low + 1);
    return low + static_cast<int64_t>(number(n <= 256 ? 1 : 2) % n);
  }
  bool chance(int percent) { return 255 - static_cast<int>(number(1)) < percent * 256 / 100; }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[in(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  size_t used() const { return used_ < size_ ? used_ : size_; }

 private:
  const uint8_t* data_;
  size_t size_, used_ = 0;
};

}  // namespace fskernel::testing
