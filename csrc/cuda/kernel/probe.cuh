// What the tensor-core instructions do with one warp's registers, written down: a GPU's answers are
// the golden files that the emulator is compared with (bench/gpu.py).
#pragma once

#include "gpu.h"

namespace fskernel::cuda {

constexpr int kProbeBytes = 1024;  // of shared memory, behind matrix loads

struct ProbeArgs {
  const uint32_t* x;       // [32][4] fragments
  const uint32_t* w;       // [32][2]
  const uint8_t* bytes;    // [kProbeBytes]
  const uint32_t* row;     // [32] offsets into them, multiples of 16
  int32_t* sums;           // [4][32][4]: u8s8, s8s8, s8u8, u8u8
  uint32_t* fragments_x4;  // [32][4]
  uint32_t* fragments_x2;  // [32][2]
};

FS_KERNEL(32, 1)
probe(const ProbeArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared();
  const int lane = gpu::thread();
  for (int i = lane; i < kProbeBytes; i += 32)
    gpu::store_shared<uint8_t>(shared + i, gpu::load_readonly(args.bytes + i));
  gpu::sync_threads();
  uint32_t x[4], w[2];
  FS_UNROLL
  for (int i = 0; i < 4; ++i) x[i] = gpu::load_readonly(args.x + lane * 4 + i);
  FS_UNROLL
  for (int i = 0; i < 2; ++i) w[i] = gpu::load_readonly(args.w + lane * 2 + i);
  gpu::Sum sum[4][4] = {};
  gpu::mma_u8s8(sum[0], x, w[0], w[1]);
  gpu::mma_s8s8(sum[1], x, w[0], w[1]);
  gpu::mma_s8u8(sum[2], x, w[0], w[1]);
  gpu::mma_u8u8(sum[3], x, w[0], w[1]);
  FS_UNROLL
  for (int p = 0; p < 4; ++p) {
    FS_UNROLL
    for (int i = 0; i < 4; ++i)
      gpu::store_global<int32_t>(args.sums + (p * 32 + lane) * 4 + i, gpu::final_sum(sum[p][i]));
  }
  const uint32_t row = gpu::load_readonly(args.row + lane);
  uint32_t x4[4], x2[2];
  gpu::load_matrix_x4(x4, shared + row);
  gpu::load_matrix_x2(x2, shared + row);
  FS_UNROLL
  for (int i = 0; i < 4; ++i) gpu::store_global<uint32_t>(args.fragments_x4 + lane * 4 + i, x4[i]);
  FS_UNROLL
  for (int i = 0; i < 2; ++i) gpu::store_global<uint32_t>(args.fragments_x2 + lane * 2 + i, x2[i]);
}

}  // namespace fskernel::cuda
