// The launchers of csrc/cuda/runtime/launch.h on pseudo-random cases, against oracles; needs
// neither torch nor Python. On a GPU it is what compute-sanitizer runs; on the emulator, what the
// sanitisers of a host compiler do:
//
//   launch_test [cases] [seed]     ends with 1 at the first failure and prints what repeats it;
//                                  with 2 where there is nothing to run on
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "cases.h"
#include "target.h"

using namespace fskernel::testing;

int main(int argc, char** argv) {
  const long cases = argc > 1 ? std::atol(argv[1]) : 100;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1;
  std::string name;
  try {
    name = target_name();
  } catch (const std::exception& error) {
    std::printf("launch_test: %s\n", error.what());
    return 2;
  }
  struct Part {
    const char* name;
    std::string (*run)(uint64_t);
  };
  const Part parts[] = {{"conv", conv_case},       {"image", image_case},
                        {"conv", conv_case},       {"pool", pool_case},
                        {"conv", conv_case},       {"product", product_case},
                        {"readout", readout_case}, {"synaptic events", events_case}};
  for (long i = 0; i < cases; ++i) {
    const uint64_t number = seed + static_cast<uint64_t>(i);
    const Part& part = parts[number % std::size(parts)];
    std::string wrong;
    try {
      wrong = part.run(number);
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    if (wrong.empty()) continue;
    std::printf("FAILED, %s on %s: %s\nrepeat it: launch_test 1 %llu\n", part.name, name.c_str(),
                wrong.c_str(), static_cast<unsigned long long>(number));
    return 1;
  }
  std::printf("launchers on %s: %ld cases, 0 failed\n", name.c_str(), cases);
  return 0;
}
