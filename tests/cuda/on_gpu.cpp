#include <cuda_runtime.h>

#include <stdexcept>

#include "cuda/runtime/device.h"
#include "target.h"

namespace fskernel::testing {
namespace {

void demand(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

}  // namespace

std::string target_name() {
  cuda::DeviceFacts facts;
  const cuda::DeviceState state = cuda::device_state();
  if (state.devices == 0) throw std::runtime_error(std::string("no GPU: ") + state.words);
  if (const int error = cuda::device_facts(0, facts))
    throw std::runtime_error(cuda::error_text(error));
  return std::string(facts.name) + ", sm_" + std::to_string(facts.major) +
         std::to_string(facts.minor);
}

Target::Target(uint64_t) { demand(cudaSetDevice(0)); }
Target::~Target() {
  for (void* p : held_) cudaFree(p);
}

uint8_t* Target::take(const char*, int64_t n, const void* from) {
  void* p = nullptr;
  demand(cudaMalloc(&p, n ? n : 1));
  held_.push_back(p);
  if (n && from) demand(cudaMemcpy(p, from, n, cudaMemcpyHostToDevice));
  if (n && !from) demand(cudaMemset(p, 0xcd, n));
  return static_cast<uint8_t*>(p);
}
uint8_t* Target::take_state(const char* name, int64_t n, const void* from) {
  return take(name, n, from);
}

void Target::read(const void* from, void* to, int64_t n) {
  demand(cudaDeviceSynchronize());
  if (n) demand(cudaMemcpy(to, from, n, cudaMemcpyDeviceToHost));
}

void Target::check(int error) const { demand(static_cast<cudaError_t>(error)); }
cuda::Where Target::where() const { return {0, nullptr}; }

}  // namespace fskernel::testing
