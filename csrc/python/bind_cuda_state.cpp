#include <stdexcept>
#include <string>

#include "../cuda/runtime/device.h"
#include "../ops/cuda.h"
#include "bindings.h"

namespace fskernel {

namespace py = pybind11;

void bind_cuda_state(py::module_& m) {
#if FSKERNEL_HAVE_CUDA
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
  m.def("cuda_probe", &run_cuda_probe);
  m.def("set_cuda_kernel", &force_cuda_kernel);
  py::dict streams;
  for (const auto& [way, stream] : cuda_streams()) streams[py::str(way)] = py::cpp_function(stream);
  m.attr("cuda_streams") = streams;
#else
  m.def("cuda_state", []() -> py::object { return py::none(); });
#endif
}

}  // namespace fskernel
