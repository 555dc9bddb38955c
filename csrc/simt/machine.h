// Who runs when: the blocks of a launch one after the other, the threads of a block in the order
// that the options ask for, and where they must wait for each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <source_location>
#include <string>
#include <vector>

#include "fiber.h"
#include "launch.h"
#include "memory.h"

namespace fskernel::simt {

constexpr int kLanes = 32;

enum class State : uint8_t { kReady, kAtBarrier, kAtWarp, kExited };

struct Copy {
  uint32_t to;
  const uint8_t* from;
  int bytes, zeros;
  int group;
};

struct Thread {
  Fiber fiber;
  State state;
  Where where;               // it waits there
  const char* what;          // and for this
  std::vector<Copy> copies;  // issued and not waited for
  int group;                 // that the next copy belongs to
};

// The warp function in which lanes wait for the others.
struct Meeting {
  uint32_t arrived = 0;
  Where where;
  const char* what = "";
  void* arguments[kLanes];
};

class Machine {
 public:
  Report run(const Shape& shape, const std::vector<Buffer>& buffers, const Options& options,
             const std::function<void()>& kernel) {
    if (shape.threads < kLanes || shape.threads % kLanes || shape.threads > 1024)
      throw Fault("a block of " + std::to_string(shape.threads) +
                  " threads: whole warps, at most 1024 threads");
    shape_ = shape;
    options_ = options;
    kernel_ = &kernel;
    report = {};
    random_.seed(options.seed);
    global.begin(buffers);
    if (static_cast<int>(threads_.size()) < shape.threads) threads_.resize(shape.threads);
    for (block.z = 0; block.z < shape.grid.z; ++block.z)
      for (block.y = 0; block.y < shape.grid.y; ++block.y)
        for (block.x = 0; block.x < shape.grid.x; ++block.x) run_block();
    return report;
  }

  // ---- what the running thread asks

  int current = -1;
  Grid block{};
  SharedMemory shared;
  GlobalMemory global;
  Report report{};

  const Shape& shape() const { return shape_; }
  const Options& options() const { return options_; }
  int lane() const { return current % kLanes; }
  Thread& thread() { return threads_[current]; }
  // Of all threads of the launch.
  int64_t thread_of_launch() const {
    return ((int64_t{block.z} * shape_.grid.y + block.y) * shape_.grid.x + block.x) *
               shape_.threads +
           current;
  }
  Party party() const { return {current, epoch_, warp_epoch_[current / kLanes]}; }

  [[noreturn]] void fail(const std::string& what, Where where) const {
    throw Fault(text(where) + ": thread " + std::to_string(current) + " of block (" +
                std::to_string(block.x) + "," + std::to_string(block.y) + "," +
                std::to_string(block.z) + "): " + what);
  }

  void barrier(Where where) {
    if (at_barrier_ && !same(where, barrier_where_))
      fail("barrier divergence: other threads wait at " + text(barrier_where_), where);
    barrier_where_ = where;
    ++at_barrier_;
    wait(State::kAtBarrier, "barrier", where);
  }

  // All lanes of the warp bring their arguments; the last one calls meet(arguments of all lanes).
  template <class Arguments, class Meet>
  void collective(const char* what, Arguments& arguments, Where where, const Meet& meet,
                  bool orders_memory = false) {
    const int warp = current / kLanes;
    Meeting& m = meetings_[warp];
    if (!m.arrived) {
      m.where = where;
      m.what = what;
    } else if (!same(m.where, where) || m.what != what) {
      fail(std::string("warp divergence: ") + what + " while other lanes wait for " + m.what +
               " at " + text(m.where),
           where);
    }
    m.arguments[lane()] = &arguments;
    m.arrived |= 1u << lane();
    if (m.arrived != 0xffffffffu) return wait(State::kAtWarp, what, where);
    meet(reinterpret_cast<Arguments**>(m.arguments));
    m.arrived = 0;
    log.meet(warp, report);
    if (orders_memory) ++warp_epoch_[warp];
    for (int l = 0; l < kLanes; ++l)
      if (l != lane()) make_ready(warp * kLanes + l);
  }

 private:
  void wait(State state, const char* what, Where where) {
    Thread& me = thread();
    me.state = state;
    me.what = what;
    me.where = where;
    --ready_;
    me.fiber.leave();
  }
  void make_ready(int i) {
    threads_[i].state = State::kReady;
    ++ready_;
  }

