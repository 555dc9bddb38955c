#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

#include "device.h"

namespace fskernel::cuda {

DeviceState device_state() {
  DeviceState state{};
  cudaRuntimeGetVersion(&state.runtime);
  cudaDriverGetVersion(&state.driver);
  state.error = cudaGetDeviceCount(&state.devices);
  if (state.error != cudaSuccess) {
    state.devices = 0;
    cudaGetLastError();  // reported here: no later call shall find it
  }
  std::snprintf(state.words, sizeof state.words, "%s", error_text(state.error));
  return state;
}

int device_facts(int device, DeviceFacts& facts) {
  cudaDeviceProp p;
  const cudaError_t error = cudaGetDeviceProperties(&p, device);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return error;
  }
  facts = {};
  std::memcpy(facts.name, p.name, sizeof facts.name);
  facts.major = p.major;
  facts.minor = p.minor;
  facts.multiprocessors = p.multiProcessorCount;
  facts.bytes = static_cast<long long>(p.totalGlobalMem);
  return 0;
}

const char* error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace fskernel::cuda
