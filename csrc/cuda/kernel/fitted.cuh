// What the membrane of a fitted neuron becomes, and its spikes.
#pragma once

#include "../../neuron.h"
#include "gpu.h"

namespace fskernel::cuda {

// The code, as a whole number that is not clipped yet; its spikes are added to `fired`.
FS_DEVICE float fit(const Fitted& fitted, float v, int& fired) {
  const float *thresholds = fitted.lines, *resets = thresholds + fitted.steps;
  const float* worths = resets + fitted.steps;
  float code = fitted.zero;
  FS_NO_UNROLL
  for (int t = 0; t < fitted.steps; ++t) {
    if (!(v >= gpu::load_readonly(thresholds + t))) continue;
    v = gpu::add(v, -gpu::load_readonly(resets + t));
    code = gpu::add(code, gpu::load_readonly(worths + t));
    ++fired;
  }
  return code;
}

}  // namespace fskernel::cuda
