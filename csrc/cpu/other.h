// Drivers of everything that is not a convolution: cut the work into rows, run an ISA's kernel.
#pragma once

#include "conv.h"

namespace fskernel {

// task holds one image's sizes; x and y are [images, ...], y int16 for sums, else of x's type.
void pool(const Kernels& kernels, PoolTask task, int64_t images, bool maximum,
          const Executor& executor);

// x [images, pixels, channels] of x_bytes; sum_pixels: features = channels, else pixels*channels.
// y [images, out].
void readout(const Kernels& kernels, const void* x, int32_t x_bytes, int64_t images, int64_t pixels,
             int64_t channels, bool sum_pixels, ReadoutTask task, int64_t out,
             const Executor& executor);

// task.x is [images, channels, height, width] with the task's strides and stride_n, in floats.
void encode(const Kernels& kernels, EncodeTask task, int64_t images, int64_t stride_n,
            int64_t height, const Executor& executor);

// events[n] = sum over pixels of spikes(words[n, y, x, :]) * fan_y[y] * fan_x[x]
void synaptic_events(const Kernels& kernels, const void* words, int32_t bytes, int64_t images,
                     int64_t height, int64_t width, int64_t channels, const int64_t* fan_y,
                     const int64_t* fan_x, int64_t* events, const Executor& executor);

}  // namespace fskernel
