// The CUDA kernels for whoever has pointers and a stream. Nothing here waits for the device. Every
// function returns CUDA's error of the launch, 0 = none; device.h has the words for it.
#pragma once

#include <string>

#include "calls.h"

namespace fskernel::cuda {

// `stream` is a cudaStream_t of the current device. The headers are those of the packed weights.
int launch_conv(const ConvCall& call, const PackHeader (&headers)[2], uint8_t* scratch,
                const std::string& kernel, void* stream, const char*& name);
int64_t conv_scratch_bytes(const ConvCall& call, const PackHeader (&headers)[2],
                           const std::string& kernel);
int launch_pool(const PoolCall& call, void* stream);
int launch_encode(const EncodeCall& call, void* stream);
int launch_readout(const ReadoutCall& call, void* stream);
int launch_events(const EventCall& call, void* stream);

// See probe.cuh: x [32][4], w [32][2], 1024 bytes, row [32]; sums [4][32][4], fragments [32][4] and
// [32][2].
int launch_probe(const uint32_t* x, const uint32_t* w, const uint8_t* bytes, const uint32_t* row,
                 int32_t* sums, uint32_t* fragments_x4, uint32_t* fragments_x2, void* stream);

// Copies to the host and waits for it; not allowed while a stream is captured, which it returns.
int read_back(const void* from, void* to, int64_t bytes, void* stream);
bool capturing(void* stream);

}  // namespace fskernel::cuda
