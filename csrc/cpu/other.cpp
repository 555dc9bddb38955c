#include "other.h"

#include <vector>

namespace fskernel {
namespace {

// Calls f(begin, end) for parts of [0, n).
template <class Function>
void split(const Executor& executor, int64_t n, const Function& f) {
  if (n <= 0) return;
  if (executor.threads <= 1) return f(int64_t{0}, n);
  executor.run(n, const_cast<Function*>(&f), [](void* context, int64_t begin, int64_t end) {
    (*static_cast<const Function*>(context))(begin, end);
  });
}

// Calls f(image, first row, last row) for the rows [begin, end) of images that are one behind the
// other with `height` rows each.
template <class Function>
void each_image(int64_t begin, int64_t end, int64_t height, const Function& f) {
  while (begin < end) {
    const int64_t image = begin / height, first = begin % height;
    const int64_t last = height - first < end - begin ? height : first + end - begin;
    f(image, first, last);
    begin += last - first;
  }
}

}  // namespace

void pool(const Kernels& kernels, PoolTask task, int64_t images, bool maximum,
          const Executor& executor) {
  const auto* x = static_cast<const uint8_t*>(task.x);
  auto* y = static_cast<uint8_t*>(task.y);
  const int64_t y_bytes = maximum ? task.x_bytes : 2;
  split(executor, images * task.out_h, [&](int64_t begin, int64_t end) {
    each_image(begin, end, task.out_h, [&](int64_t n, int64_t first, int64_t last) {
      PoolTask t = task;
      t.x = x + n * t.height * t.width * t.channels * t.x_bytes;
      t.y = y + n * t.out_h * t.out_w * t.channels * y_bytes;
      t.row_begin = first;
      t.row_end = last;
      (maximum ? kernels.max_pool : kernels.sum_pool)(t);
    });
  });
}

void readout(const Kernels& kernels, const void* x, int32_t x_bytes, int64_t images, int64_t pixels,
             int64_t channels, bool sum_pixels, ReadoutTask task, int64_t out,
             const Executor& executor) {
  const int64_t size = pixels * channels;
  float* y = task.y;
  for (int64_t n = 0; n < images; ++n) {
    const auto* image = static_cast<const uint8_t*>(x) + n * size * x_bytes;
    std::vector<int64_t> wide(sum_pixels ? channels : size, 0);
    if (sum_pixels)
      kernels.channel_sums(image, x_bytes, pixels, channels, wide.data());
    else
      kernels.channel_sums(image, x_bytes, 1, size, wide.data());
    task.x = wide.data();
    task.y = y + n * out;
    split(executor, out, [&](int64_t begin, int64_t end) {
      ReadoutTask t = task;
      t.begin = begin;
      t.end = end;
      kernels.readout(t);
    });
  }
}

void encode(const Kernels& kernels, EncodeTask task, int64_t images, int64_t stride_n,
            int64_t height, const Executor& executor) {
  const int64_t bytes = task.K >= 1 && task.K <= 8 ? 1 : 2;
  split(executor, images * height, [&](int64_t begin, int64_t end) {
    each_image(begin, end, height, [&](int64_t n, int64_t first, int64_t last) {
      EncodeTask t = task;
      t.x += n * stride_n;
      t.y = static_cast<uint8_t*>(t.y) + n * height * t.width * t.channels * bytes;
      t.row_begin = first;
      t.row_end = last;
      kernels.encode(t);
    });
  });
}

void synaptic_events(const Kernels& kernels, const void* words, int32_t bytes, int64_t images,
                     int64_t height, int64_t width, int64_t channels, const int64_t* fan_y,
                     const int64_t* fan_x, int64_t* events, const Executor& executor) {
  split(executor, images * height, [&](int64_t begin, int64_t end) {
    each_image(begin, end, height, [&](int64_t n, int64_t first, int64_t last) {
      int64_t sum = 0;
      const int64_t pixel = channels * bytes;
      for (int64_t y = first; y < last; ++y) {
        const auto* row = static_cast<const uint8_t*>(words) + (n * height + y) * width * pixel;
        int64_t in_row = 0;
        for (int64_t x = 0; x < width; ++x)
          if (fan_x[x]) in_row += fan_x[x] * kernels.spikes_in(row + x * pixel, pixel);
        sum += fan_y[y] * in_row;
      }
      __atomic_fetch_add(&events[n], sum, __ATOMIC_RELAXED);
    });
  });
}

}  // namespace fskernel
