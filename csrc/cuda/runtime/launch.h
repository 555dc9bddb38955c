// The CUDA kernels for whoever has pointers and a stream. Nothing here waits for the device. Every
// function returns CUDA's error of the launch, 0 = none; device.h has the words for it.
#pragma once

#include <string>

#include "../../pack_header.h"
#include "../calls.h"

namespace fskernel::cuda {

// Where a launch goes.
struct Where {
  int device;    // the current one
  void* stream;  // a cudaStream_t of it
};

// The headers are those of the packed weights.
int launch_conv(const ConvCall& call, const PackHeader (&headers)[2], uint8_t* scratch,
                const std::string& kernel, const Where& where, const char*& name);
int64_t conv_scratch_bytes(const ConvCall& call, const PackHeader (&headers)[2],
                           const std::string& kernel);
int launch_pool(const PoolCall& call, const Where& where);
int launch_product(const ProductCall& call, const Where& where);
int launch_encode(const EncodeCall& call, const Where& where);
int launch_decode(const DecodeCall& call, const Where& where);
int launch_readout(const ReadoutCall& call, const Where& where);
int launch_events(const EventCall& call, const Where& where);

// See probe.cuh: x [32][4], w [32][2], 1024 bytes, row [32]; sums [4][32][4], fragments [32][4] and
// [32][2].
int launch_probe(const uint32_t* x, const uint32_t* w, const uint8_t* bytes, const uint32_t* row,
                 int32_t* sums, uint32_t* fragments_x4, uint32_t* fragments_x2, const Where& where);

// Copies to the host and waits for it; not allowed while a stream is captured, which it returns.
int read_back(const void* from, void* to, int64_t bytes, const Where& where);
bool capturing(const Where& where);

}  // namespace fskernel::cuda
