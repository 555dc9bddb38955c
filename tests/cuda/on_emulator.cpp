// The emulator behind csrc/cuda/runtime/launch.h.
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "cuda/any_conv.h"
#include "cuda/pool_readout_encode_launch.h"
#include "cuda/tensor_make.h"
#include "simt/device.h"
#include "target.h"

namespace fskernel {
namespace {

simt::Device emulator;

}  // namespace

namespace cuda {

int launch_conv(const ConvCall& call, const PackHeader (&headers)[2], uint8_t* scratch,
                const std::string& kernel, const Where&, const char*& name) {
  return run_conv(emulator, call, headers, scratch, kernel, name);
}
int64_t conv_scratch_bytes(const ConvCall& call, const PackHeader (&headers)[2],
                           const std::string& kernel) {
  return conv_scratch(call, headers, kernel);
}
int launch_pool(const PoolCall& call, const Where&) { return run_pool(emulator, call); }
int launch_product(const ProductCall& call, const Where&) { return run_product(emulator, call); }
int launch_encode(const EncodeCall& call, const Where&) { return run_encode(emulator, call); }
int launch_readout(const ReadoutCall& call, const Where&) { return run_readout(emulator, call); }
int launch_events(const EventCall& call, const Where&) { return run_events(emulator, call); }

}  // namespace cuda

namespace testing {

// A fault leaves its fiber as an exception, and the other fibers where they are.
bool faults_arrive() {
  for (int order = 0; order < 4; ++order) {
    try {
      simt::Options options;
      options.order = static_cast<simt::Order>(order);
      simt::launch({{}, 64, 256}, {}, options, [] {
        if (gpu::thread() >= 7) gpu::sync_threads();
        gpu::load_shared<int>(gpu::dynamic_shared());
      });
      return false;
    } catch (const simt::Fault&) {
    }
  }
  return true;
}

std::string target_name() {
  if (!faults_arrive()) throw std::runtime_error("the emulator does not report a broken kernel");
  return "the emulator";
}

Target::Target(uint64_t seed) {
  simt::Options options;
  options.order = static_cast<simt::Order>(seed % 4);
  options.late_copies = seed / 4 % 2;
  options.seed = seed;
  emulator = simt::Device(options, seed / 8 % 2 ? 132 : 1);
}
Target::~Target() {
  for (void* p : held_) std::free(p);
}

uint8_t* Target::take(const char* name, int64_t n, const void* from) {
  void* p = nullptr;
  if (posix_memalign(&p, 256, n ? n : 1)) std::abort();
  held_.push_back(p);
  if (from && n)
    std::memcpy(p, from, n);
  else
    std::memset(p, 0xcd, n);
  emulator.knows({name, p, n, from == nullptr});
  return static_cast<uint8_t*>(p);
}
uint8_t* Target::take_state(const char* name, int64_t n, const void* from) {
  uint8_t* p = take(name, n);
  if (n) std::memcpy(p, from, n);
  return p;
}

void Target::read(const void* from, void* to, int64_t n) {
  if (n) std::memcpy(to, from, n);
}
void Target::check(int error) const {
  if (error) throw std::runtime_error("error " + std::to_string(error));
}
cuda::Where Target::where() const { return {0, nullptr}; }

}  // namespace testing
}  // namespace fskernel
