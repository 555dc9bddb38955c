#include "../any_conv.h"
#include "launch.h"
#include "stream.h"

namespace fskernel::cuda {

int launch_conv(const ConvCall& call, const PackHeader (&headers)[2], uint8_t* scratch,
                const std::string& kernel, const Where& where, const char*& name) {
  Stream device = on(where);
  return run_conv(device, call, headers, scratch, kernel, name);
}

int64_t conv_scratch_bytes(const ConvCall& call, const PackHeader (&headers)[2],
                           const std::string& kernel) {
  return conv_scratch(call, headers, kernel);
}

}  // namespace fskernel::cuda
