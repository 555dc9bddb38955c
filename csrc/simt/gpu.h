// Twins of the functions of ../cuda/kernel/gpu.h, for the host: the same names and arguments, and
// behind them the machine that checks. Each takes, last, the place that it is called from.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "machine.h"

#define FS_KERNEL(threads, blocks) inline void
#define FS_DEVICE inline
#define FS_UNROLL
#define FS_NO_UNROLL

namespace fskernel::gpu {

using simt::machine;
using simt::Where;

// ---- who runs

inline int thread() { return machine.current; }
inline int block_threads() { return machine.shape().threads; }
inline int block_x() { return machine.block.x; }
inline int block_y() { return machine.block.y; }
inline int block_z() { return machine.block.z; }
inline int grid_x() { return machine.shape().grid.x; }
inline int grid_y() { return machine.shape().grid.y; }
inline int grid_z() { return machine.shape().grid.z; }

inline void sync_threads(Where where = Where::here()) { machine.barrier(where); }
inline void sync_warp(Where where = Where::here()) {
  int none = 0;
  machine.collective("sync_warp", none, where, [](int**) {}, true);
}

// ---- registers

template <class To, class From>
To bits(From from) {
  return std::bit_cast<To>(from);
}
inline int min(int a, int b) { return std::min(a, b); }
inline int max(int a, int b) { return std::max(a, b); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float multiply(float a, float b) { return a * b; }
inline float add(float a, float b) { return a + b; }
inline float to_float(int x) { return static_cast<float>(x); }
inline float to_float(long long x) { return static_cast<float>(x); }
// The product in float64, rounded once.
inline float scaled(int x, double step) { return static_cast<float>(x * step); }
inline int popcount(uint32_t x) { return std::popcount(x); }
inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t from = uint64_t{b} << 32 | a;
  uint32_t to = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t pick = selector >> 4 * i & 15;
    uint32_t byte = from >> 8 * (pick & 7) & 255;
    if (pick & 8) byte = byte & 128 ? 255 : 0;  // the sign, eight times
    to |= byte << 8 * i;
  }
  return to;
}
inline void keep(uint32_t&) {}
[[noreturn]] inline void trap(Where where = Where::here()) { machine.fail("trap", where); }

struct Sum {
  int32_t wrapped = 0;
  int64_t exact = 0;
};
inline Sum plus(Sum sum, int64_t more) {
  return {static_cast<int32_t>(static_cast<uint32_t>(sum.wrapped) + static_cast<uint32_t>(more)),
          sum.exact + more};
}
inline Sum shift_left(Sum sum, int by) {
  return {static_cast<int32_t>(static_cast<uint32_t>(sum.wrapped) << by),
          sum.exact * (int64_t{1} << by)};
}
inline Sum add_product(Sum sum, int a, int b) { return plus(sum, int64_t{a} * b); }
inline int final_sum(Sum sum, Where where = Where::here()) {
  if (sum.exact != sum.wrapped)
    machine.fail("overflow: the sum is " + std::to_string(sum.exact) + ", and 32 bits say " +
                     std::to_string(sum.wrapped),
                 where);
  return sum.wrapped;
}

template <class A, class B>
int dot4(uint32_t a, uint32_t b) {
  int sum = 0;
  for (int i = 0; i < 32; i += 8) sum += static_cast<A>(a >> i) * static_cast<B>(b >> i);
  return sum;
}
inline Sum dot_u8s8(uint32_t a, uint32_t b, Sum sum) {
  return plus(sum, dot4<uint8_t, int8_t>(a, b));
}
inline Sum dot_s8s8(uint32_t a, uint32_t b, Sum sum) {
  return plus(sum, dot4<int8_t, int8_t>(a, b));
}
inline Sum dot_u8u8(uint32_t a, uint32_t b, Sum sum) {
  return plus(sum, dot4<uint8_t, uint8_t>(a, b));
}
inline Sum dot_s8u8(uint32_t a, uint32_t b, Sum sum) {
  return plus(sum, dot4<int8_t, uint8_t>(a, b));
}

// ---- memory

inline void demand(const std::string& problem, Where where) {
  if (!problem.empty()) machine.fail(problem, where);
}
inline void touch_global(const void* p, int bytes, simt::GlobalMemory::Access kind, Where where) {
  demand(machine.global.access(p, bytes, kind, machine.thread_of_launch()), where);
  if (kind == simt::GlobalMemory::kUpdate) return;
  machine.log.note(
      machine.current,
      kind == simt::GlobalMemory::kWrite ? simt::WarpLog::kStore : simt::WarpLog::kLoad,
      reinterpret_cast<uintptr_t>(p), bytes, where, machine.report);
}

