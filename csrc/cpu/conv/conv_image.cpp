#include "conv_image.h"

#include <algorithm>
#include <cstring>

namespace fskernel {
namespace {

constexpr int64_t kCacheChunk = 512 << 10;  // bytes of a task that shall stay in the second level
constexpr int64_t kPartChannels = 64;       // output channels that a task computes side by side

int bits_of(int32_t x_max) {
  int bits = 0;
  while (x_max >> bits) ++bits;
  return bits;
}

// The part of a TaskGroup that all tasks of an image share.
TaskGroup task_group(const ConvGroup& group, const Map& x, int32_t plane_bits) {
  const Geometry& g = group.header.geometry;
  const Layout& l = group.layout;
  TaskGroup t{};
  t.x = x.data;
  t.pixel_stride = g.stride_w * x.pixel;
  t.row_stride = g.stride_h * x.row;
  t.outer_runs = l.outer_runs;
  t.outer_step = g.dilation_h * x.row;
  t.inner_runs = l.inner_runs;
  t.inner_step = g.dilation_w * x.pixel;
  t.dwords = l.dwords;
  t.family = l.family;
  // Graded values (x_min < 0) are taken whole, and so is what is not wider than a plane group.
  const int bits = bits_of(group.header.x_max);
  const bool split = plane_bits > 0 && group.header.x_min >= 0 && bits > plane_bits;
  t.plane_groups = split ? (bits + plane_bits - 1) / plane_bits : 1;
  t.plane_bits = plane_bits;
  return t;
}

// Where the pixels of all rows of all operands have affine addresses, an image is walked as one row
// that is cut at will; else row by row. Sets the row strides, rows and columns of the task.
int64_t lay_rows(const Kernels& kernels, int64_t out_h, int64_t out_w, ConvTask& t) {
  const auto affine = [&](int64_t row, int64_t pixel) { return row == out_w * pixel; };
  bool all = affine(t.y_row, t.y_pixel) && (!t.sums2 || affine(t.sums2_row, t.sums2_pixel)) &&
             (!t.residual || affine(t.residual_row, t.residual_pixel)) &&
             (!t.steps || affine(t.membrane_row, t.membrane_pixel));
  for (int32_t i = 0; i < t.group_count; ++i)
    all = all && affine(t.group[i].row_stride, t.group[i].pixel_stride);
  t.pixels = out_h * out_w;
  t.cols = out_w;
  if (!all) return out_h;
  t.cols = std::min<int64_t>(8 * kernels.max_pixels, t.pixels);
  t.y_row = t.cols * t.y_pixel;
  t.sums2_row = t.cols * t.sums2_pixel;
  t.residual_row = t.cols * t.residual_pixel;
  t.membrane_row = t.cols * t.membrane_pixel;
  for (int32_t i = 0; i < t.group_count; ++i)
    t.group[i].row_stride = t.cols * t.group[i].pixel_stride;
  return (t.pixels + t.cols - 1) / t.cols;
}

// Blocks of a group that one task takes, and tasks of a group of output channels.
int64_t parts_of(const Kernels& kernels) {
  const int64_t block = kernels.lanes * kernels.max_vectors;
  return std::clamp<int64_t>(kPartChannels / block, 1, kMaxParts);
}
int64_t tasks_of(const Kernels& kernels, const Layout& l) {
  return (l.blocks + parts_of(kernels) - 1) / parts_of(kernels);
}

// All tasks of an image: chunks of rows outside, so that weights stream past an input that stays in
// the cache.
struct Job {
  const Kernels* kernels;
  const ConvGroup* groups;  // as many as task.group_count
  const float* m2;          // of sums that were computed beforehand
  ConvTask task;            // what all tasks share
  int64_t rows, chunk_rows, chunks;
  Stretch ahead[2];  // what is read after the last task
};

// Fills in what a block of output channels changes in one synapse group.
void select_block(const Kernels& kernels, const ConvGroup& g, int64_t group, int64_t block,
                  TaskGroup& t) {
  const Layout& l = g.layout;
  const int64_t vector = group * l.vectors + block_begin(l, block);
  const int64_t input_channel =
      l.depthwise ? vector * kernels.lanes : group * g.header.in_channels_per_group;
  t.x += input_channel * l.x_bytes;
  t.weights = g.weights + vector * l.vector_bytes;
  t.m = g.m + vector * kernels.lanes;
}

// What a kernel is told about one block of output channels.
ConvTask part_of(const Job& job, int64_t group, int64_t block) {
  const Kernels& kernels = *job.kernels;
  const Layout& l = job.groups[0].layout;
  const int64_t first = block_begin(l, block), vectors = block_begin(l, block + 1) - first;
  const int64_t vector = group * l.vectors + first;
  const int64_t channel = group * l.channels + first * kernels.lanes;
  ConvTask t = job.task;
  for (int32_t i = 0; i < t.group_count; ++i)
    select_block(kernels, job.groups[i], group, block, t.group[i]);
  if (t.sums2) {
    t.group[1].m = job.m2 + vector * kernels.lanes;
    t.sums2 += channel;
  }
  if (t.bias) t.bias += vector * kernels.lanes;
  if (t.top) t.top += vector * kernels.lanes;
  if (t.shape.row) t.shape.table += vector * kernels.lanes * t.shape.row;
  t.y += channel * (t.raw ? 4 : t.y_bytes);
  if (t.steps) t.membrane += channel;
  if (t.residual) t.residual += channel * t.residual_bytes;
  t.vectors = static_cast<int32_t>(vectors);
  t.channels = static_cast<int32_t>(
      std::min<int64_t>(vectors * kernels.lanes, l.channels - first * kernels.lanes));
  return t;
}

// Weights that a task reads, in the order of reading: the second group's come first.
void weights_of(const Kernels& kernels, const ConvGroup* groups, int32_t count, int64_t task,
                Stretch (&to)[2]) {
  for (int32_t i = 0; i < count; ++i) {
    const Layout& l = groups[i].layout;
    const int64_t tasks = tasks_of(kernels, l), parts = parts_of(kernels);
    const int64_t first = task % tasks * parts, last = std::min(l.blocks, first + parts);
    to[count - 1 - i] = {
        groups[i].weights + (task / tasks * l.vectors + block_begin(l, first)) * l.vector_bytes,
        (block_begin(l, last) - block_begin(l, first)) * l.vector_bytes};
  }
}

int64_t run_task(const Job& job, int64_t index) {
  const Layout& l = job.groups[0].layout;
  const int64_t parts = parts_of(*job.kernels), tasks = tasks_of(*job.kernels, l);
  const int64_t group = index / tasks % l.groups, first = index % tasks * parts;
  const int64_t last = std::min(l.blocks, first + parts);
  ConvTask part[kMaxParts];
  for (int64_t block = first; block < last; ++block) {
    ConvTask& t = part[block - first] = part_of(job, group, block);
    t.row_begin = index / (tasks * l.groups) * job.chunk_rows;
    t.row_end = std::min(job.rows, t.row_begin + job.chunk_rows);
  }
  if (index + 1 == tasks * l.groups * job.chunks)
    std::copy_n(job.ahead, 2, part[0].ahead);
  else if (tasks * l.groups > 1)  // else the next task's weights are this one's
    weights_of(*job.kernels, job.groups, job.task.group_count, (index + 1) % (tasks * l.groups),
               part[0].ahead);
  if (!job.task.steps) return job.kernels->conv(part, static_cast<int32_t>(last - first));
  job.kernels->rate(part, static_cast<int32_t>(last - first));
  return 0;
}

int64_t run_job(Job& job, int64_t out_h, int64_t out_w, const Executor& executor) {
  const Layout& l = job.groups[0].layout;
  const int64_t tasks = l.groups * tasks_of(*job.kernels, l);
  job.rows = lay_rows(*job.kernels, out_h, out_w, job.task);
  // Between one task and the next the input stays in the cache, and so do the lines of output and
  // residual that the next task may share.
  const int64_t row_bytes = job.task.group[0].row_stride + job.task.cols * 4 * kPartChannels;
  job.chunk_rows = tasks > 1 ? std::max<int64_t>(1, kCacheChunk / row_bytes) : job.rows;
  const int64_t wanted = executor.threads > 1 ? (4 * executor.threads + tasks - 1) / tasks : 1;
  job.chunk_rows = std::max<int64_t>(1, std::min(job.chunk_rows, (job.rows + wanted - 1) / wanted));
  job.chunks = (job.rows + job.chunk_rows - 1) / job.chunk_rows;
  int64_t spikes = 0;
  split(executor, job.chunks * tasks, [&](int64_t begin, int64_t end) {
    int64_t sum = 0;
    for (int64_t index = begin; index < end; ++index) sum += run_task(job, index);
    __atomic_fetch_add(&spikes, sum, __ATOMIC_RELAXED);
  });
  return spikes;
}

int64_t run_depth(const Kernels& kernels, const ConvLayer& layer, const ConvImage& image,
                  const Executor& executor) {
  const Map &x = image.x[0], &y = image.y;
  const ConvGroup& group = layer.group[0];
  const Geometry& g = group.header.geometry;
  const Layout& l = group.layout;
  DepthTask task{};
  task.x = x.data;
  task.pixel_stride = g.stride_w * x.pixel;
  task.row_stride = g.stride_h * x.row;
  task.tap_stride = g.dilation_w * x.pixel;
  task.kernel_stride = g.dilation_h * x.row;
  task.kernel_h = g.kernel_h;
  task.kernel_w = g.kernel_w;
  task.outputs = l.depth_outputs;
  task.operands = l.depth_operands;
  task.weights = group.weights - kPackHeaderBytes + l.depth_at;
  task.m = layer.depth_m;
  task.bias = layer.depth_bias;
  task.top = layer.depth_top;
  task.shape = layer.shape;
  task.fitted = layer.fitted;
  task.step = layer.step;
  task.y = y.data;
  task.y_pixel = y.pixel;
  task.y_row = y.row;
  task.y_bytes = y.bytes;
  task.family = l.family;
  task.K = layer.K;
  task.limit = layer.limit;
  task.count = image.count;
  task.channels = y.channels;
  task.out_w = y.width;
  int64_t spikes = 0;
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    DepthTask t = task;
    t.row_begin = begin;
    t.row_end = end;
    __atomic_fetch_add(&spikes, kernels.depth(t), __ATOMIC_RELAXED);
  });
  return spikes;
}

}  // namespace

