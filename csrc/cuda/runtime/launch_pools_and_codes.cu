#include "../pool_readout_encode_launch.h"
#include "launch.h"
#include "stream.h"

namespace fskernel::cuda {

int launch_pool(const PoolCall& call, const Where& where) {
  Stream device = on(where);
  return run_pool(device, call);
}

int launch_product(const ProductCall& call, const Where& where) {
  Stream device = on(where);
  return run_product(device, call);
}

int launch_encode(const EncodeCall& call, const Where& where) {
  Stream device = on(where);
  return run_encode(device, call);
}

int launch_decode(const DecodeCall& call, const Where& where) {
  Stream device = on(where);
  return run_decode(device, call);
}

int launch_readout(const ReadoutCall& call, const Where& where) {
  Stream device = on(where);
  return run_readout(device, call);
}

int launch_events(const EventCall& call, const Where& where) {
  Stream device = on(where);
  return run_events(device, call);
}

int launch_probe(const uint32_t* x, const uint32_t* w, const uint8_t* bytes, const uint32_t* row,
                 int32_t* sums, uint32_t* fragments_x4, uint32_t* fragments_x2,
                 const Where& where) {
  Stream device = on(where);
  return run_probe(device, {x, w, bytes, row, sums, fragments_x4, fragments_x2});
}

int read_back(const void* from, void* to, int64_t bytes, const Where& where) {
  const auto s = static_cast<cudaStream_t>(where.stream);
  cudaError_t error = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, s);
  if (error == cudaSuccess) error = cudaStreamSynchronize(s);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

bool capturing(const Where& where) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(static_cast<cudaStream_t>(where.stream), &status) != cudaSuccess)
    cudaGetLastError();
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace fskernel::cuda
