#include "conv.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "pack.h"

namespace fskernel {
namespace {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kReadSlack = 64;          // kernels may read a vector beyond the last element
constexpr int64_t kCacheChunk = 256 << 10;  // bytes of a task that shall stay in the second level
constexpr int64_t kPartChannels = 64;       // output channels that a task computes side by side

// A buffer that grows and is kept by its thread from call to call, aligned to a cache line.
class Scratch {
 public:
  uint8_t* reserve(int64_t bytes) {
    if (bytes > size_) {
      memory_ = std::make_unique<uint8_t[]>(bytes + kCacheLine);
      size_ = bytes;
    }
    const auto at = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + (kCacheLine - at % kCacheLine) % kCacheLine;
  }

 private:
  std::unique_ptr<uint8_t[]> memory_;
  int64_t size_ = 0;
};

struct ThreadScratch {
  Scratch input[2], parameters, sums;
};
thread_local ThreadScratch scratch;

// One input as the kernel will see it.
struct Plan {
  const ConvInput* in;
  PackHeader header;
  Layout layout;
  bool copied;
  int64_t height, width;  // of the prepared image
  int64_t pixel_bytes;
  const float* m;  // padded
};

Plan plan_of(const Kernels& kernels, const ConvInput& in) {
  Plan p{};
  p.in = &in;
  std::memcpy(&p.header, in.packed, sizeof p.header);
  p.layout = layout_of(kernels, p.header);
  const Geometry& g = in.geometry;
  p.pixel_bytes = in.channels * p.layout.x_bytes;
  const bool padded = g.pad_top || g.pad_bottom || g.pad_left || g.pad_right;
  const bool ragged = p.layout.depthwise ? in.channels % kernels.lanes != 0
                                         : p.layout.run_length * p.layout.x_bytes % 4 != 0;
  p.copied = padded || ragged || in.x_bytes != p.layout.x_bytes;
  p.height = in.height + (p.copied ? g.pad_top + g.pad_bottom : 0);
  p.width = in.width + (p.copied ? g.pad_left + g.pad_right : 0);
  return p;
}

void fill(uint8_t* to, int32_t bytes, int32_t code, int64_t n) {
  if (bytes == 1)
    std::memset(to, code, n);
  else
    std::fill_n(reinterpret_cast<int16_t*>(to), n, static_cast<int16_t>(code));
}

// Rows [begin, end) of the prepared image: halo and, where the types differ, conversion.
void prepare_rows(const Kernels& kernels, const Plan& p, int64_t image, uint8_t* to, int64_t begin,
                  int64_t end) {
  const ConvInput& in = *p.in;
  const Geometry& g = in.geometry;
  const int32_t bytes = p.layout.x_bytes;
  const int64_t row_bytes = p.width * p.pixel_bytes, row_elements = in.width * in.channels;
  for (int64_t row = begin; row < end; ++row) {
    uint8_t* at = to + row * row_bytes;
    const int64_t y = row - g.pad_top;
    if (y < 0 || y >= in.height) {
      fill(at, bytes, g.pad_code, p.width * in.channels);
      continue;
    }
    fill(at, bytes, g.pad_code, g.pad_left * in.channels);
    at += g.pad_left * p.pixel_bytes;
    const int64_t from = (image * in.height + y) * row_elements * in.x_bytes;
    kernels.convert(static_cast<const uint8_t*>(in.x) + from, in.x_bytes, at, bytes, row_elements);
    fill(at + row_elements * bytes, bytes, g.pad_code, g.pad_right * in.channels);
  }
}

// m or bias with every group's last vector filled up with zeros.
const float* pad_channels(const Kernels& kernels, const Layout& l, const float* from, float* to) {
  const int64_t padded = l.vectors * kernels.lanes;
  for (int64_t g = 0; g < l.groups; ++g) {
    std::copy_n(from + g * l.channels, l.channels, to + g * padded);
    std::fill_n(to + g * padded + l.channels, padded - l.channels, 0.0f);
  }
  return to;
}

int bits_of(int32_t x_max) {
  int bits = 0;
  while (x_max >> bits) ++bits;
  return bits;
}

// The part of a TaskGroup that all tasks of an image share.
TaskGroup task_group(const Plan& p, const uint8_t* x, int32_t plane_bits) {
  const Geometry& g = p.in->geometry;
  const Layout& l = p.layout;
  const int64_t row_bytes = p.width * p.pixel_bytes;
  TaskGroup t{};
  t.x = x;
  t.pixel_stride = g.stride_w * p.pixel_bytes;
  t.row_stride = g.stride_h * row_bytes;
  t.outer_runs = l.outer_runs;
  t.outer_step = g.dilation_h * row_bytes;
  t.inner_runs = l.inner_runs;
  t.inner_step = g.dilation_w * p.pixel_bytes;
  t.dwords = l.dwords;
  t.family = l.family;
  // Graded values (x_min < 0) are taken whole, and so is what is not wider than a plane group.
  const int bits = bits_of(p.header.x_max);
  const bool split = plane_bits > 0 && p.header.x_min >= 0 && bits > plane_bits;
  t.plane_groups = split ? (bits + plane_bits - 1) / plane_bits : 1;
  t.plane_bits = plane_bits;
  return t;
}

// How the output pixels of an image are walked: as its rows, or, where the pixels of all rows have
// affine addresses, as one row that is cut at will.
struct Walk {
  int64_t rows, cols, chunk_rows, chunks;
};

Walk walk_of(const Kernels& kernels, TaskGroup* groups, int32_t count, int64_t out_h, int64_t out_w,
             int64_t tasks, int threads) {
  Walk w{out_h, out_w, 0, 0};
  bool affine = true;
  for (int32_t i = 0; i < count; ++i)
    affine = affine && groups[i].row_stride == out_w * groups[i].pixel_stride;
  if (affine) {
    w.cols = std::min<int64_t>(8 * kernels.max_pixels, out_h * out_w);
    w.rows = (out_h * out_w + w.cols - 1) / w.cols;
    for (int32_t i = 0; i < count; ++i) groups[i].row_stride = w.cols * groups[i].pixel_stride;
  }
  // Between one task and the next the input stays in the cache, and so do the lines of output and
  // residual that the next task may share.
  const int64_t row_bytes = groups[0].row_stride + w.cols * 4 * kPartChannels;
  w.chunk_rows = tasks > 1 ? std::max<int64_t>(1, kCacheChunk / row_bytes) : w.rows;
  const int64_t wanted = threads > 1 ? (4 * threads + tasks - 1) / tasks : 1;
  w.chunk_rows = std::max<int64_t>(1, std::min(w.chunk_rows, (w.rows + wanted - 1) / wanted));
  w.chunks = (w.rows + w.chunk_rows - 1) / w.chunk_rows;
  return w;
}

struct ImageJob {
  const Kernels* kernels;
  const Plan* plans;
  ConvTask task;  // what all tasks of this image share; group[] as made by task_group
  Walk walk;
  uint8_t* prepared[2];
  int64_t image;
  int64_t spikes;
};

void prepare_body(void* context, int64_t begin, int64_t end) {
  auto& job = *static_cast<ImageJob*>(context);
  const int64_t first = job.plans[0].copied ? job.plans[0].height : 0;
  if (begin < first)
    prepare_rows(*job.kernels, job.plans[0], job.image, job.prepared[0], begin,
                 std::min(end, first));
  if (end > first)
    prepare_rows(*job.kernels, job.plans[1], job.image, job.prepared[1],
                 std::max<int64_t>(begin - first, 0), end - first);
}

// Fills in what a block of output channels changes in one synapse group.
void select_block(const Kernels& kernels, const Plan& p, int64_t group, int64_t block,
                  TaskGroup& t) {
  const Layout& l = p.layout;
  const int64_t vector = group * l.vectors + block * kernels.max_vectors;
  const int64_t input_channel = l.depthwise ? block * kernels.max_vectors * kernels.lanes
                                            : group * p.header.in_channels_per_group;
  t.x += input_channel * l.x_bytes;
  t.weights = p.in->packed + kPackHeaderBytes + vector * l.vector_bytes;
  t.m = p.m + vector * kernels.lanes;
}

// Blocks of a group that one task takes, and tasks of a group of output channels.
int64_t parts_of(const Kernels& kernels) {
  const int64_t block = kernels.lanes * kernels.max_vectors;
  return std::clamp<int64_t>(kPartChannels / block, 1, kMaxParts);
}
int64_t tasks_of(const Kernels& kernels, const Layout& l) {
  return (l.blocks + parts_of(kernels) - 1) / parts_of(kernels);
}

// What a kernel is told about one block of output channels.
ConvTask part_of(const ImageJob& job, int64_t group, int64_t block) {
  const Kernels& kernels = *job.kernels;
  const Layout& l = job.plans[0].layout;
  const int64_t y_bytes = job.task.K >= 1 && job.task.K <= 8 ? 1 : 2;
  const int64_t first_vector = block * kernels.max_vectors;
  const int64_t vector = group * l.vectors + first_vector;
  const int64_t channel = group * l.channels + first_vector * kernels.lanes;
  ConvTask t = job.task;
  for (int32_t i = 0; i < t.group_count; ++i)
    select_block(kernels, job.plans[i], group, block, t.group[i]);
  if (t.sums2) {
    t.group[1].m = job.plans[1].m + vector * kernels.lanes;
    t.sums2 += channel;
  }
  t.bias += vector * kernels.lanes;
  if (t.raw) t.raw += channel;
  if (t.y) t.y += channel * y_bytes;
  if (t.residual) t.residual += channel * t.residual_bytes;
  t.vectors =
      static_cast<int32_t>(std::min<int64_t>(kernels.max_vectors, l.vectors - first_vector));
  t.channels = static_cast<int32_t>(
      std::min<int64_t>(t.vectors * kernels.lanes, l.channels - first_vector * kernels.lanes));
  return t;
}

// Task `index`: chunks of rows outside, so that weights stream past an input that stays in place.
void task_body(void* context, int64_t begin, int64_t end) {
  auto& job = *static_cast<ImageJob*>(context);
  const Kernels& kernels = *job.kernels;
  const Layout& l = job.plans[0].layout;
  const int64_t parts = parts_of(kernels), tasks = tasks_of(kernels, l);
  int64_t spikes = 0;
  for (int64_t index = begin; index < end; ++index) {
    ConvTask part[kMaxParts];
    const int64_t group = index / tasks % l.groups, first = index % tasks * parts;
    const int64_t last = std::min(l.blocks, first + parts);
    for (int64_t block = first; block < last; ++block) {
      ConvTask& t = part[block - first] = part_of(job, group, block);
      t.row_begin = index / (tasks * l.groups) * job.walk.chunk_rows;
      t.row_end = std::min(job.walk.rows, t.row_begin + job.walk.chunk_rows);
    }
    spikes += kernels.conv(part, static_cast<int32_t>(last - first));
  }
  __atomic_fetch_add(&job.spikes, spikes, __ATOMIC_RELAXED);
}

void run(const Executor& executor, int64_t n, ImageJob& job,
         void (*body)(void*, int64_t, int64_t)) {
  if (executor.threads > 1 && n > 1)
    executor.run(n, &job, body);
  else
    body(&job, 0, n);
}

void run_tasks(const Executor& executor, const Kernels& kernels, const ConvCall& call,
               ImageJob& job) {
  const Layout& l = job.plans[0].layout;
  const int64_t tasks = l.groups * tasks_of(kernels, l);
  job.walk = walk_of(kernels, job.task.group, job.task.group_count, call.out_h, call.out_w, tasks,
                     executor.threads);
  job.task.cols = job.walk.cols;
  job.task.pixels = call.out_h * call.out_w;
  run(executor, job.walk.chunks * tasks, job, &task_body);
}

struct Context {
  const Kernels* kernels;
  const ConvCall* call;
  Plan plans[2];
  const float* bias;
  bool separate;  // the second group has other blocks: its sums are computed beforehand
};

void conv_image(const Context& c, const Executor& executor, int64_t image) {
  const Kernels& kernels = *c.kernels;
  const ConvCall& call = *c.call;
  const int64_t pixels = call.out_h * call.out_w, outputs = pixels * call.out_channels;
  ImageJob job{};
  job.kernels = &kernels;
  job.plans = c.plans;
  job.image = image;
  int64_t rows = 0;
  for (int32_t i = 0; i < call.input_count; ++i) {
    const Plan& p = c.plans[i];
    const int64_t bytes = p.height * p.width * p.pixel_bytes;
    const uint8_t* x = static_cast<const uint8_t*>(p.in->x) + image * bytes;
    if (p.copied) {
      x = job.prepared[i] = scratch.input[i].reserve(bytes + kReadSlack);
      std::memset(job.prepared[i] + bytes, 0, kReadSlack);
      rows += p.height;
    }
    job.task.group[i] = task_group(p, x, call.plane_bits);
  }
  // With only the second input copied, prepare_body starts at its first row.
  if (rows) run(executor, rows, job, &prepare_body);

  ConvTask& t = job.task;
  t.K = call.K;
  t.limit = call.limit;
  t.bias = c.bias;
  t.y_stride = call.out_channels;
  t.group_count = c.separate ? 1 : call.input_count;
  if (c.separate) {
    // The kernel may read a vector beyond the last channel.
    const int64_t sum_bytes = outputs * 4 + kernels.lanes * 4;
    auto* sums = reinterpret_cast<int32_t*>(scratch.sums.reserve(sum_bytes));
    std::memset(sums + outputs, 0, kernels.lanes * 4);
    ImageJob second = job;
    second.plans = &c.plans[1];
    second.task.group[0] = job.task.group[1];
    second.task.raw = sums;
    run_tasks(executor, kernels, call, second);
    t.sums2 = sums;
    t.sums2_stride = call.out_channels;
  }
  const int64_t y_bytes = call.K >= 1 && call.K <= 8 ? 1 : 2;
  t.y = static_cast<uint8_t*>(call.y) + image * outputs * y_bytes;
  if (call.residual) {
    t.residual = static_cast<const uint8_t*>(call.residual) + image * outputs * call.residual_bytes;
    t.residual_bytes = call.residual_bytes;
    t.residual_scale = call.residual_scale;
  }
  run_tasks(executor, kernels, call, job);
  call.counts[image] = job.spikes;
}

void images_body(void* context, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n)
    conv_image(*static_cast<Context*>(context), Executor{1, nullptr}, n);
}

bool same(const Geometry& a, const Geometry& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t after,
                    int64_t dilation) {
  const int64_t span = size + before + after - dilation * (kernel - 1) - 1;
  return span < 0 ? 0 : span / stride + 1;
}

PackHeader check_packed(const Kernels& kernels, const ConvInput& in, int64_t out_channels,
                        const std::string& name) {
  PackHeader h{};
  if (in.packed_bytes < kPackHeaderBytes ||
      (std::memcpy(&h, in.packed, sizeof h), std::memcmp(h.magic, kPackMagic, sizeof h.magic)))
    throw std::invalid_argument(name + " holds no packed weights: make them with ops.pack");
  h.isa[sizeof h.isa - 1] = 0;
  if (std::strcmp(h.isa, kernels.name) != 0)
    throw std::invalid_argument(name + " was packed for " + h.isa + ", but " + kernels.name +
                                " runs now: pack the weights again after set_isa");
  if (!same(h.geometry, in.geometry))
    throw std::invalid_argument(name +
                                " was packed for another geometry: pass the geometry and "
                                "pad code that ops.pack was given");
  if (h.out_channels != out_channels || h.in_channels_per_group * h.geometry.groups != in.channels)
    throw std::invalid_argument(
        name + " was packed for " + std::to_string(h.in_channels_per_group * h.geometry.groups) +
        " input and " + std::to_string(h.out_channels) + " output channels, but the input has " +
        std::to_string(in.channels) + " and the bias " + std::to_string(out_channels));
  if (h.family < 0 || h.family > kDepthS16 || layout_of(kernels, h).bytes != in.packed_bytes)
    throw std::invalid_argument(name +
                                " is damaged: its size does not fit its header; pack the "
                                "weights again");
  return h;
}

const char* conv(const Kernels& kernels, const ConvCall& call, const Executor& executor) {
  static const char* const family_names[] = {"u8s8", "s16s16", "depth_u8", "depth_s16"};
  Context c{&kernels, &call, {}, nullptr, false};
  for (int32_t i = 0; i < call.input_count; ++i) c.plans[i] = plan_of(kernels, call.input[i]);
  const int64_t padded = c.plans[0].layout.groups * c.plans[0].layout.vectors * kernels.lanes;
  auto* parameters = reinterpret_cast<float*>(scratch.parameters.reserve(3 * padded * 4));
  c.bias = pad_channels(kernels, c.plans[0].layout, call.bias, parameters);
  c.plans[0].m = pad_channels(kernels, c.plans[0].layout, call.input[0].m, parameters + padded);
  if (call.input_count > 1) {
    // Both groups share a tile if their blocks of output channels are the same. Either way m is
    // laid out like the first group's channels, because the first group's tasks read it.
    c.separate = c.plans[0].layout.groups != c.plans[1].layout.groups;
    c.plans[1].m =
        pad_channels(kernels, c.plans[0].layout, call.input[1].m, parameters + 2 * padded);
  }
  const char* family = family_names[c.plans[0].layout.family];
  if (call.out_h * call.out_w * call.out_channels == 0) return family;
  if (executor.threads > 1 && call.images >= executor.threads)
    executor.run(call.images, &c, &images_body);
  else
    for (int64_t n = 0; n < call.images; ++n) conv_image(c, executor, n);
  return family;
}

}  // namespace fskernel
