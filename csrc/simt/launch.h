// The emulator: runs a kernel of ../cuda on the host, one fiber a thread, to judge it, not to be
// fast.
//
//   Report r = launch({{grid_x, grid_y}, threads, shared_bytes}, buffers, options,
//                     [=] { kernel(args); });
//
// throws a Fault that names file, line, thread and block where a kernel
//   - reads or writes outside shared memory or outside the buffers of global memory it was given,
//     writes one that is read-only, or misses the alignment of an access;
//   - reads shared memory that was never written;
//   - races in shared memory: an access that no barrier (within a warp: no sync_warp) orders after
//     a conflicting one of another thread, or that meets an asynchronous copy not yet waited for;
//   - races in global memory: a byte is written by one thread and touched by another, atomics
//     aside, or read as read-only and written;
//   - diverges: lanes of a warp meet in different warp functions, threads in different barriers, or
//     some of them have exited;
//   - exits while its asynchronous copies are in flight;
//   - ends a sum that does not fit 32 bits (on its way it may wrap).
// Threads run in one of four orders; asynchronous copies arrive at once or only when waited for.
// Shared memory starts poisoned. Bank conflicts and the 32-byte sectors of global accesses are
// counted.
//
// What it cannot see: whether the PTX behind a name in ../cuda/kernel/gpu.h does what its twin here
// does; time, registers and caches; weak memory order. Blocks run one after the other, so a wait
// for another block would hang. Threads of a block that exchange data through global memory are
// reported even where a barrier orders them. Bytes of a sum or an address kept in registers are not
// tracked. Blocks have one dimension; sub-warp masks, textures, clusters, wgmma and TMA do not
// exist.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace fskernel::simt {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order {
  kForward,  // warps and lanes in turn
  kReverse,
  kRandom,  // a random warp runs for a random while
  kGreedy,  // a warp runs until it must wait for others, the last one first
};

struct Options {
  Order order = Order::kForward;
  uint64_t seed = 1;
  bool late_copies = true;  // asynchronous copies arrive when they are waited for; else at once
  uint8_t poison = 0xa5;
  bool shadow = true;  // races and uninitialised reads of shared memory
};

struct Grid {
  int x = 1, y = 1, z = 1;
};

struct Shape {
  Grid grid;
  int threads;
  int shared_bytes = 0;
};

// A stretch of global memory that the kernel may touch.
struct Buffer {
  std::string name;
  const void* data;
  int64_t bytes;
  bool writable = false;
};

template <class T>
Buffer reads(std::string name, const std::vector<T>& v) {
  return {std::move(name), v.data(), static_cast<int64_t>(v.size() * sizeof(T)), false};
}
template <class T>
Buffer writes(std::string name, std::vector<T>& v) {
  return {std::move(name), v.data(), static_cast<int64_t>(v.size() * sizeof(T)), true};
}

// Counted over all blocks; accesses in warps' instructions, not in threads'.
struct Report {
  int64_t blocks, barriers, mma, load_matrix;
  int64_t copies;                      // asynchronous ones, of threads
  int64_t bank_conflicts;              // passes through shared memory beyond what the bytes need
  int64_t load_sectors, load_bytes;    // 32-byte sectors that global loads touch, copies included
  int64_t store_sectors, store_bytes;  // and stores
};

// Defined in machine.h, which whatever a kernel includes brings.
Report launch(const Shape& shape, const std::vector<Buffer>& buffers, const Options& options,
              const std::function<void()>& kernel);

}  // namespace fskernel::simt
