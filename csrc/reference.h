// Oracle (c): the FS convolution and the gate read off the contract, one output at a time, in plain
// C++. It shares no code with the kernels it judges.
#pragma once

#include <cmath>
#include <cstdint>

#include "float_rules.h"

namespace fskernel::reference {

struct Group {
  const int32_t* x;  // [N, H, W, I]
  const int32_t* w;  // [O, I/groups, kh, kw]
  const float* m;    // [O]
  int64_t H, W, I;
  int64_t kh, kw, sh, sw, top, bottom, left, right, dh, dw, groups, pad_code;
};

inline int64_t sum(const Group& g, int64_t O, int64_t n, int64_t oy, int64_t ox, int64_t o) {
  const int64_t per = g.I / g.groups, first = o / (O / g.groups) * per;
  int64_t acc = 0;
  for (int64_t i = 0; i < per; ++i)
    for (int64_t ky = 0; ky < g.kh; ++ky)
      for (int64_t kx = 0; kx < g.kw; ++kx) {
        const int64_t y = oy * g.sh + ky * g.dh - g.top, x = ox * g.sw + kx * g.dw - g.left;
        const bool inside = y >= 0 && y < g.H && x >= 0 && x < g.W;
        const int64_t code = inside ? g.x[((n * g.H + y) * g.W + x) * g.I + first + i] : g.pad_code;
        acc += code * g.w[((o * per + i) * g.kh + ky) * g.kw + kx];
      }
  return acc;
}

// Tables of shaped neurons, [O or 1][slopes, offsets][segments].
struct Tables {
  const float* at;
  int64_t count, segments;
};

// What a membrane, in segments from the left end, becomes; beyond the ends, and NaN, see the
// contract.
inline float shape(const Tables& tables, int64_t o, float v) {
  const float* table = tables.at + (tables.count > 1 ? o * 2 * tables.segments : 0);
  if (!(v > 0)) v = 0;
  if (v >= static_cast<float>(tables.segments))
    v = std::nextafter(static_cast<float>(tables.segments), 0.0f);
  const auto i = static_cast<int64_t>(std::floor(v));
  return std::fma(v, table[i], table[tables.segments + i]);
}

// The word of K steps that a membrane gives, whose spikes are added, or (K = 0) the graded value.
inline void output(float v, int K, int limit, int32_t& y, int64_t& spikes) {
  y = 0;
  if (K == 0 && !std::isnan(v))
    y = static_cast<int32_t>(
        std::fmin(std::fmax(std::nearbyint(v), -static_cast<float>(limit)), limit));
  for (int t = 1; t <= K; ++t)
    if (v >= std::ldexp(1.0f, K - t)) {
      v -= std::ldexp(1.0f, K - t);
      y |= 1 << (K - t);
      ++spikes;
    }
}

// Of fitted neurons: thresholds, resets and worths, [3][steps], and the code of zero.
struct Fits {
  const float* at;
  int64_t steps, zero;
};

// The code of K bits that a membrane of a fitted neuron gives, whose spikes are added.
inline void fitted_output(const Fits& fits, float v, int K, int32_t& y, int64_t& spikes) {
  int64_t sum = fits.zero;
  for (int64_t t = 0; t < fits.steps; ++t)
    if (v >= fits.at[t]) {
      v -= fits.at[fits.steps + t];
      sum += static_cast<int64_t>(fits.at[2 * fits.steps + t]);
      ++spikes;
    }
  const int64_t most = (int64_t{1} << K) - 1;
  y = static_cast<int32_t>(sum < 0 ? 0 : sum > most ? most : sum);
}

// y [N, OH, OW, O] words (K in 1..15) or graded values (K = 0); counts [N] spikes. top [O]: what a
// membrane is clipped to before the first step, or null. membranes: as y, before that, or null.
// tables: of shaped neurons, or null. fits: of fitted ones, or null.
inline void conv(const Group* group, int group_count, const float* bias, const int32_t* residual,
                 float r, int K, int limit, const float* top, int64_t N, int64_t OH, int64_t OW,
                 int64_t O, int32_t* y, int64_t* counts, float* membranes = nullptr,
                 const Tables* tables = nullptr, const Fits* fits = nullptr) {
  for (int64_t n = 0; n < N; ++n) {
    counts[n] = 0;
    for (int64_t at = n * OH * OW * O; at < (n + 1) * OH * OW * O; ++at) {
      const int64_t o = at % O, ox = at / O % OW, oy = at / O / OW % OH;
      float v = bias[o];
      for (int g = 0; g < group_count; ++g)
        v = std::fma(static_cast<float>(static_cast<int32_t>(sum(group[g], O, n, oy, ox, o))),
                     group[g].m[o], v);
      if (residual) v = std::fma(static_cast<float>(residual[at]), r, v);
      if (membranes) membranes[at] = v;
      if (tables) v = shape(*tables, o, v);
      if (top && v > top[o]) v = top[o];
      if (fits)
        fitted_output(*fits, v, K, y[at], counts[n]);
      else
        output(v, K, limit, y[at], counts[n]);
    }
  }
}

// The product of a [N, H, W, C] and b, which has as many pixels or one (b_H = b_W = 1), and as many
// channels or one; m, bias [C]; y and counts as of conv.
inline void gate(const int32_t* a, const int32_t* b, int64_t b_H, int64_t b_W, int64_t b_C,
                 int64_t zero_a, int64_t zero_b, const float* m, const float* bias, int K,
                 int limit, int64_t N, int64_t H, int64_t W, int64_t C, int32_t* y,
                 int64_t* counts) {
  for (int64_t at = 0; at < N * H * W * C; ++at) {
    const int64_t c = at % C, col = at / C % W, row = at / C / W % H, n = at / C / W / H;
    const int64_t b_at = ((n * b_H + row % b_H) * b_W + col % b_W) * b_C + c % b_C;
    const int64_t acc = (a[at] - zero_a) * (b[b_at] - zero_b);
    const float v = std::fma(static_cast<float>(static_cast<int32_t>(acc)), m[c], bias[c]);
    if (c + col + row == 0) counts[n] = 0;
    output(v, K, limit, y[at], counts[n]);
  }
}

}  // namespace fskernel::reference
