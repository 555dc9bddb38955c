// Cases decoded from byte strings, each run by every kernel that runs here. Under libFuzzer
// (FSKERNEL_LIBFUZZER) that chooses the strings; else they are pseudo-random:
//
//   fuzz [--seconds N] [--cases N] [--seed N] [--isa NAME]   until the first of both bounds
//   fuzz --case HEX                                          one case, as a failure prints it
//   fuzz ... --plant wrong|read|write                        with a fault planted in every case
//
// Ends with status 1 at the first failure.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "case.h"
#include "cpu/dispatch.h"
#include "crash.h"

using namespace fskernel;

namespace {

std::string only;  // one instruction set, or all
std::map<std::string, long> tried;

std::string hex(const uint8_t* data, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += testing::text("%02x", data[i]);
  return out.empty() ? "00" : out;
}

// Runs the string's case; prints what repeats it, as short as it may be, if it fails.
bool run(const uint8_t* data, size_t size) {
  testing::doing("make fuzz CASE=" + hex(data, size));
  testing::Bytes bytes(data, size);
  const auto test = testing::decode(bytes);
  const std::string repeat = "make fuzz CASE=" + hex(data, bytes.used());
  for (const Kernels* kernels : supported_kernels()) {
    if (!only.empty() && only != kernels->name) continue;
    testing::doing(repeat + "  # " + kernels->name + ": " + test->describe());
    const std::string wrong = testing::check(*test, *kernels);
    ++tried[kernels->name];
    if (wrong.empty()) continue;
    std::printf("FAILED %s: %s\n  %s\n", kernels->name, wrong.c_str(), repeat.c_str());
    return false;
  }
  return true;
}

void print_tried() {
  for (const auto& [name, cases] : tried) std::printf("%-20s %ld cases\n", name.c_str(), cases);
  std::fflush(stdout);
}

}  // namespace

#if FSKERNEL_LIBFUZZER

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  testing::report_crashes();
  std::atexit(&print_tried);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (run(data, size)) return 0;
  print_tried();
  _exit(1);  // libFuzzer's own report would only hide ours
}

#else

namespace {

[[noreturn]] void refuse(const std::string& what) {
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::exit(2);
}

std::vector<uint8_t> parse_hex(const std::string& digits) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i < digits.size(); i += 2) {
    char* end = nullptr;
    const std::string pair = digits.substr(i, 2);
    out.push_back(static_cast<uint8_t>(std::strtoul(pair.c_str(), &end, 16)));
    if (pair.size() != 2 || *end) refuse("--case " + digits + ": expected pairs of hex digits");
  }
  return out;
}

void set_plant(const std::string& name) {
  using testing::Plant;
  const std::map<std::string, Plant> plants = {
      {"wrong", Plant::kWrong}, {"read", Plant::kRead}, {"write", Plant::kWrite}};
  if (!plants.count(name)) refuse("--plant " + name + ": expected wrong, read or write");
  testing::plant = plants.at(name);
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> option = {{"--seconds", ""}, {"--cases", ""}, {"--seed", ""},
                                               {"--isa", ""},     {"--case", ""},  {"--plant", ""}};
  for (int i = 1; i < argc; i += 2) {
    if (!option.count(argv[i]) || i + 1 == argc) refuse(std::string(argv[i]) + ": see fuzz.cpp");
    option[argv[i]] = argv[i + 1];
  }
  const auto number = [&](const char* name, uint64_t otherwise) {
    return option[name].empty() ? otherwise : std::strtoull(option[name].c_str(), nullptr, 0);
  };
  if (!option["--plant"].empty()) set_plant(option["--plant"]);
  only = option["--isa"];
  testing::report_crashes();
  bool good = true;
  if (!option["--case"].empty()) {
    const std::vector<uint8_t> bytes = parse_hex(option["--case"]);
    good = run(bytes.data(), bytes.size());
  } else {
    const uint64_t seed = number("--seed", static_cast<uint64_t>(std::time(nullptr)) << 24);
    const uint64_t cases = number("--cases", ~uint64_t{0});
    const std::chrono::seconds bound(number("--seconds", option["--cases"].empty() ? 60 : 1 << 30));
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    std::fflush(stdout);
    const auto start = std::chrono::steady_clock::now();
    for (uint64_t i = 0; good && i < cases; ++i) {
      if (std::chrono::steady_clock::now() - start >= bound) break;
      const std::vector<uint8_t> bytes = testing::random_bytes(seed + i);
      good = run(bytes.data(), bytes.size());
    }
  }
  print_tried();
  if (tried.empty()) refuse("no kernel named '" + only + "' runs here, or no case was asked for");
  return good ? 0 : 1;
}

#endif