  static void entry();

  void run_thread() {
    try {
      (*kernel_)();
      if (!thread().copies.empty())
        fail("exits while its asynchronous copies are in flight", thread().where);
    } catch (const std::exception& e) {
      fault_ = e.what();
    }
    thread().state = State::kExited;
    --ready_;
    ++exited_;
  }

  // Resumes every lane of the warp that can run, once. Returns whether any could.
  bool round(int warp, int first, int step) {
    bool ran = false;
    for (int i = 0, l = first; i < kLanes; ++i, l = (l + step) % kLanes) {
      current = warp * kLanes + l;
      if (thread().state != State::kReady) continue;
      thread().fiber.resume();
      if (!fault_.empty()) throw Fault(fault_);
      ran = true;
    }
    return ran;
  }

  void run_block() {
    const int n = shape_.threads, warps = n / kLanes;
    ++report.blocks;
    shared.begin(shape_.shared_bytes, options_.poison);
    log.begin(warps);
    meetings_.assign(warps, Meeting{});
    warp_epoch_.assign(warps, 1);
    epoch_ = 1;
    ready_ = n;
    at_barrier_ = exited_ = 0;
    fault_.clear();
    for (int i = 0; i < n; ++i) {
      Thread& t = threads_[i];
      t.state = State::kReady;
      t.what = "";
      t.where = Where();
      t.copies.clear();
      t.group = 0;
      t.fiber.start(&Machine::entry);
    }
    while (exited_ < n) {
      while (ready_) sweep(warps);
      if (exited_ == n) break;
      if (at_barrier_ != n) deadlock();
      at_barrier_ = 0;
      ++epoch_;
      ++report.barriers;
      for (int i = 0; i < n; ++i) make_ready(i);
      for (int w = 0; w < warps; ++w) log.meet(w, report);
    }
    for (int w = 0; w < warps; ++w) log.meet(w, report);
  }

  void sweep(int warps) {
    switch (options_.order) {
      case Order::kForward:
        for (int w = 0; w < warps; ++w) round(w, 0, 1);
        break;
      case Order::kReverse:
        for (int w = warps - 1; w >= 0; --w) round(w, kLanes - 1, kLanes - 1);
        break;
      case Order::kGreedy:
        for (int w = warps - 1; w >= 0; --w)
          while (round(w, 0, 1)) {
          }
        break;
      case Order::kRandom: {
        const int w = static_cast<int>(random_() % warps);
        const int step = static_cast<int>(random_() % 16) * 2 + 1;  // odd: meets every lane
        for (int more = static_cast<int>(random_() % 64); more >= 0; --more)
          if (!round(w, static_cast<int>(random_() % kLanes), step)) break;
      }
    }
  }

  [[noreturn]] void deadlock() const {
    std::string s = "divergence in block (" + std::to_string(block.x) + "," +
                    std::to_string(block.y) + "," + std::to_string(block.z) + "):";
    std::string place;
    for (int i = 0; i < shape_.threads; ++i) {
      const Thread& t = threads_[i];
      const bool waits = t.state != State::kExited;
      if (waits && place.empty()) place = text(t.where);
      if (i && t.state == threads_[i - 1].state &&
          (!waits || (same(t.where, threads_[i - 1].where) && t.what == threads_[i - 1].what)))
        continue;
      s += " from thread " + std::to_string(i) + " on " +
           (waits ? std::string("wait for ") + t.what + " at " + text(t.where) : "exited") + ";";
    }
    throw Fault(place + ": " + s);
  }

 public:
  WarpLog log;

 private:
  Shape shape_{};
  Options options_{};
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Meeting> meetings_;
  std::vector<uint32_t> warp_epoch_;
  uint32_t epoch_ = 1;
  int ready_ = 0, at_barrier_ = 0, exited_ = 0;
  Where barrier_where_;
  std::string fault_;
  std::mt19937_64 random_;
};

// One launch at a time: kernels reach the machine through free functions.
inline Machine machine;

inline void Machine::entry() {
  Fiber::entered();
  machine.run_thread();
  machine.thread().fiber.leave_for_good();
}

inline Report launch(const Shape& shape, const std::vector<Buffer>& buffers, const Options& options,
                     const std::function<void()>& kernel) {
  return machine.run(shape, buffers, options, kernel);
}

}  // namespace fskernel::simt
