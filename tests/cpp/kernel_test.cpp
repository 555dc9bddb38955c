// Every kernel that was built and runs here against plain loops, over pseudo-random cases that are
// ragged on purpose and over extreme values. Needs neither torch nor Python.
//
//   kernel_test [cases] [seed] [isa]     case number i of a seed is the same on every machine
//   kernel_test 1 SEED ISA               repeats the failure that was printed
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

#include "case.h"
#include "cpu/dispatch.h"
#include "crash.h"
#include "neuron.h"

using namespace fskernel;

namespace {

// The neuron's closed form is its loop: at every threshold, a few floats around it, and far away.
bool neuron_agrees() {
  const auto same = [](float v, int K) {
    return fskernel::fire(v, std::ldexp(1.0f, K) - 1) == fire_loop(v, K);
  };
  for (int K = 1; K <= 15; ++K) {
    for (int32_t code = -2; code <= (1 << K) + 2; ++code) {
      float below = static_cast<float>(code), above = below;
      for (int ulp = 0; ulp < 4; ++ulp) {
        if (!same(below, K) || !same(above, K)) return false;
        below = std::nextafter(below, -INFINITY);
        above = std::nextafter(above, INFINITY);
      }
    }
    for (const float v : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY, 3e38f,
                          -3e38f, 1e-42f, -1e-42f, 2147483648.0f, 4294967296.0f})
      if (!same(v, K)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 200;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1;
  const std::string only = argc > 3 ? argv[3] : "";
  bool any = false;
  int failures = 0;
  testing::report_crashes();
  if (!neuron_agrees()) {
    std::printf("FAILED: the neuron's closed form differs from its loop\n");
    ++failures;
  }
  for (const Kernels* kernels : built_kernels()) {
    if (!only.empty() && only != kernels->name) continue;
    if (!kernels->supported()) {
      std::printf("%-20s built, but this processor does not support it\n", kernels->name);
      continue;
    }
    any = true;
    long failed = 0;
    for (long i = 0; i < cases; ++i) {
      const std::string repeat =
          "repeat with: kernel_test 1 " + std::to_string(seed + i) + " " + kernels->name;
      testing::doing(repeat);
      const std::vector<uint8_t> string = testing::random_bytes(seed + i);
      testing::Bytes bytes(string.data(), string.size());
      const std::string wrong = testing::check(*testing::decode(bytes), *kernels);
      if (wrong.empty()) continue;
      ++failed;
      std::printf("FAILED %s: %s\n  %s\n", kernels->name, wrong.c_str(), repeat.c_str());
      if (failed == 5) break;
    }
    std::printf("%-20s %ld cases, %ld failed\n", kernels->name, cases, failed);
    std::fflush(stdout);
    failures += failed > 0;
  }
  if (!any) std::printf("no kernel named '%s' runs here\n", only.c_str());
  return failures || !any;
}
