#include "windows.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "../../neuron.h"
#include "../scratch.h"

namespace fskernel {
namespace {

// The windows along one axis.
struct Axis {
  bool adaptive;
  int64_t size, out;
  int64_t kernel, stride, before, after;
  bool include_pad;

  Span span(int64_t i) const {
    if (adaptive) {
      const int64_t start = i * size / out, stop = ((i + 1) * size + out - 1) / out;
      return {start, stop, stop - start};
    }
    const int64_t first = i * stride - before;
    const int64_t end = std::min(first + kernel, size + after);
    const int64_t start = std::max<int64_t>(first, 0), stop = std::min(end, size);
    return {start, stop, include_pad ? end - first : stop - start};
  }
};

// Windows of `kernel` over `size` with `before` and `after` around it. With ceil_mode the last one
// may reach beyond, if it begins before the padding behind.
int64_t clipped_size(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t after,
                     bool ceil_mode) {
  const int64_t last = size + before + after - kernel;
  if (last < 0 && !(ceil_mode && last + stride > 0)) return 0;
  if (!ceil_mode) return last / stride + 1;
  const int64_t out = (last + stride - 1) / stride + 1;
  return (out - 1) * stride >= size + before ? out - 1 : out;
}

Axis rows_of(const Windows& w, int64_t size) {
  const Geometry& g = w.geometry;
  const int64_t out =
      w.adaptive ? (w.rows ? w.rows : size)
                 : clipped_size(size, g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, w.ceil_mode);
  return {w.adaptive, size, out, g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, w.include_pad};
}

Axis cols_of(const Windows& w, int64_t size) {
  const Geometry& g = w.geometry;
  const int64_t out =
      w.adaptive ? (w.cols ? w.cols : size)
                 : clipped_size(size, g.kernel_w, g.stride_w, g.pad_left, g.pad_right, w.ceil_mode);
  return {w.adaptive, size, out, g.kernel_w, g.stride_w, g.pad_left, g.pad_right, w.include_pad};
}

std::vector<Span> all(const Axis& axis) {
  std::vector<Span> spans(axis.out);
  for (int64_t i = 0; i < axis.out; ++i) spans[i] = axis.span(i);
  return spans;
}

int64_t longest(const Axis& axis) {
  if (!axis.adaptive) return std::min(axis.size, axis.kernel);
  const int64_t rest = axis.size % axis.out;
  // They begin at multiples of size/out, rounded down, and end at them, rounded up.
  return axis.size / axis.out + (rest > 0) + (rest > std::gcd(rest, axis.out));
}

constexpr int64_t kBlock = 16;  // of a length that compilers make vectors of

// The means of n sums, behind which there is room for kBlock more.
void finish(const int32_t* sums, int32_t zeros, float m, float limit, int16_t* to, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    int16_t means[kBlock];
    for (int64_t k = 0; k < kBlock; ++k)
      means[k] = static_cast<int16_t>(graded(static_cast<float>(sums[i + k] - zeros) * m, limit));
    if (i + kBlock <= n)
      std::memcpy(to + i, means, sizeof means);
    else
      std::memcpy(to + i, means, (n - i) * sizeof means[0]);
  }
}

thread_local Scratch scratch;

}  // namespace

Size windows_size(const Windows& windows, int64_t height, int64_t width) {
  return {rows_of(windows, height).out, cols_of(windows, width).out};
}

Spans spans_of(const Windows& windows, int64_t height, int64_t width) {
  return {all(rows_of(windows, height)), all(cols_of(windows, width))};
}

int64_t largest_window(const Windows& windows, int64_t height, int64_t width) {
  return longest(rows_of(windows, height)) * longest(cols_of(windows, width));
}

void mean_pool(const Kernels& kernels, const MeanPool& pool, const Spans& spans, const Map& x,
               const Map& y, const Executor& executor) {
  const auto limit = static_cast<float>(pool.limit);
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    auto* sums = reinterpret_cast<int32_t*>(scratch.reserve(4 * (x.channels + kBlock)));
    for (int64_t row = begin; row < end; ++row)
      for (int64_t col = 0; col < y.width; ++col) {
        const Span &r = spans.rows[row], &c = spans.cols[col];
        std::fill_n(sums, x.channels, 0);
        for (int64_t line = r.start; line < r.stop; ++line)
          kernels.channel_sums(x.data + line * x.row + c.start * x.pixel, x.bytes, x.pixel,
                               c.stop - c.start, x.channels, sums);
        const auto divisor = static_cast<double>(r.divisor * c.divisor);
        const auto m = static_cast<float>(pool.step / (pool.step_out * divisor));
        const auto zeros =
            static_cast<int32_t>(pool.zero * (r.stop - r.start) * (c.stop - c.start));
        auto* to = reinterpret_cast<int16_t*>(y.data + row * y.row + col * y.pixel);
        finish(sums, zeros, m, limit, to, x.channels);
      }
  });
}

}  // namespace fskernel
