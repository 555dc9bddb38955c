// Small kernels that keep the rules of the emulator or break one; test_simt.py knows which. A line
// that is to be named by the fault ends in: // HERE
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cuda/kernel/gpu.h"
#include "simt/launch.h"

namespace fskernel::testing {
namespace {

namespace py = pybind11;
using gpu::Shared;

// What a kernel may touch: read-only, and writable, global memory.
struct Globals {
  alignas(32) int32_t in[256];
  alignas(32) int32_t between;  // an access that misses one shall not hit the next
  alignas(32) int32_t out[256];
  int64_t total;
};

struct Rule {
  int threads, shared_bytes;
  std::function<void(Globals&)> kernel;
  int blocks = 1;
};

int id() { return gpu::thread(); }
int first_lanes(int n) { return id() % 32 < n; }
Shared at(int word) { return gpu::dynamic_shared() + 4 * word; }
int read(int word, simt::Where where = simt::Where::here()) {
  return gpu::load_shared<int>(at(word), where);
}
void write(int word, int value, simt::Where where = simt::Where::here()) {
  gpu::store_shared<int>(at(word), value, where);
}

const std::map<std::string, Rule> rules = {
    {"barrier",
     {64, 256,
      [](Globals& g) {
        write(id(), id());
        gpu::sync_threads();
        gpu::store_global(g.out + id(), read(63 - id()));
      }}},
    {"no barrier",
     {64, 256,
      [](Globals& g) {
        write(id(), id());
        if (id() >= 32) gpu::store_global(g.out + id(), read(63 - id()));  // HERE
        if (id() < 32) gpu::store_global(g.out + id(), read(63 - id()));   // HERE
      }}},
    {"sync_warp",
     {64, 256,
      [](Globals& g) {
        write(id(), id());
        gpu::sync_warp();
        gpu::store_global(g.out + id(), read(id() ^ 1));
        gpu::sync_warp();
        write(id() ^ 2, 5);
      }}},
    {"no sync_warp",
     {32, 128,
      [](Globals&) {
        write(id(), id());
        read(id() ^ 1);  // HERE
      }}},
    {"sync_warp for two warps",
     {64, 256,
      [](Globals&) {
        write(id(), id());
        gpu::sync_warp();
        read(63 - id());  // HERE
      }}},
    {"a shuffle orders no memory",
     {32, 128,
      [](Globals&) {
        write(id(), id());
        gpu::shuffle_xor(1, 1);
        read(id() ^ 1);  // HERE
      }}},
    {"write after reads of a warp",
     {32, 128,
      [](Globals&) {
        write(id(), id());
        gpu::sync_threads();
        read(0);
        gpu::reduce_add(1);
        if (id() == 3) write(0, 1);  // HERE
      }}},
    {"write after reads of all",
     {64, 256,
      [](Globals&) {
        write(id(), id());
        gpu::sync_threads();
        read(0);
        gpu::reduce_add(1);
        if (id() == 33) write(0, 1);  // HERE
        if (id() == 3) write(0, 1);   // HERE
      }}},
    {"atomics",
     {64, 256,
      [](Globals& g) {
        if (id() == 0) write(0, 0);
        gpu::sync_threads();
        gpu::atomic_add_shared(at(0), 2);
        gpu::atomic_add(&g.total, id());
        gpu::sync_threads();
        if (id() == 9) gpu::store_global(g.out, read(0));
      }}},
    {"read among atomics",
     {64, 256,
      [](Globals&) {
        if (id() == 0) write(0, 0);
        gpu::sync_threads();
        gpu::atomic_add_shared(at(0), 2);  // HERE
        read(0);                           // HERE
      }}},
    {"never written", {32, 128, [](Globals&) { read(id()); }}},                         // HERE
    {"behind shared memory", {32, 128, [](Globals&) { write(id() + 1, 0); }}},          // HERE
    {"before shared memory", {32, 128, [](Globals&) { write(id() - 1, 0); }}},          // HERE
    {"misaligned", {32, 128, [](Globals&) { gpu::store_shared<int>(at(0) + 2, 0); }}},  // HERE
    {"global load behind",
     {32, 0, [](Globals& g) { gpu::load_global(g.in + 225 + id()); }}},  // HERE
    {"global misaligned",
     {32, 0,
      [](Globals& g) {
        gpu::load_global(reinterpret_cast<const gpu::Bytes8*>(g.in + 1));  // HERE
      }}},
    {"store into read-only",
     {32, 0, [](Globals& g) { gpu::store_global(g.in + id(), 0); }}},  // HERE
    {"two threads store",
     {32, 0, [](Globals& g) { gpu::store_global(g.out + id() / 2, 0); }}},  // HERE
    {"two blocks store",
     {32, 0, [](Globals& g) { gpu::store_global(g.out + id(), 0); }, 2}},  // HERE
    {"another reads what is stored",
     {32, 0,
      [](Globals& g) {
        gpu::store_global(g.out + id(), 0);
        gpu::sync_threads();
        gpu::load_global(g.out + (id() ^ 1));  // HERE
      }}},
    {"another stores what was read",
     {32, 0,
      [](Globals& g) {
        gpu::load_global(g.out + id());
        gpu::sync_threads();
        gpu::store_global(g.out + (id() ^ 1), 0);  // HERE
      }}},
    {"read-only and stored",
     {32, 0,
      [](Globals& g) {
        gpu::load_readonly(g.out + id());
        gpu::store_global(g.out + id(), 0);  // HERE
      }}},
    {"in place",
     {32, 0,
      [](Globals& g) {
        gpu::store_global(g.out + id(), gpu::load_global(g.out + id()) + 1);
        gpu::load_global(g.out + id());
      }}},
    {"atomic and store",
     {32, 0,
      [](Globals& g) {
        gpu::atomic_add(&g.total, 1);
        gpu::sync_threads();
        if (id() == 5) gpu::store_global<int64_t>(&g.total, 0);  // HERE
      }}},
    {"copy",
     {64, 1024,
      [](Globals& g) {
        gpu::copy_async_16(at(4 * id()), g.in + 4 * id());
        gpu::copy_commit();
        gpu::copy_wait<0>();
        gpu::sync_threads();
        gpu::store_global(g.out + id(), read(255 - 4 * id()));
      }}},
    {"copy with zeros",
     {32, 640,
      [](Globals& g) {
        gpu::copy_async_16_zero(at(4 * id()), g.in + 4 * id(), id() % 17);
        gpu::copy_async_4_zero(at(128 + id()), g.in + id(), id() % 5);
        gpu::copy_commit();
        gpu::copy_wait<0>();
        gpu::sync_threads();
        for (int i = 0; i < 5; ++i) gpu::store_global(g.out + i * 32 + id(), read(i * 32 + id()));
      }}},
    {"copy not waited for",
     {32, 512,
      [](Globals& g) {
        gpu::copy_async_16(at(4 * id()), g.in + 4 * id());
        gpu::copy_commit();
        read(4 * id());  // HERE
      }}},
    {"copy not committed",
     {32, 512,
      [](Globals& g) {
        gpu::copy_async_16(at(4 * id()), g.in + 4 * id());
        gpu::copy_wait<0>();
        read(4 * id());  // HERE
      }}},
    {"only the older copy waited for",
     {32, 1024,
      [](Globals& g) {
        for (int i = 0; i < 2; ++i) {
          gpu::copy_async_16(at(128 * i + 4 * id()), g.in + 4 * id());
          gpu::copy_commit();
        }
        gpu::copy_wait<1>();
        read(4 * id());
        read(128 + 4 * id());  // HERE
      }}},
    {"copy waited for by its thread only",
     {64, 1024,
      [](Globals& g) {
        gpu::copy_async_16(at(4 * id()), g.in + 4 * id());
        gpu::copy_commit();
        gpu::copy_wait<0>();
        read(252 - 4 * id());  // HERE
      }}},
    {"write over a copy",
     {32, 512,
      [](Globals& g) {
        gpu::copy_async_16(at(4 * id()), g.in + 4 * id());
        write(4 * id(), 0);  // HERE
      }}},
    {"copy over what is read",
     {64, 1024,
      [](Globals& g) {
        write(id(), 0);
        gpu::sync_threads();
        read(id());  // HERE
        gpu::reduce_add(1);
        gpu::copy_async_16(at(4 * (id() % 16)), g.in);  // HERE
        gpu::copy_commit();
        gpu::copy_wait<0>();
      }}},
    {"exit with a copy",
     {32, 512,
      [](Globals& g) {
        gpu::copy_async_16(at(4 * id()), g.in + 4 * id());  // HERE
        gpu::copy_commit();
      }}},
    {"two barriers",
     {64, 0,
      [](Globals&) {
        if (id() < 32) gpu::sync_threads();   // HERE
        if (id() >= 32) gpu::sync_threads();  // HERE
      }}},
    {"a barrier for half",
     {64, 0,
      [](Globals&) {
        if (id() < 32) gpu::sync_threads();  // HERE
      }}},
    {"two warp functions",
     {32, 0,
      [](Globals&) {
        if (first_lanes(16)) gpu::ballot(true);  // HERE
        gpu::reduce_add(1);                      // HERE
      }}},
    {"a warp function for half",
     {32, 0,
      [](Globals&) {
        if (first_lanes(16)) gpu::ballot(true);  // HERE
      }}},
    {"warp function against barrier",
     {64, 0,
      [](Globals&) {
        if (first_lanes(16))
          gpu::reduce_add(1);  // HERE
        else
          gpu::sync_threads();
      }}},
    {"sums wrap on their way",
     {32, 0,
      [](Globals& g) {
        gpu::Sum sum = gpu::add_product({}, 0x40000000, 3);  // beyond 32 bits
        sum = gpu::add_product(sum, -0x40000000, 3);
        sum = gpu::shift_left(gpu::add_product(sum, -7, 11), 8);
        gpu::store_global(g.out + id(), gpu::final_sum(sum));
      }}},
    {"a sum beyond 32 bits",
     {32, 0,
      [](Globals&) {
        gpu::final_sum(gpu::add_product({}, 0x40000000, 2));  // HERE
      }}},
    {"a shift beyond 32 bits",
     {32, 0,
      [](Globals&) {
        gpu::final_sum(gpu::shift_left(gpu::add_product({}, 1 << 20, 4), 8 + 2));  // HERE
      }}},
    {"byte products",
     {32, 0,
      [](Globals& g) {
        const uint32_t a = 0x80ff7f01u + 0x01010101u * id(), b = 0xfe80037fu - 0x01020304u * id();
        gpu::store_global(g.out + id(), gpu::final_sum(gpu::dot_u8s8(a, b, {})));
        gpu::store_global(g.out + 32 + id(), gpu::final_sum(gpu::dot_s8s8(a, b, {})));
        gpu::store_global(g.out + 64 + id(), gpu::final_sum(gpu::dot_u8u8(a, b, {})));
        gpu::store_global(g.out + 96 + id(), gpu::final_sum(gpu::dot_s8u8(a, b, {})));
      }}},
    {"warp functions",
     {32, 0,
      [](Globals& g) {
        gpu::store_global(g.out + id(), gpu::shuffle_xor(id() * id(), 5));
        gpu::store_global(g.out + 32 + id(), gpu::shuffle_down(id() * id(), 7));
        gpu::store_global(g.out + 64 + id(), gpu::reduce_add(id() - 40));
        gpu::store_global(g.out + 96 + id(), static_cast<int>(gpu::ballot(id() % 3 == 0)));
        gpu::store_global(g.out + 128 + id(), static_cast<int>(gpu::permute_bytes(
                                                  0x33221100, 0x77665584, id() * 0x1357)));
      }}},
    {"words side by side",
     {32, 128,
      [](Globals& g) {
        write(id(), 0);
        gpu::store_global(g.out + id(), 0);
      }}},
    {"words in two banks",
     {32, 256,
      [](Globals& g) {
        write(2 * id(), 0);
        gpu::store_global(g.out + 2 * id(), 0);
      }}},
    {"words in one bank",
     {32, 4096,
      [](Globals& g) {
        write(32 * id(), 0);
        gpu::store_global(g.out + 8 * id(), 0);
      }}},
    {"one word for all",
     {32, 4,
      [](Globals&) {
        if (id() == 0) write(0, 0);
        gpu::sync_threads();
        read(0);
      }}},
    {"16 bytes side by side",
     {32, 512,
      [](Globals& g) {
        gpu::store_shared<gpu::Bytes16>(at(4 * id()), {});
        if (id() < 16) gpu::store_global(reinterpret_cast<gpu::Bytes16*>(g.out) + 2 * id(), {});
      }}},
    {"16 bytes in half the banks",
     {32, 1024, [](Globals&) { gpu::store_shared<gpu::Bytes16>(at(8 * id()), {}); }}},
    {"33 threads", {33, 0, [](Globals&) {}}},
};

py::tuple run(const std::string& name, int order, bool late_copies, uint64_t seed) {
  const Rule& rule = rules.at(name);
  Globals g;
  for (int i = 0; i < 256; ++i) g.in[i] = 1000 + i, g.out[i] = -1;
  g.total = 0;
  simt::Options options;
  options.order = static_cast<simt::Order>(order);
  options.late_copies = late_copies;
  options.seed = seed;
  const std::vector<simt::Buffer> buffers = {{"in", g.in, sizeof g.in, false},
                                             {"out", g.out, sizeof g.out, true},
                                             {"total", &g.total, sizeof g.total, true}};
  std::vector<int> ran;  // threads in the order in which they started
  const simt::Report report =
      simt::launch({{rule.blocks}, rule.threads, rule.shared_bytes}, buffers, options, [&] {
        ran.push_back(gpu::thread());
        rule.kernel(g);
      });
  return py::make_tuple(std::vector<int>(g.out, g.out + 256), g.total, report.bank_conflicts,
                        report.store_sectors, ran);
}

}  // namespace
}  // namespace fskernel::testing

PYBIND11_MODULE(simt_rules, m) {
  using namespace fskernel::testing;
  py::register_local_exception<fskernel::simt::Fault>(m, "Fault");
  m.def("run", &run);
  m.def("names", [] {
    std::vector<std::string> names;
    for (const auto& [name, rule] : rules) names.push_back(name);
    return names;
  });
}
