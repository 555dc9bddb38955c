// Ends the kernel, and with it the launch, if the weights are not those that it was told.
#pragma once

#include "gpu.h"
#include "seal.h"

namespace fskernel::cuda {

FS_DEVICE void check_seal(const Seal& seal) {
  if (gpu::thread() == 0 && gpu::load_readonly(seal.at) != seal.value) gpu::trap();
}

}  // namespace fskernel::cuda
