#include "rate_layer.h"

#include <algorithm>
#include <cstring>

#include "../conv/conv_image.h"
#include "../conv/layer_of.h"
#include "../scratch.h"

namespace fskernel {
namespace {

// Bytes of a band of rows that shall stay in the second cache level: its spikes of every step, and
// where they are listed in the worst case, that all neurons fire.
constexpr int64_t kBandBytes = 512 << 10, kListBytes = 4 << 20;

struct ThreadScratch {
  Scratch input[2], row, sums, events[2], starts[2], gathered, parameters;
};
thread_local ThreadScratch scratch;

// Rows of an input that rows [begin, end) of the output read; in the image they may lie outside.
struct Span {
  int64_t begin, end;
};
Span read_by(const Geometry& g, int64_t begin, int64_t end) {
  return {begin * g.stride_h - g.pad_top,
          (end - 1) * g.stride_h - g.pad_top + (g.kernel_h - 1) * int64_t{g.dilation_h} + 1};
}

// What all bands of an image share.
struct Layer {
  const Kernels* kernels;
  const RateCall* call;
  ConvLayer conv;
  Rows rows[2];
  const float *m[2], *bias;  // of the events, padded to whole blocks
};

const uint8_t* image_of(const ConvInput& in, int64_t n) {
  return static_cast<const uint8_t*>(in.x) + n * in.height * in.width * in.channels;
}

// Spikes of every step of some padded rows, as the dense kernel reads them: a step's behind
// another's.
Map spread(const Layer& layer, int32_t i, const uint8_t* x, Span rows, int64_t& step_bytes) {
  const Kernels& kernels = *layer.kernels;
  const ConvInput& in = layer.call->conv.input[i];
  const Geometry& g = in.geometry;
  const int32_t bytes = layer.conv.group[i].layout.x_bytes;
  const int64_t width = in.width + g.pad_left + g.pad_right, numbers = in.width * in.channels;
  const int64_t row_bytes = width * in.channels * bytes, before = g.pad_left * in.channels * bytes;
  step_bytes = (rows.end - rows.begin) * row_bytes;
  uint8_t* to = scratch.input[i].reserve(layer.call->steps * step_bytes + kReadSlack);
  uint8_t* narrow = scratch.row.reserve(numbers);
  for (int32_t s = 0; s < layer.call->steps; ++s)
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      uint8_t* at = to + s * step_bytes + (y - rows.begin) * row_bytes;
      if (y < 0 || y >= in.height) {
        std::memset(at, 0, row_bytes);
        continue;
      }
      std::memset(at, 0, before);
      kernels.spikes_at(x + y * numbers, s, bytes == 1 ? at + before : narrow, numbers);
      if (bytes != 1) kernels.convert(narrow, 1, at + before, bytes, numbers);
      std::memset(at + before + numbers * bytes, 0, row_bytes - before - numbers * bytes);
    }
  std::memset(to + layer.call->steps * step_bytes, 0, kReadSlack);
  return dense_map(to, bytes, rows.end - rows.begin, width, in.channels);
}

void run_dense(const Layer& layer, int64_t n, int64_t begin, int64_t end) {
  const ConvCall& call = layer.call->conv;
  const int64_t row = call.out_w * call.out_channels, at = (n * call.out_h + begin) * row;
  ConvImage image{};
  for (int32_t i = 0; i < call.input_count; ++i)
    image.x[i] = spread(layer, i, image_of(call.input[i], n),
                        read_by(call.input[i].geometry, begin, end), image.x_step[i]);
  image.y =
      dense_map(static_cast<uint8_t*>(call.y) + at, 1, end - begin, call.out_w, call.out_channels);
  if (call.residual)
    image.residual = dense_map(static_cast<const uint8_t*>(call.residual) + at, 1, end - begin,
                               call.out_w, call.out_channels);
  image.steps = layer.call->steps;
  image.membrane = call.membrane + at;
  if (layer.conv.separate)
    image.sums = reinterpret_cast<int32_t*>(
        scratch.sums.reserve(4 * (image.steps * (end - begin) * row + layer.kernels->lanes)));
  conv_image(*layer.kernels, layer.conv, image, {1, nullptr});
}

void run_events(const Layer& layer, int64_t n, int64_t begin, int64_t end) {
  const Kernels& kernels = *layer.kernels;
  const ConvCall& call = layer.call->conv;
  const int32_t steps = layer.call->steps;
  EventTask task{};
  int64_t most = 0;  // inputs of a neuron
  for (int32_t i = 0; i < call.input_count; ++i) {
    const ConvInput& in = call.input[i];
    const Geometry& g = in.geometry;
    const Rows& rows = layer.rows[i];
    Span span = read_by(g, begin, end);
    span = {std::clamp<int64_t>(span.begin, 0, in.height),
            std::clamp<int64_t>(span.end, 0, in.height)};
    span.end = std::max(span.begin, span.end);
    const int64_t row = in.width * in.channels, listed = span.end - span.begin;
    const uint8_t* x = image_of(in, n);
    auto* events = reinterpret_cast<uint32_t*>(
        scratch.events[i].reserve(4 * (listed * row * steps + kReadSlack)));
    auto* starts =
        reinterpret_cast<uint32_t*>(scratch.starts[i].reserve(4 * listed * steps * (in.width + 1)));
    const uint8_t* all = static_cast<const uint8_t*>(in.x);
    kernels.list_events({x + span.begin * row, all + call.images * in.height * row, row, listed,
                         in.width, in.channels, steps, static_cast<uint32_t>(rows.row_bytes),
                         events, starts});
    const auto column = static_cast<uint32_t>(rows.column_bytes);
    task.group[i].events = events;
    task.group[i].starts = starts;
    task.group[i].first_row = span.begin;
    task.group[i].height = in.height;
    task.group[i].width = in.width;
    task.group[i].geometry = g;
    task.group[i].column_bytes = column;
    task.group[i].direct = in.width * rows.column_bytes < INT32_MAX;
    most = std::max(most, int64_t{g.kernel_h} * g.kernel_w * in.channels);
  }
  task.group_count = call.input_count;
  task.weight_bytes = layer.rows[0].weight_bytes;
  task.steps = steps;
  task.gathered = reinterpret_cast<uint32_t*>(scratch.gathered.reserve(4 * (most + kReadSlack)));
  task.row_begin = begin;
  task.row_end = end;
  task.out_w = call.out_w;
  const int64_t image = n * call.out_h * call.out_w * call.out_channels;
  task.residual_scale = call.residual_scale;
  task.y_pixel = task.residual_pixel = call.out_channels;
  task.y_row = task.residual_row = call.out_w * call.out_channels;
  task.membrane_pixel = 4 * task.y_pixel;
  task.membrane_row = 4 * task.y_row;
  const Rows& rows = layer.rows[0];  // the other group's has the same blocks
  for (int64_t block = 0; block < rows.blocks; ++block) {
    const int64_t channel = block * rows.block_channels;
    EventTask t = task;
    for (int32_t i = 0; i < call.input_count; ++i) {
      t.group[i].weights =
          layer.call->rows[i] + kPackHeaderBytes + block * layer.rows[i].block_bytes;
      t.group[i].m = layer.m[i] + channel;
    }
    t.bias = layer.bias + channel;
    t.vectors = static_cast<int32_t>(rows.vectors);
    t.channels = static_cast<int32_t>(std::min(rows.block_channels, call.out_channels - channel));
    t.y = static_cast<uint8_t*>(call.y) + image + channel;
    if (call.residual) t.residual = static_cast<const uint8_t*>(call.residual) + image + channel;
    t.membrane = call.membrane + image + channel;
    kernels.events(t);
  }
}

// Whether sums spike by spike are expected to take less time than dense ones.
bool cheaper_by_events(const Kernels& kernels, const RateCall& call) {
  const EventCosts& cost = kernels.event_costs;
  const auto pixels = static_cast<double>(call.conv.out_h * call.conv.out_w);
  double dense = 0, events = 0;
  for (int32_t i = 0; i < call.conv.input_count; ++i) {
    const ConvInput& in = call.conv.input[i];
    const ConvGroup group = conv_group(kernels, in.packed);
    const Layout& l = group.layout;
    dense +=
        pixels * static_cast<double>(l.groups * l.vectors * l.outer_runs * l.inner_runs * l.dwords);
    const Rows rows = rows_of(kernels, call.rows[i]);
    const int64_t neurons = in.height * in.width * in.channels;
    const double spikes = static_cast<double>(kernels.spikes_in(in.x, call.conv.images * neurons));
    const double density =
        neurons ? spikes / static_cast<double>(call.conv.images * neurons * call.steps) : 0;
    const double reached =
        density * static_cast<double>(in.geometry.kernel_h * in.geometry.kernel_w * in.channels);
    events += cost.list * static_cast<double>(in.height * in.width * ((in.channels + 63) / 64));
    events +=
        pixels * static_cast<double>(rows.blocks) *
        (cost.pixel + reached * (cost.spike + cost.vector * static_cast<double>(rows.vectors)));
  }
  return events < dense;
}

bool has_rows(const RateCall& call) {
  for (int32_t i = 0; i < call.conv.input_count; ++i)
    if (!call.rows[i]) return false;
  return true;
}

bool by_events(const Kernels& kernels, const RateCall& call) {
  if (call.path != RatePath::kAuto) return call.path == RatePath::kEvents;
  return has_rows(call) && listable(call) && cheaper_by_events(kernels, call);
}

// Channels' numbers and zeros behind them.
const float* padded(const float* from, int64_t n, int64_t size, float*& to) {
  float* at = to;
  std::copy_n(from, n, at);
  std::fill(at + n, at + size, 0.0f);
  to += size;
  return at;
}

}  // namespace

