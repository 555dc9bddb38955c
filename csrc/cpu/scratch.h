// Memory that grows and is kept for the next call.
#pragma once

#if defined(_WIN32)
#include <malloc.h>
#else
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace fskernel {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kHugePage = 2 << 20;

// Memory on a boundary: a power of two that divides `bytes`. Windows has never been compiled.
inline void* aligned_memory(int64_t align, int64_t bytes) {
#if defined(_WIN32)
  return _aligned_malloc(bytes, align);
#else
  return std::aligned_alloc(align, bytes);
#endif
}

inline void free_aligned(void* p) {
#if defined(_WIN32)
  _aligned_free(p);
#else
  std::free(p);
#endif
}

class Scratch {
 public:
  // At least `bytes` bytes on a cache line; what was in there before may be lost. Large blocks ask
  // for huge pages: walking 25 MB of weights in small ones costs a translation every 4 KB.
  uint8_t* reserve(int64_t bytes) {
    if (bytes < 0 || bytes > INT64_MAX - kHugePage) throw std::bad_alloc();  // a size that wrapped
    if (bytes <= size_) return memory_.get();
    size_ = 0;
    memory_ = nullptr;
    const bool huge = bytes >= kHugePage / 2;
    const int64_t align = huge ? kHugePage : kCacheLine;
    const int64_t rounded = (bytes + align - 1) / align * align;
    memory_.reset(static_cast<uint8_t*>(aligned_memory(align, rounded)));
    if (!memory_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (huge) madvise(memory_.get(), rounded, MADV_HUGEPAGE);  // a wish: failing is no error
#endif
    size_ = rounded;
    return memory_.get();
  }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { free_aligned(p); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace fskernel
