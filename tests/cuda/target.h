// What the launchers of csrc/cuda/runtime/launch.h run on in this test: a GPU (on_gpu.cpp) or the
// emulator (on_emulator.cpp). One of the two is linked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/runtime/launch.h"

namespace fskernel::testing {

// The words for where and on what it runs. Throws std::runtime_error where it cannot.
std::string target_name();

// Memory of one case, of exact sizes, so that checkers see one byte too many; freed at its end.
class Target {
 public:
  explicit Target(uint64_t seed);  // of the order of threads, where that can be chosen
  ~Target();
  Target(const Target&) = delete;

  // n bytes that hold `from`, or where that is null what nobody would compute. Kernels may write
  // into the latter only.
  uint8_t* take(const char* name, int64_t n, const void* from = nullptr);
  // n bytes that hold `from` and may be written.
  uint8_t* take_state(const char* name, int64_t n, const void* from);
  // Behind all launches; throws std::runtime_error with the words of what failed.
  void read(const void* from, void* to, int64_t n);

  // The launchers' errors, in words. Throws std::runtime_error.
  void check(int error) const;
  cuda::Where where() const;

  template <class T>
  const T* give(const char* name, const std::vector<T>& v) {
    return reinterpret_cast<const T*>(
        take(name, static_cast<int64_t>(v.size() * sizeof(T)), v.data()));
  }
  template <class T>
  std::vector<T> back(const void* from, int64_t n) {
    std::vector<T> v(static_cast<size_t>(n));
    read(from, v.data(), n * static_cast<int64_t>(sizeof(T)));
    return v;
  }

 private:
  std::vector<void*> held_;
};

}  // namespace fskernel::testing
