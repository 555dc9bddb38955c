// Work on several threads, all of them in one floating-point environment.
#pragma once

#include <cstdint>

#include "../float_environment.h"

namespace fskernel {

// How to run body(context, begin, end) over [0, n) on several threads; ops/on_cpu.h brings
// torch's.
struct Executor {
  int threads;
  void (*run)(int64_t n, void* context, void (*body)(void* context, int64_t begin, int64_t end));
};

// Calls f(begin, end) for parts of [0, n), on the executor's threads. Whatever calls a kernel goes
// through here, so that all of them compute in the same floating-point environment: a thread of the
// executor's has its own, which the caller's does not reach.
template <class Function>
void split(const Executor& executor, int64_t n, const Function& f) {
  if (n <= 0) return;
  const auto part = [](void* context, int64_t begin, int64_t end) {
    const FloatEnvironment environment;
    (*static_cast<const Function*>(context))(begin, end);
  };
  auto* context = const_cast<Function*>(&f);
  if (executor.threads <= 1 || n == 1) return part(context, 0, n);
  executor.run(n, context, part);
}

// Calls f(image, executor of the image) for all images: side by side where there are enough of them
// for all threads, else one after the other with all threads inside.
template <class Function>
void each_image(const Executor& executor, int64_t images, const Function& f) {
  if (executor.threads > 1 && images >= executor.threads)
    split(executor, images, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) f(n, Executor{1, nullptr});
    });
  else
    for (int64_t n = 0; n < images; ++n) f(n, executor);
}

}  // namespace fskernel
