// What cpu.cpp asks of the CUDA side, whether that was built or not.
#pragma once

#include <pybind11/pybind11.h>

namespace fskernel {

// Adds cuda_state, cuda_pack_bytes and, where built, cuda_device and cuda_streams to the module.
void bind_cuda(pybind11::module_& m);

}  // namespace fskernel
