// Memory that grows and is kept for the next call.
#pragma once

#include <cstdint>
#include <memory>

namespace fskernel {

constexpr int64_t kCacheLine = 64;

class Scratch {
 public:
  // At least `bytes` bytes on a cache line; what was in there before may be lost.
  uint8_t* reserve(int64_t bytes) {
    if (bytes > size_) {
      size_ = 0;
      memory_ = nullptr;
      memory_.reset(new uint8_t[bytes + kCacheLine]);
      size_ = bytes;
    }
    const auto at = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + (kCacheLine - at % kCacheLine) % kCacheLine;
  }
  int64_t size() const { return size_; }

 private:
  std::unique_ptr<uint8_t[]> memory_;
  int64_t size_ = 0;
};

}  // namespace fskernel
