// The FS neuron on one membrane potential v, in units of the neuron's last threshold
// (Stoeckl & Maass, arXiv 2002.00860, eqs. 1-3, with T(t) = 2^(K-t) in these units).
// The spike train is returned as its spike word: bit K-t is z(t).
#pragma once

#include <cstdint>

#include "float_rules.h"

#ifdef __CUDACC__
#define FS_HOST_DEVICE __host__ __device__
#else
#define FS_HOST_DEVICE
#endif

namespace fskernel {

// The paper's K steps, one by one. NaN never reaches a threshold, so it gives no spike.
FS_HOST_DEVICE static inline int32_t fire_loop(float v, int32_t K) {
  int32_t word = 0;
  for (int32_t t = 1; t <= K; ++t) {
    const float threshold = static_cast<float>(1 << (K - t));
    const bool z = v >= threshold;
    if (z) v -= threshold;
    word = 2 * word + z;
  }
  return word;
}

// The same in closed form: floor(clip(v, 0, top)) with top = 2^K - 1, NaN -> 0. Clipped before it
// is converted, which would overflow.
FS_HOST_DEVICE static inline int32_t fire(float v, float top) {
  const float positive = v > 0.0f ? v : 0.0f;
  return static_cast<int32_t>(positive < top ? positive : top);
}

// What the membranes of shaped neurons pass before the K steps: a function of `segments` pieces,
// each slope*v + offset, v being in segments from the left end. Slopes lie at `table`, offsets
// behind them; null: the membrane is taken as it is, which makes the neuron a ReLU.
struct Shape {
  const float* table = nullptr;
  int32_t segments = 0;  // 32, 64, 128 or 256
  int64_t row = 0;       // floats from one channel's table to the next; 0: one for all
};

// Where in the table a membrane lies: clip(v, 0, what is just below its right end), NaN -> 0.
FS_HOST_DEVICE static inline float in_table(float v, int32_t segments) {
  const float positive = v > 0.0f ? v : 0.0f;
  const float last = static_cast<float>(segments) * 0x0.ffffffp0f;
  return positive < last ? positive : last;
}

// Fitted neurons, whose thresholds T(t), resets h(t) and worths d(t) are free: z(t) = v >= T(t),
// then v -= h(t) z(t), and the code is zero + sum of d(t) z(t). T, h and d lie behind each other,
// `steps` each; d are whole numbers, and all their sums are whole numbers that a float holds. Null:
// none.
constexpr int32_t kMostSteps = 16;
constexpr float kLargestWorth = 32768.0f;
struct Fitted {
  const float* lines = nullptr;
  int32_t steps = 0;
  float zero = 0;
};

// Graded output: clip(rint(v), -limit, limit), ties to even, NaN -> 0, for a limit below 2^22.
FS_HOST_DEVICE static inline int32_t graded(float v, float limit) {
  const float number = v == v ? v : 0.0f;
  const float clipped = number < -limit ? -limit : number > limit ? limit : number;
  const float magic = 12582912.0f;  // 1.5 * 2^23: at this size a float has no fraction left
  return static_cast<int32_t>((clipped + magic) - magic);
}

// Bytes of one code: words of up to 8 steps are uint8; longer ones and graded values (K = 0) int16.
constexpr int32_t word_bytes(int64_t K) { return K >= 1 && K <= 8 ? 1 : 2; }

}  // namespace fskernel
