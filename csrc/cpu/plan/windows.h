// Averages over windows that need not be alike: at borders, or where they divide a map of any size.
#pragma once

#include <vector>

#include "../../geometry.h"
#include "../executor.h"
#include "../map.h"
#include "../tasks.h"

namespace fskernel {

// Input rows (or columns) [start, stop) of one output row (or column), and its share of the
// divisor.
struct Span {
  int64_t start, stop, divisor;
};

// Windows as torch's adaptive_avg_pool2d has them, or avg_pool2d with ceil_mode and
// count_include_pad. They are the product of their rows and columns.
struct Windows {
  bool adaptive;
  int64_t rows, cols;  // of the output, where adaptive; 0 = as many as there are
  Geometry geometry;   // where not
  bool ceil_mode, include_pad;
};

struct MeanPool {
  Windows windows;
  int32_t zero;           // the code of zero of what is read
  double step, step_out;  // of what is read, and of the means
  int32_t limit;
};

// Of the output; no rows where a window does not fit.
Size windows_size(const Windows& windows, int64_t height, int64_t width);

struct Spans {
  std::vector<Span> rows, cols;
};
Spans spans_of(const Windows& windows, int64_t height, int64_t width);
// Pixels of a map that the largest window may have.
int64_t largest_window(const Windows& windows, int64_t height, int64_t width);

// y [rows][cols] int16 = clip(rint(float(sum of codes - zero) * m), -limit, limit), with
// m = step / (step_out * divisor) in float64, rounded to float32 once.
void mean_pool(const Kernels& kernels, const MeanPool& pool, const Spans& spans, const Map& x,
               const Map& y, const Executor& executor);

}  // namespace fskernel
