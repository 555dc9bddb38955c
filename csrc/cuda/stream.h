// A CUDA stream as the device that the files *_run.h launch on. For nvcc.
#pragma once

#include <cuda_runtime.h>

#include "calls.h"

namespace fskernel::cuda {

struct Stream {
  cudaStream_t stream;

  template <class Args>
  int launch(const Launch& how, void (*kernel)(Args), const Args& args) const {
    if (how.blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
    if (how.shared_bytes > 48 * 1024) {
      const cudaError_t error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, how.shared_bytes);
      if (error != cudaSuccess) return cudaGetLastError();
    }
    kernel<<<static_cast<unsigned>(how.blocks), how.threads, how.shared_bytes, stream>>>(args);
    return cudaGetLastError();
  }

  int multiprocessors() const {
    int device = 0, count = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count > 0 ? count : 1;
  }
};

inline Stream on(void* stream) { return {static_cast<cudaStream_t>(stream)}; }

}  // namespace fskernel::cuda
