// Every instruction of sm_90a that the probe and the kernels to come use, by name, beside those of
// kernel/gpu.h: barriers in shared memory, the copy engine, clusters, products of a warpgroup.
// On other architectures each of them stops the kernel, so that one source compiles for all of
// ARCHS.
#pragma once

#include "../../kernel/gpu.h"

#ifndef __CUDACC__
#error "the emulator knows no instruction of sm_90a yet"
#endif

#include <cuda.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define FS_SM90(...) asm volatile(__VA_ARGS__)
#else
#define FS_SM90(...) __trap()
#endif
#define FS_MAP __grid_constant__ const CUtensorMap

namespace fskernel::gpu {

using Map = CUtensorMap;  // a kernel's argument: FS_MAP map

// ---- who runs

// Dynamic shared memory from a multiple of 1024 on, as swizzled rows want it: ask for 1023 more.
FS_DEVICE Shared dynamic_shared_1024() { return (dynamic_shared() + 1023) & ~1023u; }
FS_DEVICE bool elect() {  // true for one lane of a warp that has arrived whole
  uint32_t yes = 0;
  FS_SM90("{\n\t.reg .pred p;\n\telect.sync _|p, 0xffffffff;\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(
      yes));
  return yes != 0;
}
FS_DEVICE int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }  // known equal in the warp
FS_DEVICE void sync_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Registers of each thread of this warpgroup: given back, asked for.
template <int n>
FS_DEVICE void fewer_registers() {
  FS_SM90("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n));
}
template <int n>
FS_DEVICE void more_registers() {
  FS_SM90("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n));
}
FS_DEVICE void wait_for_previous_launch() { FS_SM90("griddepcontrol.wait;" :: : "memory"); }
FS_DEVICE void let_next_launch_begin() {
  FS_SM90("griddepcontrol.launch_dependents;" :: : "memory");
}

// ---- clocks

FS_DEVICE int64_t clock() { return clock64(); }
FS_DEVICE int64_t nanoseconds() {
  int64_t t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
  return t;
}

// ---- loads that a measurement repeats: none is left out or moved

FS_DEVICE Bytes16 load_past_l1(const void* from) {
  Bytes16 v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from));
  return v;
}
FS_DEVICE Bytes16 load_shared_always(Shared from) {
  Bytes16 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "r"(from));
  return v;
}

// ---- clusters

