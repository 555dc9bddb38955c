// The floating-point environment of the contract: to nearest, ties to even, denormals as they are,
// no traps.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace fskernel {

// While one lives, its thread computes in that environment. Then the caller's is back, with the
// exception flags that it had: kernels leave no trace.
class FloatEnvironment {
 public:
#if defined(__SSE2__)
  // Vectors and scalars obey this register alone; x87's, which is ten times slower to change, says
  // nothing to the kernels.
  FloatEnvironment() : callers_(_mm_getcsr()) { _mm_setcsr(kAtReset); }
  ~FloatEnvironment() { _mm_setcsr(callers_); }
#else
  FloatEnvironment() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatEnvironment() { std::fesetenv(&callers_); }
#endif
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
#if defined(__SSE2__)
  static constexpr unsigned kAtReset = 0x1f80;  // all exceptions masked, all other bits 0
  const unsigned callers_;
#else
  std::fenv_t callers_;
#endif
};

// InFloatEnvironment<&f>::run is f in that environment: what a table of functions lists. The call
// is one that the compiler cannot look into, because it would move arithmetic out of it.
template <auto function>
struct InFloatEnvironment;
template <class Result, class... Arguments, Result (*function)(Arguments...)>
struct InFloatEnvironment<function> {
  static Result run(Arguments... arguments) {
    Result (*volatile const hidden)(Arguments...) = function;
    const FloatEnvironment environment;
    return hidden(static_cast<Arguments&&>(arguments)...);
  }
};

}  // namespace fskernel
