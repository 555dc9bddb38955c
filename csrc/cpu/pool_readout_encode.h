// Drivers of everything that is not a convolution: cut the work into rows, run an ISA's kernel.
#pragma once

#include "../conv_call.h"
#include "executor.h"
#include "map.h"
#include "tasks.h"

namespace fskernel {

// Maps of one image; y is int16 for sums, else of x's type.
void pool(const Kernels& kernels, const Geometry& geometry, bool maximum, const Map& x,
          const Map& y, const Executor& executor);

// Maps of one image; b has the size of a, or one pixel, and its channels, or one. Returns the
// spikes of y, where they are asked for.
int64_t product(const Kernels& kernels, const Gate& gate, const Map& a, const Map& b, const Map& y,
                bool count, const Executor& executor);

// Pixels whose 16-bit codes a readout can sum in 32 bits.
constexpr int64_t kMostSummed = 65536;

// x [height, width, channels] of one image to y [out]. sum_pixels: features = channels, else
// height*width*channels.
struct Readout {
  const void* weight;  // [out, features]
  int32_t weight_bytes;
  int64_t out, features;
  const float *m, *bias;  // [out]
  bool sum_pixels;
};
void readout(const Kernels& kernels, const Readout& r, const Map& x, float* y,
             const Executor& executor);

// y holds the size; what it has beside the image is left as it is.
Encoded encode(const Kernels& kernels, const Encoder& encoder, const Pixels& x, const Map& y,
               const Executor& executor);

// Dense words [height, width, channels] (bytes 4: floats, as they are) become the values that they
// stand for, word * step in float64, rounded to float32 and from there to y's type.
void decode(const Kernels& kernels, const Map& words, double step, const FloatMap& y,
            const Executor& executor);

// events[n] = sum over pixels of spikes(words[n, y, x, :]) * fan_y[y] * fan_x[x], modulo 2^64
void synaptic_events(const Kernels& kernels, const void* words, int32_t bytes, int64_t images,
                     int64_t height, int64_t width, int64_t channels, const int64_t* fan_y,
                     const int64_t* fan_x, int64_t* events, const Executor& executor);

}  // namespace fskernel
