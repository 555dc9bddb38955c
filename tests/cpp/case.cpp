#include "case.h"

#include <cfenv>
#include <cstdarg>
#include <cstdio>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace fskernel::testing {
namespace {

bool flushing() {
#if defined(__SSE2__)
  return _mm_getcsr() & 0x8040;  // of results, of operands
#else
  return false;
#endif
}

void set_environment(int rounding, bool flush) {
  std::fesetround(rounding);
#if defined(__SSE2__)
  _mm_setcsr((_mm_getcsr() & ~0x8040u) | (flush ? 0x8040u : 0));
#else
  (void)flush;
#endif
}

}  // namespace

Plant plant = Plant::kNone;

std::vector<uint8_t> random_bytes(uint64_t seed) {
  Random random{seed};
  std::vector<uint8_t> out(128);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random.next() >> 56);
  return out;
}

std::unique_ptr<Case> decode(Bytes& bytes) {
  switch (bytes.in(0, 11)) {
    case 5:
      return plan_case(bytes);
    case 6:
      return pool_case(bytes);
    case 7:
      return encode_case(bytes);
    case 8:
      return readout_case(bytes);
    case 9:
      return events_case(bytes);
    case 10:
      return floats_case(bytes);
    case 11:
      return product_case(bytes);
    default:
      return conv_case(bytes);
  }
}

std::string check(const Case& test, const Kernels& kernels) {
  const Setting& s = test.setting();
  const int rounding[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
  const int mode = rounding[s.environment % 4];
  set_environment(mode, s.flushes());
  const bool flush = flushing();
  std::string wrong = test.run(kernels);
  if (wrong.empty() && (std::fegetround() != mode || flushing() != flush))
    wrong = "left another floating-point environment";
  set_environment(FE_TONEAREST, false);
  return wrong.empty() ? wrong : wrong + text("; environment=%d ", s.environment) + test.describe();
}

Executor Setting::executor() const {
  if (threads == 1) return {1, nullptr};
  return {threads, [](int64_t n, void* context, void (*body)(void*, int64_t, int64_t)) {
            for (int64_t i = n; i > 0; --i) body(context, i - 1, i);
          }};
}

void plant_fault(uint8_t* output, int64_t bytes) {
  volatile uint8_t* at = output;
  if (plant == Plant::kWrong) at[bytes - 1] = at[bytes - 1] ^ 1;
  if (plant == Plant::kRead) (void)at[bytes], (void)at[-1];
  if (plant == Plant::kWrite) at[bytes] = at[bytes] ^ 1;
}

std::string text(const char* format, ...) {
  char line[1000];
  va_list args;
  va_start(args, format);
  std::vsnprintf(line, sizeof line, format, args);
  va_end(args);
  return line;
}

}  // namespace fskernel::testing