bool listable(const RateCall& call) {
  for (int32_t i = 0; i < call.conv.input_count; ++i) {
    const ConvInput& in = call.conv.input[i];
    if (in.height * in.width * in.channels * call.steps > UINT32_MAX) return false;
  }
  return true;
}

std::string integrate_and_fire(const Kernels& kernels, const RateCall& call,
                               const Executor& executor) {
  const ConvCall& conv = call.conv;
  Layer layer{};
  layer.kernels = &kernels;
  layer.call = &call;
  const bool events = by_events(kernels, call);
  std::string what = "events";
  int64_t rows = conv.out_h;  // of a band
  const auto fits = [&](int64_t input_row, int64_t bytes) {
    rows = std::min(rows, std::max<int64_t>(1, bytes / std::max<int64_t>(1, input_row)));
  };
  if (events) {
    for (int32_t i = 0; i < conv.input_count; ++i) layer.rows[i] = rows_of(kernels, call.rows[i]);
    const int64_t size = layer.rows[0].blocks * layer.rows[0].block_channels;
    auto* to =
        reinterpret_cast<float*>(scratch.parameters.reserve(4 * size * (1 + conv.input_count)));
    layer.bias = padded(conv.bias, conv.out_channels, size, to);
    for (int32_t i = 0; i < conv.input_count; ++i) {
      layer.m[i] = padded(conv.input[i].m, conv.out_channels, size, to);
      const ConvInput& in = conv.input[i];
      fits(in.geometry.stride_h * in.width * in.channels * call.steps * 4, kListBytes);
    }
  } else {
    layer.conv = layer_of(kernels, conv, scratch.parameters);
    what = describe(kernels, layer.conv);
    for (int32_t i = 0; i < conv.input_count; ++i) {
      const ConvInput& in = conv.input[i];
      fits(in.geometry.stride_h * (in.width + in.geometry.pad_left + in.geometry.pad_right) *
               in.channels * call.steps * layer.conv.group[i].layout.x_bytes,
           kBandBytes);
    }
  }
  if (conv.images * conv.out_h * conv.out_w * conv.out_channels == 0) return what;
  if (executor.threads > 1 && conv.images < executor.threads)
    rows = std::min(rows, std::max<int64_t>(1, conv.out_h / (2 * executor.threads)));
  const int64_t bands = (conv.out_h + rows - 1) / rows;
  split(executor, conv.images * bands, [&](int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      const int64_t n = index / bands, begin = index % bands * rows;
      const int64_t end = std::min(conv.out_h, begin + rows), row = conv.out_w * conv.out_channels;
      events ? run_events(layer, n, begin, end) : run_dense(layer, n, begin, end);
      int64_t counts[kTrainSteps] = {};
      kernels.count_steps(static_cast<const uint8_t*>(conv.y) + (n * conv.out_h + begin) * row,
                          (end - begin) * row, call.steps, counts);
      for (int32_t s = 0; s < call.steps; ++s)
        __atomic_fetch_add(call.counts + s * conv.images + n, counts[s], __ATOMIC_RELAXED);
    }
  });
  return what;
}

