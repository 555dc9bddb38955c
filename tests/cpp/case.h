// A test case: inputs, what the kernels shall make of them, and the comparison.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bytes.h"
#include "cpu/executor.h"
#include "cpu/tasks.h"
#include "memory.h"

namespace fskernel::testing {

// What all kinds read first.
struct Setting {
  explicit Setting(Bytes& b)
      : random{b.number(4)},
        environment(static_cast<int>(random.state % kEnvironments)),
        edge{!b.chance(40), b.in(0, 7)},
        threads(b.pick({1, 3})) {}
  Random random;  // for the data
  // The caller's floating-point environment, which must not matter: 0 = the usual one, else a
  // rounding mode, from 4 on with denormals flushed.
  int environment;
  static constexpr int kEnvironments = 8;
  bool flushes() const { return environment >= kEnvironments / 2; }
  Edge edge;
  int threads;
  // One thread, or "threads" that take their ranges in reverse order.
  Executor executor() const;
};

class Case {
 public:
  explicit Case(Bytes& b) : setting_(b) {}
  virtual ~Case() = default;
  virtual std::string describe() const = 0;
  // Runs it on memory at the edge of forbidden pages; returns what went wrong, or nothing.
  virtual std::string run(const Kernels& kernels) const = 0;
  const Setting& setting() const { return setting_; }

 protected:
  Setting setting_;
};

// A byte string that is long enough for every case, different for every seed.
std::vector<uint8_t> random_bytes(uint64_t seed);

// The case that a byte string stands for. They are all of about the same size, some milliseconds of
// the oracle.
std::unique_ptr<Case> decode(Bytes& bytes);

// The kinds of cases: conv_case.cpp, plan_case.cpp, pool_readout_encode_case.cpp.
std::unique_ptr<Case> conv_case(Bytes& bytes);
std::unique_ptr<Case> plan_case(Bytes& bytes);
std::unique_ptr<Case> pool_case(Bytes& bytes);
std::unique_ptr<Case> encode_case(Bytes& bytes);
std::unique_ptr<Case> floats_case(Bytes& bytes);
std::unique_ptr<Case> product_case(Bytes& bytes);
std::unique_ptr<Case> readout_case(Bytes& bytes);
std::unique_ptr<Case> events_case(Bytes& bytes);

// Runs a case on these kernels, in its environment. Returns what went wrong, with the description,
// or nothing.
std::string check(const Case& test, const Kernels& kernels);

// A fault to plant in every case behind the kernel's back, so that a test can see it reported.
enum class Plant { kNone, kWrong, kRead, kWrite };
extern Plant plant;
// Called by every case with its output, between the kernel and the comparison.
void plant_fault(uint8_t* output, int64_t bytes);

// printf into a string.
__attribute__((format(printf, 1, 2))) std::string text(const char* format, ...);

}  // namespace fskernel::testing
