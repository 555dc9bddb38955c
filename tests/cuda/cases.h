// One random case each: what is wrong, or an empty string. Oracles: csrc/reference.h and
// tests/cpp/oracles.h.
#pragma once

#include <cstdint>
#include <string>

namespace fskernel::testing {

inline std::string differs(const char* what, int64_t i, double got, double wanted) {
  return std::string(what) + " " + std::to_string(i) + " is " + std::to_string(got) +
         ", expected " + std::to_string(wanted);
}

std::string conv_case(uint64_t seed);   // FS, graded and rate-coded layers, dense and byte maps
std::string image_case(uint64_t seed);  // encoder, into a tensor and into the map of a layer
std::string pool_case(uint64_t seed);
std::string product_case(uint64_t seed);
std::string readout_case(uint64_t seed);
std::string events_case(uint64_t seed);

}  // namespace fskernel::testing
