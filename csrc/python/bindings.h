// What each file of this folder adds to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace fskernel {

void bind_oracle(pybind11::module_& m);
void bind_plans(pybind11::module_& m);
// The rules of the CUDA kernels that the host follows, whether those are built or not.
void bind_cuda_rules(pybind11::module_& m);
// Devices and their state, streams and kernels by name; of a build without CUDA, that it is one.
void bind_cuda_state(pybind11::module_& m);

}  // namespace fskernel
