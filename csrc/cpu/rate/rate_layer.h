// Layers of rate-coded integrate-and-fire neurons on batches of spike trains: up to 8 time steps of
// a neuron are one byte, bit s = step s.
#pragma once

#include <string>

#include "../../conv_call.h"
#include "../executor.h"
#include "rows.h"

namespace fskernel {

// How the sums of a layer are computed: by whichever is expected to be faster for the spikes that
// it gets, by dense multiplications, or spike by spike.
enum class RatePath { kAuto, kDense, kEvents };

struct RateCall {
  // K = 1. Inputs and residual are spike trains, uint8; y, too; the membranes are conv.membrane.
  ConvCall conv;
  int32_t steps;
  RatePath path;
  const uint8_t* rows[2];  // of checked rows, header included; null: only the dense path
  int64_t* counts;         // [steps][images], zeroed by the caller
};

// Whether positions in a list of all neurons of an image, in all steps, have 32 bits.
bool listable(const RateCall& call);

// Returns what ran.
std::string integrate_and_fire(const Kernels& kernels, const RateCall& call,
                               const Executor& executor);

// Neurons with the same current at every step; float [images][size] each, and their spikes.
struct ConstantCall {
  const float* current;
  float* membrane;
  uint8_t* y;
  int64_t images, size;
  int32_t steps;
  int64_t* counts;  // [steps][images], zeroed by the caller
};
void integrate_and_fire(const Kernels& kernels, const ConstantCall& call, const Executor& executor);

// A max-pool of spikes, which passes on those of the input that has fired most; updates totals.
struct GateCall {
  const uint8_t* x;
  int32_t* totals;
  uint8_t* y;
  int64_t images, height, width, channels;
  Geometry geometry;
  int32_t steps;
};
void gate_pool(const Kernels& kernels, const GateCall& call, const Executor& executor);

}  // namespace fskernel
