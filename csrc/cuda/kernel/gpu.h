// Every GPU instruction that the kernels use, by name. nvcc sees PTX; any other C++20 compiler sees
// twins of the same names that run on the host and check how they are used (../../simt/gpu.h). One
// kernel source serves both. How a kernel is written against this header:
//
//   // thing.cuh: knows neither torch nor the CUDA runtime, holds no inline assembly.
//   #include "gpu.h"
//   namespace fskernel::cuda {
//   struct ThingArgs {          // all a kernel is told: plain data, passed by value
//     const uint8_t* x;
//     int32_t* y;
//     int32_t n;
//   };
//   template <int kBytes>
//   // At most 128 threads, at least 4 blocks on a multiprocessor.
//   FS_KERNEL(128, 4) thing(const ThingArgs args) {
//     const gpu::Shared table = gpu::dynamic_shared();
//     const int i = gpu::block_x() * gpu::block_threads() + gpu::thread();
//     gpu::store_shared<int32_t>(table + 4 * gpu::thread(), i);
//     gpu::sync_threads();
//     if (i < args.n) gpu::store_global<int32_t>(args.y + i, gpu::load_readonly(args.x + i));
//   }
//   }
//
//   in a .cu file:    thing<1><<<grid, 128, shared_bytes, stream>>>(args);
//   in the emulator:  simt::launch({{grid}, 128, shared_bytes}, buffers, options,
//                                  [=] { thing<1>(args); });
//
// Shared memory is dynamic only, addressed by gpu::Shared (bytes, 32 bits), never by a pointer or
// an index: the emulator sees every access. Global memory goes through load_global, load_readonly
// (what no thread of the launch writes), store_global, copy_async and atomic_add. Loads and stores
// take types of 1, 2, 4, 8 or 16 bytes, aligned to their size; Bytes8 and Bytes16 are the wide
// ones. Blocks have one dimension and whole warps. Warp functions are for whole warps that arrive
// together.
#pragma once

#include <cstdint>

namespace fskernel::gpu {

struct alignas(8) Bytes8 {
  uint32_t word[2];
};
struct alignas(16) Bytes16 {
  uint32_t word[4];
};

}  // namespace fskernel::gpu

#ifndef __CUDACC__
#include "../../simt/gpu.h"
#else
#include <cuda_runtime.h>

#define FS_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define FS_DEVICE __device__ __forceinline__
#define FS_UNROLL _Pragma("unroll")
#define FS_NO_UNROLL _Pragma("unroll 1")

namespace fskernel::gpu {

// ---- who runs

FS_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
FS_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
FS_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
FS_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
FS_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
FS_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }
FS_DEVICE int grid_y() { return static_cast<int>(gridDim.y); }
FS_DEVICE int grid_z() { return static_cast<int>(gridDim.z); }

FS_DEVICE void sync_threads() { __syncthreads(); }
FS_DEVICE void sync_warp() { __syncwarp(); }

// ---- registers

template <class To, class From>
FS_DEVICE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

FS_DEVICE int min(int a, int b) { return ::min(a, b); }
FS_DEVICE int max(int a, int b) { return ::max(a, b); }
FS_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FS_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
FS_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
FS_DEVICE float to_float(int x) { return __int2float_rn(x); }
FS_DEVICE float to_float(long long x) { return __ll2float_rn(x); }
// The product in float64, rounded once.
FS_DEVICE float scaled(int x, double step) {
  return __double2float_rn(__dmul_rn(__int2double_rn(x), step));
}
FS_DEVICE int popcount(uint32_t x) { return __popc(x); }
// Byte i of the result is byte (selector >> 4i & 7) of the eight bytes b:a.
FS_DEVICE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}
// Ends the launch with an error that the host is told at its next call.
FS_DEVICE void trap() { __trap(); }
// Keeps the compiler from computing a loop-invariant value anew in every round.
FS_DEVICE void keep(uint32_t& x) { asm volatile("" : "+r"(x)); }