int64_t conv_image(const Kernels& kernels, const ConvLayer& layer, const ConvImage& image,
                   const Executor& executor) {
  const Map& y = image.y;
  if (!image.steps && layer.depth_m &&
      task_group(layer.group[0], image.x[0], image.plane_bits).plane_groups == 1)
    return run_depth(kernels, layer, image, executor);
  Job job{};
  job.kernels = &kernels;
  job.groups = layer.group;
  ConvTask& t = job.task;
  t.group_count = layer.separate ? 1 : layer.group_count;
  for (int32_t i = 0; i < t.group_count; ++i)
    t.group[i] = task_group(layer.group[i], image.x[i], image.plane_bits);
  if (layer.separate) {
    Job second{};
    second.kernels = &kernels;
    second.groups = &layer.group[1];
    ConvTask& s = second.task;
    s.group_count = 1;
    s.group[0] = task_group(layer.group[1], image.x[1], image.plane_bits);
    s.raw = true;
    s.y = reinterpret_cast<uint8_t*>(image.sums);
    s.y_pixel = 4 * y.channels;
    s.y_row = y.width * s.y_pixel;
    const int64_t sums = y.height * y.width * y.channels;
    t.sums2_step = 4 * sums;
    for (int32_t step = 0; step < std::max(image.steps, 1); ++step) {
      Job one = second;
      one.task.group[0].x += step * image.x_step[1];
      one.task.y += step * t.sums2_step;
      run_job(one, y.height, y.width, executor);
    }
    // The first group's kernel may read a vector beyond the last channel.
    std::memset(image.sums + std::max(image.steps, 1) * sums, 0, kernels.lanes * 4);
    t.sums2 = image.sums;
    t.sums2_pixel = s.y_pixel;
    t.sums2_row = y.width * s.y_pixel;
    job.m2 = layer.group[1].m;
  }
  if (image.steps) {
    t.steps = image.steps;
    for (int32_t i = 0; i < t.group_count; ++i) t.group[i].x_step = image.x_step[i];
    t.membrane = image.membrane;
    t.membrane_pixel = 4 * y.channels;
    t.membrane_row = y.width * t.membrane_pixel;
  }
  t.K = layer.K;
  t.limit = layer.limit;
  t.count = image.count;
  t.saturates = layer.saturates;
  t.step = layer.step;
  t.bias = layer.bias;
  t.top = layer.top;
  t.shape = layer.shape;
  t.fitted = layer.fitted;
  t.y = y.data;
  t.y_pixel = y.pixel;
  t.y_row = y.row;
  t.y_bytes = y.bytes;
  if (layer.has_residual) {
    t.residual = image.residual.data;
    t.residual_pixel = image.residual.pixel;
    t.residual_row = image.residual.row;
    t.residual_bytes = image.residual.bytes;
    t.residual_scale = layer.residual_scale;
  }
  std::copy_n(image.ahead, 2, job.ahead);
  return run_job(job, y.height, y.width, executor);
}

void leading_weights(const Kernels& kernels, const ConvLayer& layer, Stretch (&to)[2]) {
  if (layer.depth_m) {
    const Layout& l = layer.group[0].layout;
    to[0] = {layer.group[0].weights - kPackHeaderBytes + l.depth_at, l.bytes - l.depth_at};
    return;
  }
  const ConvGroup* first = layer.separate ? layer.group + 1 : layer.group;
  weights_of(kernels, first, layer.separate ? 1 : layer.group_count, 0, to);
}

}  // namespace fskernel
