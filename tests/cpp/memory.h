// Memory for the inputs and outputs of a test case, each stretch at the edge of a page that crashes
// whoever touches it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace fskernel::testing {

// Pages that are kept for the next case, between two forbidden ones.
class Guarded {
 public:
  ~Guarded() { unmap(); }

  // `bytes` bytes that end where the upper forbidden page begins or, if not `at_end`, begin
  // `offset` bytes behind the lower one.
  uint8_t* place(int64_t bytes, bool at_end, int64_t offset) {
    if (bytes + offset > capacity_) map(bytes + offset);
    begin_ = at_end ? capacity_ - bytes : offset;
    end_ = begin_ + bytes;
    std::memset(pages_ + low(), kCanary, begin_ - low());
    std::memset(pages_ + end_, kCanary, high() - end_);
    return pages_ + begin_;
  }

  // Nobody wrote beside what place() gave.
  bool margins_untouched() const {
    for (int64_t i = low(); i < high(); ++i)
      if ((i < begin_ || i >= end_) && pages_[i] != kCanary) return false;
    return true;
  }

 private:
  static constexpr uint8_t kCanary = 0xa5;
  static constexpr int64_t kMargin = 256;

  int64_t low() const { return begin_ < kMargin ? 0 : begin_ - kMargin; }
  int64_t high() const { return capacity_ - end_ < kMargin ? capacity_ : end_ + kMargin; }

  void map(int64_t bytes) {
    unmap();
    const int64_t page = sysconf(_SC_PAGESIZE);
    capacity_ = page;
    while (capacity_ < bytes) capacity_ *= 2;
    mapped_ = capacity_ + 2 * page;
    base_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pages_ = static_cast<uint8_t*>(base_) + page;
    if (base_ == MAP_FAILED || mprotect(pages_, capacity_, PROT_READ | PROT_WRITE)) std::abort();
  }
  void unmap() {
    if (capacity_) munmap(base_, mapped_);
  }

  void* base_ = nullptr;
  uint8_t* pages_ = nullptr;
  int64_t mapped_ = 0, capacity_ = 0, begin_ = 0, end_ = 0;
};

// Where all stretches of a case lie.
struct Edge {
  bool at_end;
  int64_t offset;  // in elements, from the lower edge
};

// The stretches of one run of a case.
class Memory {
 public:
  explicit Memory(Edge edge) : edge_(edge) {}

  uint8_t* take(int64_t bytes, int64_t element) {
    if (used_ == pool().size()) pool().push_back(std::make_unique<Guarded>());
    return pool()[used_++]->place(bytes, edge_.at_end, edge_.offset * element);
  }
  template <class T>
  T* take_copy(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    uint8_t* to = take(bytes, sizeof(T));
    if (bytes) std::memcpy(to, values.data(), bytes);
    return reinterpret_cast<T*>(to);
  }
  bool margins_untouched() const {
    for (size_t i = 0; i < used_; ++i)
      if (!pool()[i]->margins_untouched()) return false;
    return true;
  }

 private:
  static std::vector<std::unique_ptr<Guarded>>& pool() {
    static std::vector<std::unique_ptr<Guarded>> all;
    return all;
  }
  Edge edge_;
  size_t used_ = 0;
};

}  // namespace fskernel::testing
