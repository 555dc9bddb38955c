// The card as one that answers, and the questions about a warp's registers.
#include "../../kernel/probe.cuh"
#include "card.h"
#include "hopper.h"

namespace fskernel::probe {
namespace {

struct TransposedArgs {
  const uint32_t* registers;  // [32][4]; of a store
  const uint8_t* memory;
  const uint32_t* row;
  uint32_t* loaded;  // [32][4]
  uint8_t* stored;
  bool store;
};
constexpr int kMatrixBytes = 1024;

FS_KERNEL(32, 1)
transposed(const TransposedArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared();
  const int lane = gpu::thread();
  for (int i = lane; i < kMatrixBytes; i += 32)
    gpu::store_shared<uint8_t>(shared + i, gpu::load_readonly(args.memory + i));
  gpu::sync_threads();
  const gpu::Shared row = shared + gpu::load_readonly(args.row + lane);
  uint32_t r[4];
  FS_UNROLL
  for (int i = 0; i < 4; ++i) r[i] = gpu::load_readonly(args.registers + lane * 4 + i);
  if (args.store)
    gpu::store_matrix_trans_x4(row, r);
  else
    gpu::load_matrix_trans_x4(r, row);
  gpu::sync_threads();
  FS_UNROLL
  for (int i = 0; i < 4; ++i) gpu::store_global<uint32_t>(args.loaded + lane * 4 + i, r[i]);
  for (int i = lane; i < kMatrixBytes; i += 32)
    gpu::store_global<uint8_t>(args.stored + i, gpu::load_shared<uint8_t>(shared + i));
}

}  // namespace

Bytes ask_card(const Fragments& q) {
  const OnCard x(q.x), w(q.w), memory(q.memory), row(q.row);
  const int64_t sums = 4 * 32 * 4 * 4, x4 = 32 * 4 * 4, x2 = 32 * 2 * 4;
  const OnCard answer(sums + x4 + x2);
  uint8_t* at = answer.as<uint8_t>();
  const cuda::ProbeArgs args{x.as<uint32_t>(),
                             w.as<uint32_t>(),
                             memory.as<uint8_t>(),
                             row.as<uint32_t>(),
                             reinterpret_cast<int32_t*>(at),
                             reinterpret_cast<uint32_t*>(at + sums),
                             reinterpret_cast<uint32_t*>(at + sums + x4)};
  launch(&cuda::probe, 1, 32, cuda::kProbeBytes, 1, args);
  return answer.back();
}

Bytes ask_card(const Transposed& q) {
  const OnCard registers(q.store ? q.registers : std::vector<uint32_t>(128));
  const OnCard memory(q.store ? Bytes(kMatrixBytes, 0xa5) : q.memory), row(q.row);
  const OnCard loaded(32 * 4 * 4), stored(kMatrixBytes);
  const TransposedArgs args{registers.as<uint32_t>(), memory.as<uint8_t>(), row.as<uint32_t>(),
                            loaded.as<uint32_t>(),    stored.as<uint8_t>(), q.store};
  launch(&transposed, 1, 32, kMatrixBytes, 1, args);
  return q.store ? stored.back() : loaded.back();
}

namespace {

class Card : public Machine {
 public:
  Facts facts() override {
    cudaDeviceProp p;
    check(cudaGetDeviceProperties(&p, 0));
    Facts f{.name = p.name, .arch = 10 * p.major + p.minor, .sms = p.multiProcessorCount};
    f.l2_bytes = p.l2CacheSize;
    f.memory_bytes = static_cast<int64_t>(p.totalGlobalMem);
    check(cudaDriverGetVersion(&f.driver));
    check(cudaRuntimeGetVersion(&f.runtime));
    check(cudaDeviceGetAttribute(&f.clock_khz, cudaDevAttrClockRate, 0));
    check(cudaDeviceGetAttribute(&f.memory_clock_khz, cudaDevAttrMemoryClockRate, 0));
    return f;
  }
  Bytes ask(const Fragments& q) override { return ask_card(q); }
  Bytes ask(const Transposed& q) override { return ask_card(q); }
  Bytes ask(const Product& q) override { return ask_card(q); }
  Bytes ask(const Im2col& q) override { return ask_card(q); }
  Bytes ask(const Box& q) override { return ask_card(q); }
  Bytes ask(const StoreBox& q) override { return ask_card(q); }
  Bytes ask(const Bulk& q) override { return ask_card(q); }
  Bytes ask(const Remote& q) override { return ask_card(q); }
  Speed ask(const Rate& q) override { return ask_card(q); }
};

}  // namespace

std::unique_ptr<Machine> card() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess)
    throw NoAnswer(std::string("there is no GPU: ") + cudaGetErrorString(error));
  if (!count) throw NoAnswer("there is no GPU");
  return std::make_unique<Card>();
}

}  // namespace fskernel::probe
