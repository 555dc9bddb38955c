// The sums of rate-coded neurons over a vector class V (../isa/vec_*.h): those of all time steps of
// a few pixels, either by the dense multiplications of conv_sums.h or spike by spike, stay in the
// first cache level until the neurons have fired (rate_neuron.h).
#pragma once

#include "conv_sums.h"
#include "rate_neuron.h"

namespace fskernel {
namespace {

// Blocks of output channels over the same pixels, densely: tile by tile, every tile for all steps,
// so that membranes and trains are touched once.
template <class V, int kMaxP, int kMaxN>
void rate_task(const ConvTask* task, int32_t parts) {
  constexpr int kTile = kMaxP * kMaxN * V::kLanes;
  alignas(64) int32_t sums[kTrainSteps * kTile], sums2[kTrainSteps * kTile];
  const ConvTask& shared = task[0];
  Accumulate of[kMaxParts][2][kMaxP];
  for (int32_t j = 0; j < parts; ++j)
    for (int32_t i = 0; i < task[j].group_count; ++i)
      for (int p = 1; p <= kMaxP; ++p)
        of[j][i][p - 1] = instance<V, kMaxP, kMaxN>(task[j].group[i], p, task[j].vectors);
  for (int64_t row = shared.row_begin; row < shared.row_end; ++row) {
    const int64_t left = shared.pixels - row * shared.cols;
    const int64_t cols = left < shared.cols ? left : shared.cols;
    const int64_t tiles = (cols + kMaxP - 1) / kMaxP;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t col = cols * i / tiles;
      const int pixels = static_cast<int>(cols * (i + 1) / tiles - col);
      for (int32_t j = 0; j < parts; ++j) {
        const ConvTask& t = task[j];
        const auto add_up_steps = [&](int32_t group, int32_t* to) {
          const TaskGroup& g = t.group[group];
          const Accumulate one = of[j][group][pixels - 1];
          const uint8_t* x = g.x + row * g.row_stride + col * g.pixel_stride;
          for (int32_t s = 0; s < t.steps; ++s)
            one(g, x + s * g.x_step, Ahead{g.weights, 0}, to + s * kTile);
        };
        RateRule rule{t.group[0].m, t.group[1].m, t.bias, t.residual_scale,
                      t.steps,      t.channels,   kTile,  kTile};
        RatePixels at{};
        if (t.group_count > 1) {
          add_up_steps(1, sums2);
          at.sums2 = sums2;
          at.sums2_pixel = t.vectors * V::kLanes;
        } else if (t.sums2) {
          at.sums2 = moved(t.sums2, row * t.sums2_row + col * t.sums2_pixel);
          at.sums2_pixel = t.sums2_pixel / 4;
          rule.sums2_step = t.sums2_step / 4;
        }
        add_up_steps(0, sums);
        at.sums = sums;
        at.sums_pixel = t.vectors * V::kLanes;
        if (t.residual) at.residual = t.residual + row * t.residual_row + col * t.residual_pixel;
        at.residual_pixel = t.residual_pixel;
        at.membrane = moved(t.membrane, row * t.membrane_row + col * t.membrane_pixel);
        at.membrane_pixel = t.membrane_pixel;
        at.y = t.y + row * t.y_row + col * t.y_pixel;
        at.y_pixel = t.y_pixel;
        at.pixels = pixels;
        fire_pixels<V>(rule, at);
      }
    }
  }
}

template <class V>
void list_events(const ListTask& task) {
  const ListTask t = task;
  uint32_t* to = t.events;
  uint32_t* start = t.starts;
  for (int64_t row = 0; row < t.rows; ++row)
    for (int32_t s = 0; s < t.steps; ++s) {
      const uint8_t* x = t.x + row * t.row;
      uint32_t base = 0;
      for (int64_t col = 0; col < t.width; ++col) {
        *start++ = static_cast<uint32_t>(to - t.events);
        for (int64_t c = 0; c < t.channels; c += 64) {
          const int64_t n = t.channels - c < 64 ? t.channels - c : 64;
          uint8_t last[64];
          const uint8_t* from = x;
          if (t.end - x < 64) {
            __builtin_memset(last, 0, 64);
            __builtin_memcpy(last, x, n);
            from = last;
          }
          uint64_t mask = V::fired_at(from, s);
          if (n < 64) mask &= (uint64_t{1} << n) - 1;
          to = V::append(to, mask, base, t.scale);
          x += n;
          base += static_cast<uint32_t>(n) * t.scale;
        }
      }
      *start++ = static_cast<uint32_t>(to - t.events);
    }
}

// The rows of one synapse group's taps that lie inside the image, for one row of output pixels.
struct EventRows {
  const uint32_t* starts;  // of the first of them
  int64_t rows, row_step;  // in numbers, from one tap's row to the next
  uint32_t shift, shift_step;
};

FS_INLINE EventRows event_rows(const EventGroup& g, int64_t row, int32_t steps) {
  const Geometry& k = g.geometry;
  const int64_t top = row * k.stride_h - k.pad_top, line = steps * (g.width + 1);
  int64_t first, count;
  clip_taps(top, k.dilation_h, k.kernel_h, g.height, first, count);
  const int64_t y = count ? top + first * k.dilation_h - g.first_row : 0;
  const uint32_t step = static_cast<uint32_t>(k.kernel_w) * g.column_bytes;
  return {g.starts + y * line, count, k.dilation_h * line, static_cast<uint32_t>(first) * step,
          step};
}

// Positions of the weights of all spikes that reach a neuron.
struct Reached {
  const uint8_t* weights;
  const uint32_t* at;
  int64_t n;
};

// Those of column `col` at step s. `to` is room for them and a vector more.
template <class V>
FS_INLINE Reached gather(const EventGroup& g, const EventRows& rows, int64_t col, int32_t s,
                         uint32_t* to) {
  const Geometry& k = g.geometry;
  const int64_t left = col * k.stride_w - k.pad_left;
  const uint32_t* start = rows.starts + s * (g.width + 1);
  if (k.dilation_w > 1) {
    uint32_t* end = to;
    uint32_t shift = rows.shift;
    for (int64_t i = 0; i < rows.rows; ++i, start += rows.row_step, shift += rows.shift_step)
      for (int64_t kx = 0; kx < k.kernel_w; ++kx) {
        const int64_t x = left + kx * k.dilation_w;
        if (x < 0 || x >= g.width) continue;
        const uint32_t by = shift + static_cast<uint32_t>(kx - x) * g.column_bytes;
        for (uint32_t e = start[x]; e < start[x + 1]; ++e) *end++ = g.events[e] + by;
      }
    return {g.weights, to, end - to};
  }
  // The spikes of a row of taps lie side by side.
  const int64_t low = left > 0 ? left : 0;
  const int64_t high = left + k.kernel_w < g.width ? left + k.kernel_w : g.width;
  if (low >= high) return {g.weights, to, 0};
  if (rows.rows == 1 && g.direct)
    return {g.weights + rows.shift - left * int64_t{g.column_bytes}, g.events + start[low],
            int64_t{start[high]} - start[low]};
  uint32_t* end = to;
  uint32_t shift = rows.shift - static_cast<uint32_t>(left) * g.column_bytes;
  for (int64_t i = 0; i < rows.rows; ++i, start += rows.row_step, shift += rows.shift_step) {
    const typename V::Int by = V::broadcast(shift);
    const uint32_t* from = g.events + start[low];
    const int64_t n = int64_t{start[high]} - start[low];
    for (int64_t e = 0; e < n; e += V::kLanes) V::store(end + e, V::add(V::load(from + e), by));
    end += n;
  }
  return {g.weights, to, end - to};
}

// Spikes whose int8 weights may be added up in 16 bits: 258 times 127 is below 2^15.
constexpr int64_t kNarrowSpikes = 258;

// Sums over n spikes of N vectors of weights: int16, which were int8, widened after some spikes; or
// int32, which were int16.
template <class V, int N, bool kWide>
__attribute__((noinline)) void add_events(const uint8_t* weights, const uint32_t* at, int64_t n,
                                          int32_t* sums) {
  constexpr int64_t kBytes = 4 * V::kLanes;
  int64_t done = 0;
  do {
    typename V::Int acc[N];
    FS_UNROLL
    for (int i = 0; i < N; ++i) acc[i] = V::zero();
    const int64_t end = kWide || n - done <= kNarrowSpikes ? n : done + kNarrowSpikes;
    for (int64_t k = done; k < end; ++k) {
      const uint8_t* w = weights + at[k];
      FS_UNROLL
      for (int i = 0; i < N; ++i)
        acc[i] = kWide ? V::add(acc[i], V::load(w + kBytes * i))
                       : V::add_s16(acc[i], V::load(w + kBytes * i));
    }
    FS_UNROLL
    for (int i = 0; i < N; ++i) {
      if constexpr (kWide) {
        V::store(sums + i * V::kLanes, acc[i]);
      } else {
        int32_t* to = sums + 2 * i * V::kLanes;
        const typename V::Int low = V::low_s16(acc[i]), high = V::high_s16(acc[i]);
        V::store(to, done ? V::add(low, V::load(to)) : low);
        to += V::kLanes;
        V::store(to, done ? V::add(high, V::load(to)) : high);
      }
    }
    done = end;
  } while (done < n);
}

using AddEvents = void (*)(const uint8_t*, const uint32_t*, int64_t, int32_t*);

template <class V, bool kWide, int N = kEventVectors>
AddEvents events_of(int32_t vectors) {
  if (vectors == N) return &add_events<V, N, kWide>;
  if constexpr (N > 1)
    return events_of<V, kWide, N - 1>(vectors);
  else
    return nullptr;
}

template <class V>
void event_task(const EventTask& task) {
  const EventTask t = task;
  const bool wide = t.weight_bytes == 4;
  const AddEvents add = wide ? events_of<V, true>(t.vectors) : events_of<V, false>(t.vectors);
  constexpr int kMost = 2 * kEventVectors * V::kLanes;
  alignas(64) int32_t sums[2][kTrainSteps * kMost];
  const RateRule rule{t.group[0].m, t.group[1].m, t.bias, t.residual_scale,
                      t.steps,      t.channels,   kMost,  kMost};
  RatePixels at{};
  at.sums = sums[0];
  if (t.group_count > 1) at.sums2 = sums[1];
  at.pixels = 1;
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    EventRows rows[2];
    for (int32_t i = 0; i < t.group_count; ++i) rows[i] = event_rows(t.group[i], row, t.steps);
    for (int64_t col = 0; col < t.out_w; ++col) {
      for (int32_t i = 0; i < t.group_count; ++i)
        for (int32_t s = 0; s < t.steps; ++s) {
          const Reached r = gather<V>(t.group[i], rows[i], col, s, t.gathered);
          add(r.weights, r.at, r.n, sums[i] + s * kMost);
        }
      if (t.residual) at.residual = t.residual + row * t.residual_row + col * t.residual_pixel;
      at.membrane = moved(t.membrane, row * t.membrane_row + col * t.membrane_pixel);
      at.y = t.y + row * t.y_row + col * t.y_pixel;
      fire_pixels<V>(rule, at);
    }
  }
}

}  // namespace
}  // namespace fskernel
