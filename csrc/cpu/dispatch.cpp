#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <set>
#include <stdexcept>

namespace fskernel {

#define FSKERNEL_ISA_ENTRY(isa) extern const Kernels kernels_##isa;
#include "isa/kernels.inc"
#undef FSKERNEL_ISA_ENTRY

namespace {

const Kernels* const kAll[] = {
#define FSKERNEL_ISA_ENTRY(isa) &kernels_##isa,
#include "isa/kernels.inc"
#undef FSKERNEL_ISA_ENTRY
};

std::atomic<const Kernels*> forced{nullptr};
std::mutex notes;
std::string last;
std::set<std::string> covered;

std::string names(const std::vector<const Kernels*>& kernels) {
  std::string out;
  for (const Kernels* k : kernels) out += (out.empty() ? "" : ", ") + std::string(k->name);
  return out;
}

const Kernels& by_name(const std::string& name, const std::string& origin) {
  for (const Kernels* k : kAll)
    if (name == k->name) {
      if (k->supported()) return *k;
      throw std::invalid_argument(origin + "=" + name +
                                  ": this processor does not support it; use " +
                                  names(supported_kernels()));
    }
  throw std::invalid_argument(origin + "=" + name + ": no such instruction set; built are " +
                              names(built_kernels()));
}

const Kernels& default_kernels() {
  const char* wish = std::getenv("FSKERNEL_ISA");
  if (wish && *wish) return by_name(wish, "FSKERNEL_ISA");
  for (const Kernels* k : kAll)
    if (k->automatic && k->supported()) return *k;
  throw std::runtime_error("no kernel supports this processor: built are " +
                           names(built_kernels()));
}

}  // namespace

std::vector<const Kernels*> built_kernels() { return {std::begin(kAll), std::end(kAll)}; }

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> out;
  for (const Kernels* k : kAll)
    if (k->supported()) out.push_back(k);
  return out;
}

const Kernels& current_kernels() {
  if (const Kernels* k = forced.load()) return *k;
  static const Kernels& chosen = default_kernels();  // read once; a throw leaves it unset
  return chosen;
}

void force_isa(const std::string& name) {
  forced.store(name.empty() ? nullptr : &by_name(name, "set_isa"));
}

void note_run(const Kernels& kernels, const std::string& what) {
  const std::lock_guard<std::mutex> lock(notes);
  last = std::string(kernels.name) + "/" + what;
  if (what.rfind("conv", 0) == 0) covered.insert(kernels.name);
}

void note_run(const std::string& device, const std::string& what) {
  const std::lock_guard<std::mutex> lock(notes);
  last = device + "/" + what;
}

std::string last_run() {
  const std::lock_guard<std::mutex> lock(notes);
  return last;
}

std::vector<std::string> covered_isas() {
  const std::lock_guard<std::mutex> lock(notes);
  return {covered.begin(), covered.end()};
}

double peak_macs(const Kernels& kernels, int32_t family) {
  double best = 0;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const int64_t macs = kernels.peak(family, 20000);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(macs) / time.count());
  }
  return best;
}

}  // namespace fskernel
