// How fast it is. Each kernel repeats one thing on every multiprocessor and writes down its clocks;
// operands are random bytes of the full range, as they draw the power that real ones do.
#include <algorithm>
#include <cmath>
#include <random>

#include "card.h"
#include "hopper.h"

namespace fskernel::probe {
namespace {

struct RateArgs {
  const uint8_t* bytes;  // random
  uint8_t* to;
  int64_t size;
  int32_t rounds;
  int64_t* clocks;  // [blocks][2]: clocks, nanoseconds
  uint32_t* sink;   // never written, but the compiler cannot know
};

class Watch {  // of thread 0, between barriers of the block
 public:
  FS_DEVICE Watch() : clock_(gpu::clock()), time_(gpu::nanoseconds()) {}
  FS_DEVICE void stop(const RateArgs& args) const {
    gpu::sync_threads();
    if (gpu::thread()) return;
    gpu::store_global<int64_t>(args.clocks + 2 * gpu::block_x(), gpu::clock() - clock_);
    gpu::store_global<int64_t>(args.clocks + 2 * gpu::block_x() + 1, gpu::nanoseconds() - time_);
  }

 private:
  int64_t clock_, time_;
};

FS_DEVICE void fill_shared(gpu::Shared shared, const uint8_t* from, int bytes) {
  for (int i = 16 * gpu::thread(); i < bytes; i += 16 * gpu::block_threads())
    gpu::store_shared<gpu::Bytes16>(
        shared + i, gpu::load_readonly(reinterpret_cast<const gpu::Bytes16*>(from + i)));
  gpu::fence_async();
  gpu::sync_threads();
}

// ---- the tensor core: two warpgroups, 64 rows of A each, all of B; rows of 128 bytes

constexpr int kProductThreads = 256, kABytes = 64 * 128, kDepthSteps = 4;

template <int n>
FS_KERNEL(kProductThreads, 1)
products(const RateArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  fill_shared(shared, args.bytes, 2 * kABytes + n * 128);
  const int group = gpu::uniform(gpu::thread() / 128);
  const uint64_t a = gpu::swizzled_operand<128>(shared + group * kABytes, 1024);
  const uint64_t b = gpu::swizzled_operand<128>(shared + 2 * kABytes, 1024);
  gpu::Sum sum[n / 2] = {};
  const Watch watch;
  const auto step = [&] {
    gpu::products_begin();
    FS_UNROLL
    for (int k = 0; k < kDepthSteps; ++k)
      gpu::Multiply<gpu::Types::kS8U8, n>::shared(sum, a + 2 * k, b + 2 * k, 1);
    gpu::products_commit();
  };
  gpu::pin(sum);
  step();
  FS_NO_UNROLL
  for (int i = 1; i < args.rounds; ++i) {
    step();
    gpu::products_wait<1>();
  }
  gpu::products_wait<0>();
  gpu::pin(sum);
  watch.stop(args);
  uint32_t all = 0;
  FS_UNROLL
  for (int i = 0; i < n / 2; ++i) all ^= static_cast<uint32_t>(sum[i]);
  if (args.rounds < 0) gpu::store_global<uint32_t>(args.sink, all);
}

FS_KERNEL(kProductThreads, 1)
half_products(const RateArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  fill_shared(shared, args.bytes, 2 * kABytes + 256 * 128);
  const int group = gpu::uniform(gpu::thread() / 128);
  const uint64_t a = gpu::swizzled_operand<128>(shared + group * kABytes, 1024);
  const uint64_t b = gpu::swizzled_operand<128>(shared + 2 * kABytes, 1024);
  float sum[128] = {};
  const Watch watch;
  const auto step = [&] {
    gpu::products_begin();
    FS_UNROLL
    for (int k = 0; k < kDepthSteps; ++k) gpu::multiply_halves(sum, a + 2 * k, b + 2 * k, 1);
    gpu::products_commit();
  };
  gpu::pin(sum);
  step();
  FS_NO_UNROLL
  for (int i = 1; i < args.rounds; ++i) {
    step();
    gpu::products_wait<1>();
  }
  gpu::products_wait<0>();
  gpu::pin(sum);
  watch.stop(args);
  uint32_t all = 0;
  FS_UNROLL
  for (int i = 0; i < 128; ++i) all ^= gpu::bits<uint32_t>(sum[i]);
  if (args.rounds < 0) gpu::store_global<uint32_t>(args.sink, all);
}

// Eight warps of 16 independent sums; A of four rows and B of four columns in registers.
constexpr int kWarpProducts = 16;

FS_KERNEL(kProductThreads, 1)
warp_products(const RateArgs args) {
  uint32_t a[4][4], b[4][2];
  const auto* from = reinterpret_cast<const uint32_t*>(args.bytes) + 24 * gpu::thread();
  FS_UNROLL
  for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = gpu::load_readonly(from + i);
  FS_UNROLL
  for (int i = 0; i < 8; ++i) b[i / 2][i % 2] = gpu::load_readonly(from + 16 + i);
  gpu::Sum sum[kWarpProducts][4] = {};
  const Watch watch;
  FS_NO_UNROLL
  for (int i = 0; i < args.rounds; ++i) {
    FS_UNROLL
    for (int j = 0; j < kWarpProducts; ++j)
      gpu::mma_u8s8(sum[j], a[j / 4], b[j % 4][0], b[j % 4][1]);
  }
  uint32_t all = 0;
  FS_UNROLL
  for (int j = 0; j < 4 * kWarpProducts; ++j) all ^= static_cast<uint32_t>(sum[j / 4][j % 4]);
  watch.stop(args);
  if (args.rounds < 0) gpu::store_global<uint32_t>(args.sink, all);
}

// ---- the L2 cache: all multiprocessors read all of a buffer that fits, each from another place on

constexpr int kLoadThreads = 1024, kStage = 16384, kStages = 8;

FS_KERNEL(kLoadThreads, 1)
l2_loads(const RateArgs args) {
  const int64_t round = 64 * int64_t{kLoadThreads};  // four loads a thread
  uint32_t all = 0;
  int64_t at = args.size / gpu::grid_x() / round * gpu::block_x() * round;
  const Watch watch;
  FS_NO_UNROLL
  for (int i = 0; i < args.rounds; ++i) {
    FS_UNROLL
    for (int j = 0; j < 4; ++j) {
      const gpu::Bytes16 v =
          gpu::load_past_l1(args.bytes + at + 16 * (j * kLoadThreads + gpu::thread()));
      all ^= v.word[0] ^ v.word[1] ^ v.word[2] ^ v.word[3];
    }
    at += round;
    if (at >= args.size) at = 0;
  }
  watch.stop(args);
  if (args.rounds < 0) gpu::store_global<uint32_t>(args.sink, all);
}

// One thread keeps kStages copies under way. A cluster of two shares them: each block fetches half
// of every stage for both, when both have used what lay there.
template <int cluster>
FS_KERNEL(128, 1)
l2_copies(const RateArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const gpu::Shared full = shared + kStages * kStage, empty = full + 8 * kStages;
  const int rank = cluster == 1 ? 0 : gpu::rank_in_cluster();
  if (gpu::thread() == 0) {
    for (int s = 0; s < kStages; ++s) {
      gpu::barrier_init(full + 8 * s, 1);
      gpu::barrier_init(empty + 8 * s, cluster);
    }
    gpu::barrier_init_done();
  }
  gpu::sync_threads();
  if constexpr (cluster > 1) gpu::sync_cluster();
  const Watch watch;
  if (gpu::thread() == 0) {
    const int64_t stages = args.size / kStage;
    int64_t next = stages / (gpu::grid_x() / cluster) * (gpu::block_x() / cluster);
    const auto fetch = [&](int s) {
      gpu::barrier_expect(full + 8 * s, kStage);
      const uint8_t* from = args.bytes + next * kStage;
      constexpr int kPart = kStage / cluster;
      if constexpr (cluster == 1)
        gpu::copy_bulk(shared + s * kStage, from, kStage, full + 8 * s);
      else
        gpu::copy_bulk_to(3, shared + s * kStage + rank * kPart, from + rank * kPart, kPart,
                          full + 8 * s);
      if (++next == stages) next = 0;
    };
    for (int s = 0; s < kStages; ++s) fetch(s);
    FS_NO_UNROLL
    for (int i = 0; i < args.rounds; ++i) {  // of kStages stages
      FS_NO_UNROLL
      for (int s = 0; s < kStages; ++s) {
        gpu::barrier_wait(full + 8 * s, i & 1);
        if (i + 1 == args.rounds) continue;
        if constexpr (cluster > 1) {
          for (int r = 0; r < cluster; ++r)
            gpu::barrier_arrive_in_cluster(gpu::in_block(empty + 8 * s, r));
          gpu::barrier_wait(empty + 8 * s, i & 1);
        }
        fetch(s);
      }
    }
  }
  watch.stop(args);
  if constexpr (cluster > 1) gpu::sync_cluster();
}

// ---- shared memory: every warp reads 512 bytes side by side

FS_KERNEL(kLoadThreads, 1)
shared_loads(const RateArgs args) {
  constexpr int kBytes = 32768;
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  fill_shared(shared, args.bytes, kBytes);
  uint32_t all = 0;
  int at = 16 * gpu::thread();
  const Watch watch;
  FS_NO_UNROLL
  for (int i = 0; i < args.rounds; ++i) {
    FS_UNROLL
    for (int j = 0; j < 8; ++j) {
      const gpu::Bytes16 v = gpu::load_shared_always(shared + ((at + 4096 * j) & (kBytes - 1)));
      all ^= v.word[0] ^ v.word[1] ^ v.word[2] ^ v.word[3];
    }
    at += 512;
  }
  watch.stop(args);
  if (args.rounds < 0) gpu::store_global<uint32_t>(args.sink, all);
}

// ---- device memory: four 16-byte loads, then four stores

FS_KERNEL(256, 4)
memory_copy(const RateArgs args) {
  const auto* from = reinterpret_cast<const gpu::Bytes16*>(args.bytes);
  auto* to = reinterpret_cast<gpu::Bytes16*>(args.to);
  const int64_t at = int64_t{gpu::block_x()} * 1024 + gpu::thread();
  gpu::Bytes16 v[4];
  FS_UNROLL
  for (int j = 0; j < 4; ++j) v[j] = gpu::load_readonly(from + at + 256 * j);
  FS_UNROLL
  for (int j = 0; j < 4; ++j) gpu::store_global<gpu::Bytes16>(to + at + 256 * j, v[j]);
}

// ---- launches

class Events {
 public:
  Events() {
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  ~Events() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  template <class Work>
  double seconds(const Work& work) {
    check(cudaEventRecord(begin_));
    work();
    check(cudaEventRecord(end_));
    check(cudaEventSynchronize(end_));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_));
    return 1e-3 * ms;
  }

