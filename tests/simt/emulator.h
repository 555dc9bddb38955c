// The emulator as the device that csrc/cuda/conv.h launches on. It knows every buffer of the call,
// so that it notices an access to anything else.
#pragma once

#include <vector>

#include "cuda/conv.h"
#include "simt/launch.h"

namespace fskernel::testing {

struct Emulator {
  simt::Options options;
  int count = 132;  // multiprocessors, for the choice of the kernel
  std::vector<simt::Buffer> buffers;
  simt::Report report{};  // of the last launch

  int multiprocessors() const { return count; }
  template <class Args>
  int launch(const cuda::Launch& how, void (*kernel)(Args), const Args& args) {
    report = simt::launch({{static_cast<int>(how.blocks)}, how.threads, how.shared_bytes}, buffers,
                          options, [=] { kernel(args); });
    return 0;
  }
};

}  // namespace fskernel::testing
