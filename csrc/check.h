// How what others pass is refused: std::invalid_argument, a ValueError in Python.
#pragma once

#include <sstream>
#include <stdexcept>

#define FS_CHECK(condition, ...) \
  if (!(condition)) ::fskernel::checks::fail(__VA_ARGS__)

namespace fskernel::checks {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

}  // namespace fskernel::checks
