// What exactness asks of the compiler. setup.py's REQUIRED_FLAGS see to it; this refuses to compile
// where other flags, or another way to build, have changed the rules after all.
#pragma once

// gcc says 0 where any of its options departs from IEEE 754; clang and Microsoft's
// compiler have macros for some of them.
#if defined(__FAST_MATH__) || __FINITE_MATH_ONLY__ || defined(__ASSOCIATIVE_MATH__) ||     \
    defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__) || defined(_M_FP_FAST) || \
    (defined(__GCC_IEC_559) && __GCC_IEC_559 == 0)
#error \
    "fskernel's results would be wrong with -ffast-math or one of its parts: take it out of CFLAGS, \
CPPFLAGS and CXX"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error \
    "fskernel's results would be wrong where floats are computed wider: compile with -mfpmath=sse"
#endif