void integrate_and_fire(const Kernels& kernels, const ConstantCall& call,
                        const Executor& executor) {
  constexpr int64_t kPart = 1 << 16;
  const int64_t parts = (call.size + kPart - 1) / kPart;
  split(executor, call.images * parts, [&](int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      const int64_t n = index / parts, begin = index % parts * kPart;
      const int64_t size = std::min(kPart, call.size - begin), at = n * call.size + begin;
      kernels.integrate(call.current + at, call.membrane + at, call.y + at, size, call.steps);
      int64_t counts[kTrainSteps] = {};
      kernels.count_steps(call.y + at, size, call.steps, counts);
      for (int32_t s = 0; s < call.steps; ++s)
        __atomic_fetch_add(call.counts + s * call.images + n, counts[s], __ATOMIC_RELAXED);
    }
  });
}

void gate_pool(const Kernels& kernels, const GateCall& call, const Executor& executor) {
  const Size out = output_size(call.geometry, call.height, call.width);
  const int64_t size = call.height * call.width * call.channels;
  each_image(executor, call.images, [&](int64_t n, const Executor& inner) {
    split(inner, out.h, [&](int64_t begin, int64_t end) {
      kernels.gate({call.x + n * size, call.totals + n * size,
                    call.y + n * out.h * out.w * call.channels, call.height, call.width,
                    call.channels, out.w, call.geometry, call.steps, begin, end});
    });
    kernels.add_totals(call.x + n * size, call.totals + n * size, size);
  });
}

}  // namespace fskernel
