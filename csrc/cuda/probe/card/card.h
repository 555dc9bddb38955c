// Of the units that nvcc compiles: memory of the card, launches, errors in CUDA's words.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <utility>

#include "../machine.h"

namespace fskernel::probe {

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  // Any error but one of memory, of arguments or of a missing kernel may have ended the context.
  const bool harmless = error == cudaErrorMemoryAllocation || error == cudaErrorInvalidValue ||
                        error == cudaErrorInvalidConfiguration ||
                        error == cudaErrorNoKernelImageForDevice;
  throw NoAnswer(std::string("CUDA: ") + cudaGetErrorString(error), !harmless);
}

// Bytes in device memory.
class OnCard {
 public:
  explicit OnCard(int64_t bytes, int fill = 0xa5) : bytes_(bytes) {
    check(cudaMalloc(&at_, static_cast<size_t>(bytes > 0 ? bytes : 16)));
    check(cudaMemset(at_, fill, static_cast<size_t>(bytes)));
  }
  explicit OnCard(const Bytes& bytes) : OnCard(static_cast<int64_t>(bytes.size())) {
    check(cudaMemcpy(at_, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
  }
  template <class T>
  explicit OnCard(const std::vector<T>& v) : OnCard(bytes_of(v)) {}
  OnCard(const OnCard&) = delete;
  OnCard& operator=(const OnCard&) = delete;
  ~OnCard() { cudaFree(at_); }

  template <class T>
  T* as() const {
    return static_cast<T*>(at_);
  }
  Bytes back() const {
    check(cudaDeviceSynchronize());
    Bytes bytes(static_cast<size_t>(bytes_));
    check(cudaMemcpy(bytes.data(), at_, bytes.size(), cudaMemcpyDeviceToHost));
    return bytes;
  }

 private:
  void* at_ = nullptr;
  int64_t bytes_;
};

// Launches blocks in clusters of `cluster` (1: none).
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int blocks, int threads, int shared_bytes, int cluster,
            Arguments&&... arguments) {
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

// Each in a unit of its own.
Bytes ask_card(const Fragments&);
Bytes ask_card(const Transposed&);
Bytes ask_card(const Product&);
Bytes ask_card(const Im2col&);
Bytes ask_card(const Box&);
Bytes ask_card(const StoreBox&);
Bytes ask_card(const Bulk&);
Bytes ask_card(const Remote&);
Speed ask_card(const Rate&);

}  // namespace fskernel::probe