 private:
  cudaEvent_t begin_, end_;
};

// `mask`: bits that may be set.
void fill_random(const OnCard& to, int64_t bytes, uint64_t mask) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> part(static_cast<size_t>(std::min<int64_t>(bytes, 1 << 22)) / 8);
  for (uint64_t& v : part) v = random() & mask;
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(8 * part.size()))
    check(cudaMemcpy(to.as<uint8_t>() + at, part.data(),
                     static_cast<size_t>(std::min<int64_t>(bytes - at, 8 * part.size())),
                     cudaMemcpyHostToDevice));
}

void (*products_of(int n))(RateArgs) {
  switch (n) {
    case 64:
      return &products<64>;
    case 128:
      return &products<128>;
    case 192:
      return &products<192>;
    case 208:
      return &products<208>;
    case 224:
      return &products<224>;
    case 240:
      return &products<240>;
    case 256:
      return &products<256>;
    default:
      throw NoAnswer("no kernel was built for n = " + std::to_string(n));
  }
}

struct Launch {
  void (*kernel)(RateArgs);
  int threads, shared_bytes, cluster;
  double units;  // of a block's round
};
Launch launch_of(const Rate& q) {
  const double macs = 2.0 * 64 * kDepthSteps;  // two warpgroups, times columns and depth
  switch (q.work) {
    case Work::kProducts:
      return {products_of(q.n), kProductThreads, 2 * kABytes + q.n * 128, 1, macs * q.n * 32};
    case Work::kHalfProducts:
      return {&half_products, kProductThreads, 2 * kABytes + 256 * 128, 1, macs * 256 * 16};
    case Work::kWarpProducts:
      return {&warp_products, kProductThreads, 0, 1, 8.0 * kWarpProducts * 16 * 8 * 32};
    case Work::kL2Loads:
      return {&l2_loads, kLoadThreads, 0, 1, 64.0 * kLoadThreads};
    case Work::kL2Copies:
      return {&l2_copies<1>, 128, kStages * (kStage + 16), 1, 1.0 * kStages * kStage};
    case Work::kL2Multicast:
      return {&l2_copies<2>, 128, kStages * (kStage + 16), 2, 1.0 * kStages * kStage};
    default:
      return {&shared_loads, kLoadThreads, 32768, 1, 8.0 * 16 * kLoadThreads};
  }
}