FS_DEVICE int rank_in_cluster() {
  uint32_t rank = 0;
  FS_SM90("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
FS_DEVICE void sync_cluster() {
  FS_SM90("barrier.cluster.arrive.release.aligned;" :: : "memory");
  FS_SM90("barrier.cluster.wait.acquire.aligned;" :: : "memory");
}
// The address by which this block reaches what lies at the same place in block `rank`.
FS_DEVICE Shared in_block(Shared at, int rank) {
  Shared there = at;
  FS_SM90("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
  return there;
}
FS_DEVICE uint32_t load_cluster(Shared from) {
  uint32_t v = 0;
  FS_SM90("ld.shared::cluster.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}

// ---- barriers in shared memory: 8 bytes, a phase ends when all have arrived and all bytes are
// there

FS_DEVICE void barrier_init(Shared at, int arrivals) {
  FS_SM90("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
// Seen by the copy engine and by the other blocks of the cluster; by them behind sync_cluster().
FS_DEVICE void barrier_init_done() {
  FS_SM90("fence.mbarrier_init.release.cluster;" :: : "memory");
}
FS_DEVICE void barrier_expect(Shared at, int bytes) {  // an arrival, too
  FS_SM90("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at),
          "r"(bytes) : "memory");
}
FS_DEVICE void barrier_arrive(Shared at) {
  FS_SM90("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
FS_DEVICE void barrier_arrive_in_cluster(Shared at) {  // an address of in_block()
  FS_SM90("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(at) : "memory");
}
FS_DEVICE bool barrier_try(Shared at, int parity) {
  uint32_t done = 0;
  FS_SM90(
      "{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;"
      "\n\tselp.u32 %0, 1, 0, p;\n\t}" : "=r"(done) : "r"(at),
      "r"(parity) : "memory");
  return done != 0;
}
FS_DEVICE void barrier_wait(Shared at, int parity) {
  while (!barrier_try(at, parity)) {
  }
}
// False where that phase does not end: a probe must not hang on bytes that never come.
FS_DEVICE bool barrier_wait_a_while(Shared at, int parity) {
  const int64_t end = nanoseconds() + 1000000000;
  while (!barrier_try(at, parity))
    if (nanoseconds() > end) return false;
  return true;
}

// ---- the copy engine

FS_DEVICE void prefetch_map(const Map& map) {
  FS_SM90("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Bytes that lie side by side already; 16 bytes are the unit.
FS_DEVICE void copy_bulk(Shared to, const void* from, int bytes, Shared barrier) {
  FS_SM90(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier) : "memory");
}
// The same to the same place of every block whose bit is set; each one's own barrier counts.
FS_DEVICE void copy_bulk_to(uint16_t blocks, Shared to, const void* from, int bytes,
                            Shared barrier) {
  FS_SM90(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(blocks) : "memory");
}
// The box's pixels from (n, h, w) on, each moved by the tap's offset.
FS_DEVICE void copy_im2col(Shared to, const Map& map, int c, int w, int h, int n, int offset_w,
                           int offset_h, Shared barrier) {
  FS_SM90(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c), "r"(w), "r"(h), "r"(n), "h"(static_cast<uint16_t>(offset_w)),
      "h"(static_cast<uint16_t>(offset_h)) : "memory");
}
FS_DEVICE void copy_im2col_to(uint16_t blocks, Shared to, const Map& map, int c, int w, int h,
                              int n, int offset_w, int offset_h, Shared barrier) {
  FS_SM90(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8}, %9;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c), "r"(w), "r"(h), "r"(n), "h"(static_cast<uint16_t>(offset_w)),
      "h"(static_cast<uint16_t>(offset_h)), "h"(blocks) : "memory");
}
FS_DEVICE void copy_box(Shared to, const Map& map, int c, int w, int h, int n, Shared barrier) {
  FS_SM90(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c), "r"(w), "r"(h), "r"(n) : "memory");
}
FS_DEVICE void store_box(const Map& map, int column, int row, Shared from) {
  FS_SM90("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
          "r"(from), "r"(column), "r"(row) : "memory");
}
FS_DEVICE void stores_commit() { FS_SM90("cp.async.bulk.commit_group;" :: : "memory"); }
FS_DEVICE void stores_read() { FS_SM90("cp.async.bulk.wait_group.read 0;" :: : "memory"); }
FS_DEVICE void stores_done() { FS_SM90("cp.async.bulk.wait_group 0;" :: : "memory"); }
// What this thread stored into shared memory may be read by the copy engine and the tensor core.
FS_DEVICE void fence_async() { FS_SM90("fence.proxy.async.shared::cta;" :: : "memory"); }

// ---- whole warps

// Four matrices of 8 x 8 pairs of bytes, transposed on the way; lane 8i + r gives the address of
// row r of matrix i.
FS_DEVICE void store_matrix_trans_x4(Shared row, const uint32_t (&r)[4]) {
  FS_SM90("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
          "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}
FS_DEVICE void load_matrix_trans_x4(uint32_t (&r)[4], Shared row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// ---- products of a warpgroup (128 threads): m64nNk32 of bytes, A and B both k-major

// Descriptors are 64 bits: start (14 bits of 16 bytes), depth at 16, group at 32, base offset at
// 49, swizzle at 62. Rows of `width` = 128, 64 or 32 bytes, groups of eight rows `group` bytes
// apart:
template <int width>
FS_DEVICE uint64_t swizzled_operand(Shared at, int group) {
  static_assert(width == 128 || width == 64 || width == 32);
  constexpr uint64_t kKind = width == 128 ? 1 : width == 64 ? 2 : 3;
  return uint64_t{(at & 0x3ffff) >> 4} | uint64_t{1} << 16 |
         static_cast<uint64_t>(group >> 4) << 32 | kKind << 62;
}
// Rows of 16 bytes, groups of eight `group` bytes apart, the next 16 bytes of depth `depth`
// further.
FS_DEVICE uint64_t plain_operand(Shared at, int group, int depth) {
  return uint64_t{(at & 0x3ffff) >> 4} | static_cast<uint64_t>(depth >> 4) << 16 |
         static_cast<uint64_t>(group >> 4) << 32;
}
FS_DEVICE void products_begin() { FS_SM90("wgmma.fence.sync.aligned;" :: : "memory"); }
FS_DEVICE void products_commit() { FS_SM90("wgmma.commit_group.sync.aligned;" :: : "memory"); }
template <int kPending>
FS_DEVICE void products_wait() {
  FS_SM90("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Registers that products read or write behind the compiler's back.
template <int n>
FS_DEVICE void pin(Sum (&v)[n]) {
  FS_UNROLL
  for (int i = 0; i < n; ++i) asm volatile("" : "+r"(v[i])::"memory");
}
template <int n>
FS_DEVICE void pin(float (&v)[n]) {
  FS_UNROLL
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(v[i])::"memory");
}

// Lists of registers, "%0, ..., %n-1" and the sums behind them, put together from tens.
#define FS_P2(t) "%" #t "0, %" #t "1"
#define FS_P4(t) FS_P2(t) ", %" #t "2, %" #t "3"
#define FS_P6(t) FS_P4(t) ", %" #t "4, %" #t "5"
#define FS_P10(t) FS_P6(t) ", %" #t "6, %" #t "7, %" #t "8, %" #t "9"
#define FS_P30 FS_P10() ", " FS_P10(1) ", " FS_P10(2)
#define FS_P60 FS_P30 ", " FS_P10(3) ", " FS_P10(4) ", " FS_P10(5)
#define FS_P90 FS_P60 ", " FS_P10(6) ", " FS_P10(7) ", " FS_P10(8)
#define FS_P120 FS_P90 ", " FS_P10(9) ", " FS_P10(10) ", " FS_P10(11)
#define FS_LIST_4 FS_P4()
#define FS_LIST_32 FS_P30 ", " FS_P2(3)
#define FS_LIST_64 FS_P60 ", " FS_P4(6)
#define FS_LIST_96 FS_P90 ", " FS_P6(9)
#define FS_LIST_104 FS_P90 ", " FS_P10(9) ", " FS_P4(10)
#define FS_LIST_112 FS_P90 ", " FS_P10(9) ", " FS_P10(10) ", " FS_P2(11)
#define FS_LIST_120 FS_P120
#define FS_LIST_128 FS_P120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define FS_S4(c, i) c(s[i]), c(s[i + 1]), c(s[i + 2]), c(s[i + 3])
#define FS_S8(c, i) FS_S4(c, i), FS_S4(c, i + 4)
#define FS_S16(c, i) FS_S8(c, i), FS_S8(c, i + 8)
#define FS_S32(c, i) FS_S16(c, i), FS_S16(c, i + 16)
#define FS_S64(c, i) FS_S32(c, i), FS_S32(c, i + 32)
#define FS_SUMS_4(c) FS_S4(c, 0)
#define FS_SUMS_32(c) FS_S32(c, 0)
#define FS_SUMS_64(c) FS_S64(c, 0)
#define FS_SUMS_96(c) FS_S64(c, 0), FS_S32(c, 64)
#define FS_SUMS_104(c) FS_S64(c, 0), FS_S32(c, 64), FS_S8(c, 96)
#define FS_SUMS_112(c) FS_S64(c, 0), FS_S32(c, 64), FS_S16(c, 96)
#define FS_SUMS_120(c) FS_S64(c, 0), FS_S32(c, 64), FS_S16(c, 96), FS_S8(c, 112)
#define FS_SUMS_128(c) FS_S64(c, 0), FS_S64(c, 64)

// Multiply<types, N>: sum = keep*sum + A*B, wrapping. `shared`: A by a descriptor; `registers`:
// byte j of a[i] is row 16*(warp%4) + lane/4 + 8*(i%2), k = 4*(lane%4) + j + 16*(i/2). Sum i of a
// thread is row 16*(warp%4) + lane/4 + 8*(i/2%2), column 8*(i/4) + 2*(lane%4) + i%2.
enum class Types { kU8S8, kS8S8, kS8U8, kU8U8 };  // A, B
template <Types types, int n>
struct Multiply;

// n sums a thread; p0...p5: the numbers of the operands behind them.
#define FS_MULTIPLY(types, ptx, N, n, p0, p1, p2, p3, p4, p5)                                     \
  template <>                                                                                     \
  struct Multiply<Types::types, N> {                                                              \
    static FS_DEVICE void shared(Sum (&s)[n], uint64_t a, uint64_t b, int keep) {                 \
      FS_SM90("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #p2                                        \
              ", 0;\n\twgmma.mma_async.sync.aligned."                                             \
              "m64n" #N "k32.s32." ptx " {" FS_LIST_##n "}, %" #p0 ", %" #p1                      \
                                                        ", p;\n\t}" : FS_SUMS_##n("+r") : "l"(a), \
              "l"(b), "r"(keep));                                                                 \
    }                                                                                             \
    static FS_DEVICE void registers(Sum (&s)[n], const uint32_t (&a)[4], uint64_t b, int keep) {  \
      FS_SM90("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #p5                                        \
              ", 0;\n\twgmma.mma_async.sync.aligned."                                             \
              "m64n" #N "k32.s32." ptx " {" FS_LIST_##n                                           \
              "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4                                \
              ", p;\n\t}" : FS_SUMS_##n("+r") : "r"(a[0]),                                        \
              "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                                \
    }                                                                                             \
  };
#define FS_MULTIPLY_ALL(...)               \
  FS_MULTIPLY(kU8S8, "u8.s8", __VA_ARGS__) \
  FS_MULTIPLY(kS8S8, "s8.s8", __VA_ARGS__) \
  FS_MULTIPLY(kS8U8, "s8.u8", __VA_ARGS__) \
  FS_MULTIPLY(kU8U8, "u8.u8", __VA_ARGS__)
FS_MULTIPLY_ALL(8, 4, 4, 5, 6, 7, 8, 9)
FS_MULTIPLY_ALL(64, 32, 32, 33, 34, 35, 36, 37)
FS_MULTIPLY_ALL(128, 64, 64, 65, 66, 67, 68, 69)
FS_MULTIPLY_ALL(192, 96, 96, 97, 98, 99, 100, 101)
FS_MULTIPLY_ALL(208, 104, 104, 105, 106, 107, 108, 109)
FS_MULTIPLY_ALL(224, 112, 112, 113, 114, 115, 116, 117)
FS_MULTIPLY_ALL(240, 120, 120, 121, 122, 123, 124, 125)
FS_MULTIPLY_ALL(256, 128, 128, 129, 130, 131, 132, 133)
#undef FS_MULTIPLY_ALL
#undef FS_MULTIPLY

// Halves, for comparison: m64n256k16, float sums.
FS_DEVICE void multiply_halves(float (&s)[128], uint64_t a, uint64_t b, int keep) {
  FS_SM90(
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %130, 0;\n\twgmma.mma_async.sync.aligned."
      "m64n256k16.f32.f16.f16 {" FS_LIST_128
      "}, %128, %129, p, 1, 1, 0, 0;\n\t}" : FS_SUMS_128("+f") : "l"(a),
      "l"(b), "r"(keep));
}

}  // namespace fskernel::gpu
