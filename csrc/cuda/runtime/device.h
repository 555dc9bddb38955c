// What there is of CUDA on this machine. Answers everywhere, also where there is no driver.
#pragma once

namespace fskernel::cuda {

struct DeviceState {
  int runtime;      // version of the linked CUDA runtime, 13000 = 13.0
  int driver;       // newest CUDA version that the driver supports; 0 = there is no driver
  int devices;      // GPUs that can be seen
  int error;        // why no GPU was counted, 0 = none
  char words[256];  // the runtime's own words for it
};
DeviceState device_state();

struct DeviceFacts {
  char name[256];
  int major, minor;  // compute capability
  int multiprocessors;
  long long bytes;  // of memory
};
// Returns the runtime's error, 0 = none.
int device_facts(int device, DeviceFacts& facts);

// The runtime's words for an error that a launch returned.
const char* error_text(int error);

}  // namespace fskernel::cuda