Speed copy_rate(const Rate& q, int sms) {
  size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total));
  int64_t bytes = int64_t{1} << 31;
  while (bytes > int64_t{1} << 24 && 3 * bytes > static_cast<int64_t>(available)) bytes /= 2;
  const OnCard from(bytes, 0x5a), to(bytes);
  const RateArgs args{.bytes = from.as<uint8_t>(),
                      .to = to.as<uint8_t>(),
                      .size = bytes,
                      .rounds = 1,
                      .clocks = nullptr,
                      .sink = nullptr};
  const auto once = [&] { memory_copy<<<static_cast<unsigned>(bytes / 16384), 256>>>(args); };
  Events events;
  events.seconds(once);
  const double first = events.seconds(once);
  const int rounds = static_cast<int>(std::clamp(std::ceil(q.seconds / first), 1.0, 1000.0));
  const double seconds = events.seconds([&] {
    for (int i = 0; i < rounds; ++i) once();
  });
  check(cudaGetLastError());
  return {2.0 * static_cast<double>(bytes) * rounds, seconds, 0, 0, sms};
}

}  // namespace

Speed ask_card(const Rate& q) {
  int sms = 0, l2 = 0;
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  check(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, 0));
  if (q.work == Work::kMemoryCopy) return copy_rate(q, sms);
  const Launch what = launch_of(q);
  const int blocks = sms / what.cluster * what.cluster;
  // A fifth of the cache, in whole megabytes: data may be kept in both of its halves.
  const int64_t size = std::max<int64_t>(l2 / 5 >> 20, 2) << 20;
  const OnCard bytes(size), clocks(int64_t{blocks} * 16), sink(4);
  // Halves below 2: no infinities, no NaN.
  fill_random(bytes, size, q.work == Work::kHalfProducts ? 0xbfffbfffbfffbfff : ~uint64_t{0});
  RateArgs args{.bytes = bytes.as<uint8_t>(),
                .to = nullptr,
                .size = size,
                .rounds = 64,
                .clocks = clocks.as<int64_t>(),
                .sink = sink.as<uint32_t>()};
  Events events;
  const auto run = [&] {
    launch(what.kernel, blocks, what.threads, what.shared_bytes + 1024, what.cluster, args);
  };
  events.seconds(run);
  // Long enough a launch that its begin and end do not count.
  while (args.rounds < 1 << 20 && events.seconds(run) < 0.1 * q.seconds) args.rounds *= 2;
  const int launches =
      static_cast<int>(std::clamp(std::ceil(q.seconds / events.seconds(run)), 1.0, 100.0));
  const double seconds = events.seconds([&] {
    for (int i = 0; i < launches; ++i) run();
  });
  const auto noted = as<int64_t>(clocks.back());
  double clock = 0, time = 0;
  for (int i = 0; i < blocks; ++i)
    clock += static_cast<double>(noted[2 * i]), time += static_cast<double>(noted[2 * i + 1]);
  return {what.units * args.rounds * blocks * launches, seconds, clock / blocks * launches,
          time > 0 ? 1e9 * clock / time : 0, blocks};
}

}  // namespace fskernel::probe