// An int32 sum that may wrap (two's complement) on its way; the emulator carries the exact one
// beside it, and final_sum() there reports a sum that did not come back into range.
using Sum = int;
FS_DEVICE Sum shift_left(Sum sum, int by) {
  return static_cast<int>(static_cast<uint32_t>(sum) << by);
}
FS_DEVICE Sum add_product(Sum sum, int a, int b) {
  return static_cast<int>(static_cast<uint32_t>(sum) +
                          static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}
FS_DEVICE int final_sum(Sum sum) { return sum; }

// sum + a0*b0 + ... + a3*b3, four bytes each; signed or not, as the names say.
FS_DEVICE Sum dot_u8s8(uint32_t a, uint32_t b, Sum sum) {
  asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}
FS_DEVICE Sum dot_s8s8(uint32_t a, uint32_t b, Sum sum) {
  asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}
FS_DEVICE Sum dot_u8u8(uint32_t a, uint32_t b, Sum sum) {
  asm("dp4a.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}
FS_DEVICE Sum dot_s8u8(uint32_t a, uint32_t b, Sum sum) {
  asm("dp4a.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}

// ---- memory

namespace wide {  // the built-in type that moves as many bytes in one instruction
template <class T, int kBytes = sizeof(T)>
struct Move {
  using Type = T;
};
template <class T>
struct Move<T, 8> {
  using Type = uint2;
};
template <class T>
struct Move<T, 16> {
  using Type = uint4;
};
}  // namespace wide

template <class T>
FS_DEVICE T load_global(const T* from) {
  using Type = typename wide::Move<T>::Type;
  return bits<T>(*reinterpret_cast<const Type*>(from));
}
template <class T>
FS_DEVICE T load_readonly(const T* from) {
  using Type = typename wide::Move<T>::Type;
  return bits<T>(__ldg(reinterpret_cast<const Type*>(from)));
}
template <class T>
FS_DEVICE void store_global(T* to, T value) {
  using Type = typename wide::Move<T>::Type;
  *reinterpret_cast<Type*>(to) = bits<Type>(value);
}
// 64 bits, in global memory; nobody waits for the old value.
FS_DEVICE void atomic_add(int64_t* to, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}

using Shared = uint32_t;  // address in shared memory; 32 bits, which the compiler cannot rebuild

FS_DEVICE Shared dynamic_shared() {
  extern __shared__ __align__(128) unsigned char fskernel_shared[];
  return static_cast<uint32_t>(__cvta_generic_to_shared(fskernel_shared));
}
template <class T>
FS_DEVICE T load_shared(Shared from) {
  using Type = typename wide::Move<T>::Type;
  return bits<T>(*static_cast<const Type*>(__cvta_shared_to_generic(from)));
}
template <class T>
FS_DEVICE void store_shared(Shared to, T value) {
  using Type = typename wide::Move<T>::Type;
  *static_cast<Type*>(__cvta_shared_to_generic(to)) = bits<Type>(value);
}
FS_DEVICE void atomic_add_shared(Shared to, uint32_t value) {
  asm volatile("red.shared.add.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}

// ---- copies from global to shared memory that run on while the thread computes

// 16 bytes, past the first-level cache.
FS_DEVICE void copy_async_16(Shared to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// 16 bytes that neighbours will soon read too: through the first-level cache.
FS_DEVICE void copy_async_16_reused(Shared to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// The first `bytes` of 16 (of 4), zeros behind them. With 0 bytes nothing is read.
FS_DEVICE void copy_async_16_zero(Shared to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
FS_DEVICE void copy_async_4_zero(Shared to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
// Closes the group of the copies issued since the last one; groups end in order.
FS_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the last kPending groups of this thread have arrived. Other threads' copies
// are there only behind a barrier that follows.
template <int kPending>
FS_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- whole warps

template <class T>
FS_DEVICE T shuffle_xor(T value, int lanes) {
  return __shfl_xor_sync(0xffffffffu, value, lanes);
}
template <class T>
FS_DEVICE T shuffle_down(T value, int lanes) {
  return __shfl_down_sync(0xffffffffu, value, lanes);
}
FS_DEVICE uint32_t ballot(bool value) { return __ballot_sync(0xffffffffu, value); }
FS_DEVICE int reduce_add(int value) {
  return static_cast<int>(__reduce_add_sync(0xffffffffu, static_cast<uint32_t>(value)));
}

// Matrices of 8 rows of 16 bytes; lane 8i + r gives the address of row r of matrix i. Lane l
// receives bytes 4*(l%4)... of row l/4 of each matrix.
FS_DEVICE void load_matrix_x4(uint32_t (&to)[4], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}
FS_DEVICE void load_matrix_x2(uint32_t (&to)[2], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(row)
               : "memory");
}

// sum += a*b on the tensor core, m16n8k32: a is 16 x 32 bytes, b 32 x 8 bytes stored n by k, sum
// 16 x 8. With g = lane/4 and t = lane%4, byte j of a[i] is row g + 8*(i%2), k = 4t + j + 16*(i/2);
// byte j of b[i] is k = 4t + j + 16*i, column g; sum[i] is row g + 8*(i/2), column 2t + i%2.
// (PTX ISA, "Matrix Fragments for mma.m16n8k32".) Sums wrap.
#define FS_MMA(name, types)                                                             \
  FS_DEVICE void name(Sum(&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." types                         \
                 ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"           \
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));       \
  }
FS_MMA(mma_s8s8, "s8.s8")
FS_MMA(mma_s8u8, "s8.u8")
FS_MMA(mma_u8s8, "u8.s8")
FS_MMA(mma_u8u8, "u8.u8")
#undef FS_MMA

}  // namespace fskernel::gpu
#endif
