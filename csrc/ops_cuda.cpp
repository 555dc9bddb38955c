// The operators of fskernel for torch's CUDA key, under the schemas of ops.cpp. Built without CUDA
// kernels it only says so.
#include "ops_cuda.h"

#if FSKERNEL_HAVE_CUDA
#include <dlfcn.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <string>
#include <vector>

#include "checks.h"
#include "cuda/device.h"
#endif

namespace fskernel {

namespace py = pybind11;

#if FSKERNEL_HAVE_CUDA
namespace {

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
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_stream(device, &handle));
    const torch::stable::accelerator::Stream owner(handle);
    STABLE_TORCH_ERROR_CODE_CHECK(native(handle, &stream));
    return stream;
  }
  void* by_shim(int32_t device) const {
    check(shim);
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(shim(device, &stream));
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

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_state", []() -> py::object {
    const cuda::DeviceState s = cuda::device_state();
    py::dict out;
    out["runtime"] = s.runtime;
    out["driver"] = s.driver;
    out["devices"] = s.devices;
    out["words"] = std::string(s.words);
    return out;
  });
  m.def("cuda_device", [](int device) {
    cuda::DeviceFacts f;
    if (const int error = cuda::device_facts(device, f))
      throw std::runtime_error(cuda::error_text(error));
    return py::make_tuple(std::string(f.name), f.major, f.minor, f.multiprocessors, f.bytes);
  });
  // By way: torch's current stream on a device, as an address. Only ways that this torch has.
  py::dict streams;
  if (Streams::get().native)
    streams["native"] = py::cpp_function(
        [](int device) { return reinterpret_cast<int64_t>(Streams::get().by_native(device)); });
  if (Streams::get().shim)
    streams["shim"] = py::cpp_function(
        [](int device) { return reinterpret_cast<int64_t>(Streams::get().by_shim(device)); });
  m.attr("cuda_streams") = streams;
}
#else
void bind_cuda(py::module_& m) {
  m.def("cuda_state", []() -> py::object { return py::none(); });
}
#endif

}  // namespace fskernel
