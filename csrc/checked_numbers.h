// What Python tells as a list of numbers: a geometry, a halo, a byte map. `name` is the argument's
// name in a message.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "conv_call.h"

namespace fskernel {

namespace checks {

inline Geometry geometry(const std::vector<int64_t>& v, const char* name) {
  FS_CHECK(v.size() == 12, name, " has ", v.size(), " numbers: expected the 12 of ",
           "Geometry.as_ints()");
  static const char* const what[12] = {"kernel height",  "kernel width",  "stride height",
                                       "stride width",   "padding top",   "padding bottom",
                                       "padding left",   "padding right", "dilation height",
                                       "dilation width", "groups",        "pad code"};
  for (int i = 0; i < 12; ++i) {
    const bool padding = i >= 4 && i < 8;
    const int64_t low = i == 11 ? -32768 : padding ? 0 : 1, high = i == 11 ? 32767 : 1 << 24;
    FS_CHECK(v[i] >= low && v[i] <= high, name, ": ", what[i], " is ", v[i],
             ", expected a number from ", low, " to ", high);
  }
  const auto at = [&](int i) { return static_cast<int32_t>(v[i]); };
  return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11)};
}

}  // namespace checks

// top, bottom, left, right, pad code of a halo, and the stored channels. No numbers: no map.
inline Kept kept_as(const std::vector<int64_t>& v, const std::string& name) {
  if (v.empty()) return {};
  FS_CHECK(v.size() == 6, name, " has ", v.size(), " numbers: expected the 6 of a halo");
  for (int i = 0; i < 6; ++i)
    FS_CHECK(v[i] >= (i == 4 ? -32768 : 0) && v[i] <= (i == 4 ? 32767 : 1 << 24), name, ": number ",
             i, " of the halo is ", v[i]);
  FS_CHECK(v[5] % 8 == 0, name, ": ", v[5], " stored channels, expected a multiple of 8");
  const auto at = [&](int i) { return static_cast<int32_t>(v[i]); };
  return {true, at(0), at(1), at(2), at(3), at(4), at(5)};
}

// Codes [images, height, width, channels] of so many bytes each, and whether they are a byte map.
struct CodesShape {
  int64_t images = 0, height = 0, width = 0, channels = 0;
  int32_t bytes = 0;
  Kept kept{};
};

// A byte map's: the sizes, the bytes of a code, and the 6 numbers of its halo.
inline CodesShape map_as(const std::vector<int64_t>& v, const std::string& name) {
  FS_CHECK(v.size() == 11, name, " is a byte map told by ", v.size(), " numbers: expected 11");
  for (int i = 0; i < 5; ++i)
    FS_CHECK(v[i] >= 0 && v[i] < (int64_t{1} << 31) && (i < 4 || v[i] == 1 || v[i] == 2), name,
             ": number ", i, " of the byte map is ", v[i]);
  return {
      v[0], v[1], v[2], v[3], static_cast<int32_t>(v[4]), kept_as({v.begin() + 5, v.end()}, name)};
}

}  // namespace fskernel
