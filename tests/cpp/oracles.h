// Oracles of what is not a convolution, read off the contract one value at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "geometry.h"

namespace fskernel::testing {

// Images of codes, [N, H, W, C].
struct Codes {
  int64_t N, H, W, C;
  std::vector<int32_t> v;

  int32_t at(int64_t n, int64_t y, int64_t x, int64_t c) const {
    return v[((n * H + y) * W + x) * C + c];
  }
};

// The maximum, or else the sum, of the taps that lie inside; `lowest` where there are none.
inline Codes pooled(const Codes& x, const Geometry& g, bool maximum, int32_t lowest, int64_t out_h,
                    int64_t out_w) {
  Codes y{x.N, out_h, out_w, x.C, {}};
  for (int64_t n = 0; n < x.N; ++n)
    for (int64_t oy = 0; oy < out_h; ++oy)
      for (int64_t ox = 0; ox < out_w; ++ox)
        for (int64_t c = 0; c < x.C; ++c) {
          int32_t result = maximum ? lowest : 0;
          for (int64_t ky = 0; ky < g.kernel_h; ++ky)
            for (int64_t kx = 0; kx < g.kernel_w; ++kx) {
              const int64_t iy = oy * g.stride_h + ky * g.dilation_h - g.pad_top;
              const int64_t ix = ox * g.stride_w + kx * g.dilation_w - g.pad_left;
              if (iy < 0 || iy >= x.H || ix < 0 || ix >= x.W) continue;
              const int32_t code = x.at(n, iy, ix, c);
              result = maximum ? std::max(result, code) : result + code;
            }
          y.v.push_back(result);
        }
  return y;
}

// K = 0: the graded value of x, else its spike word.
inline int32_t encoded(float x, float inv_step, float offset, int32_t K, int32_t limit) {
  if (K == 0) {
    const float v = x * inv_step, top = static_cast<float>(limit);
    if (std::isnan(v)) return 0;
    return static_cast<int32_t>(std::nearbyint(std::fmin(std::fmax(v, -top), top)));
  }
  float v = std::fma(x, inv_step, offset);
  int32_t word = 0;
  for (int32_t t = 1; t <= K; ++t) {
    const float threshold = std::ldexp(1.0f, K - t);
    if (!(v >= threshold)) continue;
    v -= threshold;
    word |= 1 << (K - t);
  }
  return word;
}

// Output o of a linear layer on image n, whose pixels are summed before if the layer has as many
// features as there are channels.
inline float read_out(const Codes& x, int64_t n, const std::vector<int32_t>& w, int64_t features,
                      int64_t o, float m, float bias) {
  const int64_t size = x.H * x.W * x.C;
  int64_t sum = 0;
  for (int64_t i = 0; i < size; ++i)
    sum += int64_t{x.v[n * size + i]} * w[o * features + i % features];
  return std::fma(static_cast<float>(sum), m, bias);
}

}  // namespace fskernel::testing
