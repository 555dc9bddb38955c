// One time step of a rate-coded integrate-and-fire neuron with reset by subtraction.
#pragma once

#include "gpu.h"

namespace fskernel::cuda {

// Adds the step's input current to the membrane u, in units of the threshold. Returns the spike.
FS_DEVICE int integrate_and_fire(float& u, float current) {
  u = gpu::add(u, current);
  const int spike = u >= 1.0f;
  if (spike) u = gpu::add(u, -1.0f);
  return spike;
}

}  // namespace fskernel::cuda
