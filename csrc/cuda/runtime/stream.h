// A CUDA stream as the device that the files *_run.h launch on. For nvcc.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <utility>

#include "../calls.h"
#include "launch.h"

namespace fskernel::cuda {

// Whether a kernel may take so many bytes of shared memory on a device: CUDA is asked once, because
// the question takes the host about as long as a launch. Returns its error, 0 = none.
inline int allow_shared(const void* kernel, int device, int bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, int> allowed;
  const std::lock_guard<std::mutex> lock(mutex);
  int& most = allowed[{kernel, device}];
  if (bytes <= most) return 0;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return cudaGetLastError();
  most = bytes;
  return 0;
}

// Multiprocessors of a device, asked once.
inline int multiprocessors_of(int device) {
  static std::mutex mutex;
  static std::map<int, int> known;
  const std::lock_guard<std::mutex> lock(mutex);
  int& count = known[device];
  if (count <= 0 &&
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
    cudaGetLastError();
  return count > 0 ? count : 1;
}

struct Stream {
  int device;
  cudaStream_t stream;

  template <class Args>
  int launch(const Launch& how, void (*kernel)(Args), const Args& args) const {
    if (how.blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
    if (how.shared_bytes > 48 * 1024)
      if (const int error =
              allow_shared(reinterpret_cast<const void*>(kernel), device, how.shared_bytes))
        return error;
    kernel<<<static_cast<unsigned>(how.blocks), how.threads, how.shared_bytes, stream>>>(args);
    return cudaGetLastError();
  }

  int multiprocessors() const { return multiprocessors_of(device); }
};

inline Stream on(const Where& where) {
  return {where.device, static_cast<cudaStream_t>(where.stream)};
}

}  // namespace fskernel::cuda
