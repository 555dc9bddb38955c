// torch's threads, as the CPU kernels use them.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../cpu/executor.h"

namespace fskernel {

inline Executor executor() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t n, void* context, void (*body)(void*, int64_t, int64_t)) {
            torch::stable::parallel_for(
                0, n, 1, [&](int64_t begin, int64_t end) { body(context, begin, end); });
          }};
}

}  // namespace fskernel
