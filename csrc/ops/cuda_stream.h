// torch's current CUDA stream.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/shim_utils.h>

#include <stdexcept>

namespace fskernel {

// A function of a library of torch's that is loaded already, or null. The library is asked by its
// name, because Python loads extension modules without making their symbols public.
template <class Function>
Function* torch_function(const char* library, const char* name) {
  void* handle = dlopen(library, RTLD_NOLOAD | RTLD_LAZY);
  if (!handle) return nullptr;
  void* found = dlsym(handle, name);
  dlclose(handle);
  return reinterpret_cast<Function*>(found);
}

// torch's current stream on a device, as a cudaStream_t. From torch 2.13 on, its stable ABI tells
// the native handle of any stream; before that, its CUDA library has a function for it. Both are
// looked up at run time, so that one library serves all releases of torch, also without CUDA.
class Streams {
 public:
  using Native = AOTITorchError(StreamHandle, void**);
  using Shim = AOTITorchError(int32_t, void**);

  static const Streams& get() {
    static const Streams all;
    return all;
  }
  void* current(int32_t device) const { return native ? by_native(device) : by_shim(device); }
  void* by_native(int32_t device) const {
    check(native);
    StreamHandle handle = nullptr;
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_stream(device, &handle));
    const torch::stable::accelerator::Stream owner(handle);
    TORCH_ERROR_CODE_CHECK(native(handle, &stream));
    return stream;
  }
  void* by_shim(int32_t device) const {
    check(shim);
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(shim(device, &stream));
    return stream;
  }

  Native* const native = torch_function<Native>("libtorch_cpu.so", "torch_stream_native_handle");
  Shim* const shim = torch_function<Shim>("libtorch_cuda.so", "aoti_torch_get_current_cuda_stream");

 private:
  static void check(bool found) {
    if (!found)
      throw std::runtime_error(
          "this torch does not tell its current CUDA stream: it was built without CUDA");
  }
};

}  // namespace fskernel
