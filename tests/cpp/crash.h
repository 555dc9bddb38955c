// A program that dies says what it was doing.
#pragma once

#include <string>

namespace fskernel::testing {

// From now on: on a crash, an abort or a sanitiser's error, print what doing() was told last.
void report_crashes();
void doing(const std::string& line);

}  // namespace fskernel::testing
