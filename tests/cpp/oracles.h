// Oracles of what is not a convolution, read off the contract one value at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/plan/moves.h"
#include "cpu/plan/windows.h"
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

// Where a move takes each value from; `like` is the map whose size an expansion has.
inline Codes moved(const Codes& x, const Move& move, const Codes& like) {
  const int64_t a = move.numbers[0], b = move.numbers[1], rr = a * a;
  Codes y{x.N, x.H, x.W, x.C, {}};
  switch (move.kind) {
    case MoveKind::kUpsample:
      y.H *= a, y.W *= b;
      break;
    case MoveKind::kShuffle:
      y.H *= a, y.W *= a, y.C /= rr;
      break;
    case MoveKind::kUnshuffle:
      y.H /= a, y.W /= a, y.C *= rr;
      break;
    case MoveKind::kPad:
      y.H += a + b, y.W += move.numbers[2] + move.numbers[3];
      break;
    case MoveKind::kCrop:
      y.H -= a + b, y.W -= move.numbers[2] + move.numbers[3];
      break;
    case MoveKind::kExpand:
      y.H = like.H, y.W = like.W;
      break;
  }
  const auto from = [&](int64_t n, int64_t i, int64_t j, int64_t c) {
    switch (move.kind) {
      case MoveKind::kUpsample:
        return x.at(n, i / a, j / b, c);
      case MoveKind::kShuffle:
        return x.at(n, i / a, j / a, c * rr + i % a * a + j % a);
      case MoveKind::kUnshuffle:
        return x.at(n, i * a + c / a % a, j * a + c % a, c / rr);
      case MoveKind::kPad:
        i -= a, j -= move.numbers[2];
        return i < 0 || i >= x.H || j < 0 || j >= x.W ? move.zero : x.at(n, i, j, c);
      case MoveKind::kCrop:
        return x.at(n, i + a, j + move.numbers[2], c);
      case MoveKind::kExpand:
        return x.at(n, 0, 0, c);
    }
    return 0;
  };
  for (int64_t n = 0; n < y.N; ++n)
    for (int64_t i = 0; i < y.H; ++i)
      for (int64_t j = 0; j < y.W; ++j)
        for (int64_t c = 0; c < y.C; ++c) y.v.push_back(from(n, i, j, c));
  return y;
}

// The positions that one output sums along an axis, and its share of the divisor.
struct Taps {
  std::vector<int64_t> inside;
  int64_t divisor;
};

// By rows or else columns: the pixels of each window in turn, those of the padding for the divisor.
inline std::vector<Taps> taps_of(const Windows& w, int64_t size, bool rows) {
  std::vector<Taps> out;
  const Geometry& g = w.geometry;
  const int64_t kernel = rows ? g.kernel_h : g.kernel_w, stride = rows ? g.stride_h : g.stride_w;
  const int64_t before = rows ? g.pad_top : g.pad_left, after = rows ? g.pad_bottom : g.pad_right;
  const int64_t given = rows ? w.rows : w.cols, count = given ? given : size;
  for (int64_t o = 0; w.adaptive && o < count; ++o) {
    Taps taps{{}, 0};
    for (int64_t i = 0; i < size; ++i)  // part of [o/count, (o+1)/count) lies in [i, i+1)/size
      if ((i + 1) * count > o * size && i * count < (o + 1) * size) taps.inside.push_back(i);
    taps.divisor = static_cast<int64_t>(taps.inside.size());
    out.push_back(taps);
  }
  for (int64_t first = -before; !w.adaptive; first += stride) {
    const bool whole = first + kernel <= size + after;
    const bool reaches = first < size && first - stride + kernel < size + after;
    if (!whole && !(w.ceil_mode && reaches)) break;
    Taps taps{{}, 0};
    for (int64_t i = first; i < first + kernel; ++i) {
      const bool inside = i >= 0 && i < size;
      if (inside) taps.inside.push_back(i);
      taps.divisor += w.include_pad ? i < size + after : inside;
    }
    out.push_back(taps);
  }
  return out;
}

inline Codes averaged(const Codes& x, const MeanPool& p) {
  const std::vector<Taps> rows = taps_of(p.windows, x.H, true),
                          cols = taps_of(p.windows, x.W, false);
  Codes y{x.N, static_cast<int64_t>(rows.size()), static_cast<int64_t>(cols.size()), x.C, {}};
  const auto limit = static_cast<float>(p.limit);
  for (int64_t n = 0; n < y.N; ++n)
    for (const Taps& row : rows)
      for (const Taps& col : cols)
        for (int64_t c = 0; c < y.C; ++c) {
          int64_t sum = 0;
          for (const int64_t i : row.inside)
            for (const int64_t j : col.inside) sum += x.at(n, i, j, c) - p.zero;
          const auto m = static_cast<float>(
              p.step / (p.step_out * static_cast<double>(row.divisor * col.divisor)));
          const float v = static_cast<float>(sum) * m;
          y.v.push_back(
              static_cast<int32_t>(std::fmin(std::fmax(std::nearbyint(v), -limit), limit)));
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
