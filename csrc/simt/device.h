// The emulator as the `Device` that the launchers of ../cuda run on (cuda/direct_launch.h,
// cuda/tensor_choice.h).
#pragma once

#include <utility>

#include "../cuda/calls.h"
#include "launch.h"

namespace fskernel::simt {

class Device {
 public:
  explicit Device(const Options& options = {}, int multiprocessors = 1)
      : options_(options), multiprocessors_(multiprocessors) {}

  // Memory that kernels may read, or also write; an access to any other is a fault. An `Array` has
  // data(), mutable_data() and nbytes(), as those of pybind11.
  void knows(Buffer buffer) { buffers_.push_back(std::move(buffer)); }
  template <class Array>
  auto reads(const char* name, const Array& a) {
    knows({name, a.data(), a.nbytes(), false});
    return a.data();
  }
  template <class Array>
  auto writes(const char* name, Array& a) {
    knows({name, a.data(), a.nbytes(), true});
    return a.mutable_data();
  }

  int multiprocessors() const { return multiprocessors_; }

  template <class Args>
  int launch(const cuda::Launch& how, void (*kernel)(Args), const Args& args) {
    report_ = simt::launch({{static_cast<int>(how.blocks)}, how.threads, how.shared_bytes},
                           buffers_, options_, [=] { kernel(args); });
    return 0;
  }

  const Report& report() const { return report_; }  // of the last launch

 private:
  Options options_;
  int multiprocessors_;
  std::vector<Buffer> buffers_;
  Report report_{};
};

}  // namespace fskernel::simt
