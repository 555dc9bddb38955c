// What Python asks of the CUDA side beside its operators, for tests and measurements. Only where
// CUDA kernels are built.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace fskernel {

// The convolution kernel that runs from now on, by its name; empty: the fastest.
void force_cuda_kernel(const std::string& name);

// Takes addresses on that device, see cuda::launch_probe.
void run_cuda_probe(int64_t x, int64_t w, int64_t bytes, int64_t row, int64_t sums,
                    int64_t fragments_x4, int64_t fragments_x2, int device);

// By way: what tells torch's current stream on a device, as an address. Only ways that this torch
// has.
std::map<std::string, int64_t (*)(int)> cuda_streams();

}  // namespace fskernel