template <class T>
T load_global(const T* from, Where where = Where::here()) {
  touch_global(from, sizeof(T), simt::GlobalMemory::kRead, where);
  return *from;
}
template <class T>
T load_readonly(const T* from, Where where = Where::here()) {
  touch_global(from, sizeof(T), simt::GlobalMemory::kReadOnly, where);
  return *from;
}
template <class T>
void store_global(T* to, T value, Where where = Where::here()) {
  touch_global(to, sizeof(T), simt::GlobalMemory::kWrite, where);
  *to = value;
}
inline void atomic_add(int64_t* to, int64_t value, Where where = Where::here()) {
  touch_global(to, sizeof *to, simt::GlobalMemory::kUpdate, where);
  *to = static_cast<int64_t>(static_cast<uint64_t>(*to) + static_cast<uint64_t>(value));
}

using Shared = uint32_t;

inline Shared dynamic_shared() { return simt::SharedMemory::kBase; }
inline void touch_shared(Shared at, int bytes, Where where) {
  demand(machine.shared.span(at, bytes, bytes), where);
  machine.log.note(machine.current, simt::WarpLog::kShared, at, bytes, where, machine.report);
}
inline void note_read(Shared from, int bytes, Where where) {
  if (machine.options().shadow) demand(machine.shared.read(from, bytes, machine.party()), where);
}
inline void note_may_write(Shared to, int bytes, Where where) {
  if (machine.options().shadow) demand(machine.shared.may_write(to, bytes, machine.party()), where);
}
template <class T>
T load_shared(Shared from, Where where = Where::here()) {
  touch_shared(from, sizeof(T), where);
  note_read(from, sizeof(T), where);
  T value;
  std::memcpy(&value, machine.shared.at(from), sizeof value);
  return value;
}
template <class T>
void store_shared(Shared to, std::type_identity_t<T> value, Where where = Where::here()) {
  touch_shared(to, sizeof(T), where);
  note_may_write(to, sizeof(T), where);
  std::memcpy(machine.shared.at(to), &value, sizeof value);
  machine.shared.written(to, sizeof(T), machine.party());
}
inline void atomic_add_shared(Shared to, uint32_t value, Where where = Where::here()) {
  demand(machine.shared.span(to, 4, 4), where);
  if (machine.options().shadow) demand(machine.shared.may_update(to, 4, machine.party()), where);
  uint32_t sum;
  std::memcpy(&sum, machine.shared.at(to), 4);
  sum += value;
  std::memcpy(machine.shared.at(to), &sum, 4);
  machine.shared.written(to, 4, machine.party(), true);
}

// ---- asynchronous copies

inline void finish(const simt::Copy& copy) {
  uint8_t* to = machine.shared.at(copy.to);
  if (copy.bytes) std::memcpy(to, copy.from, copy.bytes);
  std::memset(to + copy.bytes, 0, copy.zeros);
}
inline void copy_async(Shared to, const void* from, int size, int bytes, Where where) {
  touch_shared(to, size, where);
  note_may_write(to, size, where);
  if (bytes < 0 || bytes > size)
    machine.fail(
        "asynchronous copy of " + std::to_string(bytes) + " of " + std::to_string(size) + " bytes",
        where);
  if (reinterpret_cast<uintptr_t>(from) % size)
    machine.fail("misaligned source of an asynchronous copy", where);
  // A whole one is checked, and counted, as the one access that it is.
  if (bytes == size)
    touch_global(from, size, simt::GlobalMemory::kReadOnly, where);
  else
    for (int i = 0; i < bytes; ++i)
      demand(machine.global.access(static_cast<const uint8_t*>(from) + i, 1,
                                   simt::GlobalMemory::kReadOnly, machine.thread_of_launch()),
             where);
  ++machine.report.copies;
  simt::Thread& me = machine.thread();
  const simt::Copy copy{to, static_cast<const uint8_t*>(from), bytes, size - bytes, me.group};
  if (!machine.options().late_copies) finish(copy);
  if (machine.options().shadow) machine.shared.pend(to, size, machine.current);
  me.copies.push_back(copy);
  me.where = where;
}
inline void copy_async_16(Shared to, const void* from, Where where = Where::here()) {
  copy_async(to, from, 16, 16, where);
}
inline void copy_async_16_reused(Shared to, const void* from, Where where = Where::here()) {
  copy_async(to, from, 16, 16, where);
}
inline void copy_async_16_zero(Shared to, const void* from, int bytes,
                               Where where = Where::here()) {
  copy_async(to, from, 16, bytes, where);
}
inline void copy_async_4_zero(Shared to, const void* from, int bytes, Where where = Where::here()) {
  copy_async(to, from, 4, bytes, where);
}
inline void copy_commit() { ++machine.thread().group; }
template <int kPending>
void copy_wait() {
  simt::Thread& me = machine.thread();
  size_t n = 0;
  for (; n < me.copies.size() && me.copies[n].group < me.group - kPending; ++n) {
    const simt::Copy& copy = me.copies[n];
    if (machine.options().late_copies) finish(copy);
    machine.shared.written(copy.to, copy.bytes + copy.zeros, machine.party());
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<int64_t>(n));
}

