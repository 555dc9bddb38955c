// Which kernels were built, which this processor supports, which one runs.
#pragma once

#include <string>
#include <vector>

#include "tasks.h"

namespace fskernel {

std::vector<const Kernels*> built_kernels();      // in the order of isa/kernels.inc
std::vector<const Kernels*> supported_kernels();  // of those, what this processor can run

// The forced kernels (force_isa, else the environment variable FSKERNEL_ISA), else the newest
// supported. Throws std::invalid_argument if the forced name is unknown or not supported here.
const Kernels& current_kernels();

// Forces an instruction set by name for this process; an empty name returns to the default.
void force_isa(const std::string& name);

// What ran: noted by every operator, asked by tests.
void note_run(const Kernels& kernels, const std::string& what);
void note_run(const std::string& device, const std::string& what);
std::string last_run();
std::vector<std::string> covered_isas();  // instruction sets whose convolution has run

// Multiply-accumulates a second that one core reaches on registers alone, of one Family: the best
// of some runs.
double peak_macs(const Kernels& kernels, int32_t family);

}  // namespace fskernel