// ---- whole warps

template <class T, class From>
T shuffle(const char* what, T value, const From& from, Where where) {
  struct Arguments {
    T in, out;
  } mine{value, value};
  machine.collective(what, mine, where, [&](Arguments** lane) {
    for (int l = 0; l < simt::kLanes; ++l) lane[l]->out = lane[from(l)]->in;
  });
  return mine.out;
}
template <class T>
T shuffle_xor(T value, int lanes, Where where = Where::here()) {
  return shuffle("shuffle_xor", value, [=](int l) { return l ^ lanes; }, where);
}
template <class T>
T shuffle_down(T value, int lanes, Where where = Where::here()) {
  return shuffle(
      "shuffle_down", value, [=](int l) { return l + lanes < simt::kLanes ? l + lanes : l; },
      where);
}
inline uint32_t ballot(bool value, Where where = Where::here()) {
  struct Arguments {
    bool in;
    uint32_t out;
  } mine{value, 0};
  machine.collective("ballot", mine, where, [](Arguments** lane) {
    uint32_t all = 0;
    for (int l = 0; l < simt::kLanes; ++l) all |= uint32_t{lane[l]->in} << l;
    for (int l = 0; l < simt::kLanes; ++l) lane[l]->out = all;
  });
  return mine.out;
}
inline int reduce_add(int value, Where where = Where::here()) {
  struct Arguments {
    int in, out;
  } mine{value, 0};
  machine.collective("reduce_add", mine, where, [](Arguments** lane) {
    uint32_t sum = 0;
    for (int l = 0; l < simt::kLanes; ++l) sum += static_cast<uint32_t>(lane[l]->in);
    for (int l = 0; l < simt::kLanes; ++l) lane[l]->out = static_cast<int>(sum);
  });
  return mine.out;
}

template <int kMatrices>
void load_matrix(uint32_t (&to)[kMatrices], Shared row, Where where) {
  struct Arguments {
    uint32_t* to;
    Shared row;
  } mine{to, row};
  if (machine.lane() < 8 * kMatrices) {  // the other lanes' addresses are not used
    demand(machine.shared.span(row, 16, 16), where);
    note_read(row, 16, where);
  }
  machine.collective("load_matrix", mine, where, [](Arguments** lane) {
    ++machine.report.load_matrix;
    for (int i = 0; i < kMatrices; ++i) {
      int rows_in_bank[8] = {}, most = 0;  // four banks of 4 bytes each
      for (int r = 0; r < 8; ++r)
        most = std::max(most, ++rows_in_bank[lane[8 * i + r]->row / 16 % 8]);
      machine.report.bank_conflicts += most - 1;
      for (int l = 0; l < simt::kLanes; ++l)
        std::memcpy(&lane[l]->to[i], machine.shared.at(lane[8 * i + l / 4]->row) + 4 * (l % 4), 4);
    }
  });
}
inline void load_matrix_x4(uint32_t (&to)[4], Shared row, Where where = Where::here()) {
  load_matrix(to, row, where);
}
inline void load_matrix_x2(uint32_t (&to)[2], Shared row, Where where = Where::here()) {
  load_matrix(to, row, where);
}

template <class A, class B>
void mma(const char* what, Sum (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
         Where where) {
  struct Arguments {
    Sum* sum;
    const uint32_t* a;
    uint32_t b[2];
  } mine{sum, a, {b0, b1}};
  machine.collective(what, mine, where, [](Arguments** lane) {
    ++machine.report.mma;
    alignas(64) int16_t rows[16][32], columns[8][32];
    for (int l = 0; l < simt::kLanes; ++l) {
      const int g = l / 4, t = l % 4;
      for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 4; ++i)
          rows[g + 8 * (i % 2)][4 * t + j + 16 * (i / 2)] = static_cast<A>(lane[l]->a[i] >> 8 * j);
        for (int i = 0; i < 2; ++i)
          columns[g][4 * t + j + 16 * i] = static_cast<B>(lane[l]->b[i] >> 8 * j);
      }
    }
    for (int r = 0; r < 16; ++r)
      for (int c = 0; c < 8; ++c) {
        int product = 0;
        for (int k = 0; k < 32; ++k) product += rows[r][k] * columns[c][k];
        Sum& to = lane[r % 8 * 4 + c / 2]->sum[r / 8 * 2 + c % 2];
        to = plus(to, product);
      }
  });
}
#define FS_MMA(name, A, B)                                                         \
  inline void name(Sum(&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, \
                   Where where = Where::here()) {                                  \
    mma<A, B>(#name, sum, a, b0, b1, where);                                       \
  }
FS_MMA(mma_s8s8, int8_t, int8_t)
FS_MMA(mma_s8u8, int8_t, uint8_t)
FS_MMA(mma_u8s8, uint8_t, int8_t)
FS_MMA(mma_u8u8, uint8_t, uint8_t)
#undef FS_MMA

}  // namespace fskernel::gpu
