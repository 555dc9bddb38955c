// What the copy engine brings, and where it puts it. Every kernel writes down the shared memory of
// its block; a copy that never arrives is an answer, too, and ends in a second.
#include "../model.h"
#include "card.h"
#include "hopper.h"

namespace fskernel::probe {
namespace {

constexpr int kThreads = 128;

// ---- tensor maps

template <class Function>
Function* driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result));
  if (!found) throw NoAnswer(std::string("the driver has no ") + name);
  return reinterpret_cast<Function*>(found);
}
void must(CUresult result, const char* name) {
  if (result == CUDA_SUCCESS) return;
  const char* words = nullptr;
  static auto* text = driver<decltype(cuGetErrorString)>("cuGetErrorString");
  text(result, &words);
  throw NoAnswer(std::string(name) + ": " + (words ? words : "unknown error"));
}
CUtensorMapSwizzle swizzle_of(int bytes) {
  switch (bytes) {
    case 0:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
    case 32:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case 64:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    default:
      return CU_TENSOR_MAP_SWIZZLE_128B;
  }
}
cuuint64_t u64(int64_t v) { return static_cast<cuuint64_t>(v); }
cuuint32_t u32(int v) { return static_cast<cuuint32_t>(v); }

CUtensorMap im2col_map(const Im2col& q, void* base) {
  static auto* encode = driver<decltype(cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  CUtensorMap map;
  const cuuint64_t size[4] = {u64(q.x.c), u64(q.x.w), u64(q.x.h), u64(q.x.n)};
  const cuuint64_t strides[3] = {size[0], size[0] * size[1], size[0] * size[1] * size[2]};
  const int low[2] = {q.low_w, q.low_h}, high[2] = {q.high_w, q.high_h};
  const cuuint32_t steps[4] = {1, u32(q.stride_w), u32(q.stride_h), 1};
  must(encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 4, base, size, strides, low, high,
              u32(q.box_bytes), u32(q.box_pixels / q.blocks), steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
              swizzle_of(q.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
       "cuTensorMapEncodeIm2col");
  // Drivers up to 13.1 set a bit in maps of tensors below 128 KB that im2col copies do not stand.
  int version = 0;
  check(cudaDriverGetVersion(&version));
  if (q.patched && version <= 13010 && q.x.size() < 131072) {
    uint64_t word;
    std::memcpy(&word, reinterpret_cast<uint8_t*>(&map) + 8, 8);
    word &= ~(uint64_t{1} << 21);
    std::memcpy(reinterpret_cast<uint8_t*>(&map) + 8, &word, 8);
  }
  return map;
}
template <int n>
CUtensorMap tiled_map(void* base, const cuuint64_t (&size)[n], const cuuint32_t (&box)[n],
                      int swizzle) {
  static auto* encode = driver<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  CUtensorMap map;
  cuuint64_t strides[n - 1];
  cuuint32_t ones[n];
  for (int i = 0; i < n; ++i) ones[i] = 1;
  for (int i = 0; i < n - 1; ++i) strides[i] = size[i] * (i ? strides[i - 1] : 1);
  must(encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, n, base, size, strides, box, ones,
              CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of(swizzle),
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
       "cuTensorMapEncodeTiled");
  return map;
}

// ---- kernels

FS_DEVICE gpu::Shared barrier_behind(gpu::Shared shared, int bytes) {
  return shared + ((bytes + 127) & ~127);
}
// Makes the block's barrier for `bytes`, and fills the shared memory in front of it.
FS_DEVICE void prepare(gpu::Shared shared, gpu::Shared barrier, int bytes) {
  for (int i = 4 * gpu::thread(); i < bytes; i += 4 * kThreads)
    gpu::store_shared<uint32_t>(shared + i, 0xa5a5a5a5u);
  gpu::fence_async();
  if (gpu::thread() == 0) {
    gpu::barrier_init(barrier, 1);
    gpu::barrier_init_done();
  }
  gpu::sync_threads();
  if (gpu::thread() == 0) gpu::barrier_expect(barrier, bytes);
}
// Waits for the copies, and writes down what lies there.
FS_DEVICE void write_down(gpu::Shared shared, gpu::Shared barrier, int bytes, uint8_t* to,
                          int32_t* missing) {
  if (!gpu::barrier_wait_a_while(barrier, 0)) gpu::store_global<int32_t>(missing, 1);
  for (int i = 4 * gpu::thread(); i < bytes; i += 4 * kThreads)
    gpu::store_global<uint32_t>(reinterpret_cast<uint32_t*>(to + i),
                                gpu::load_shared<uint32_t>(shared + i));
}

struct CopyArgs {
  int32_t c, w[2], h[2], n[2];  // of what each block asks for
  int32_t offset_w, offset_h;
  int32_t bytes;  // of a block's shared memory
  uint8_t* answer;
  int32_t* missing;
};

FS_KERNEL(kThreads, 1)
im2col(FS_MAP map, const CopyArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const gpu::Shared barrier = barrier_behind(shared, args.bytes);
  prepare(shared, barrier, args.bytes);
  if (gpu::thread() == 0)
    gpu::copy_im2col(shared, map, args.c, args.w[0], args.h[0], args.n[0], args.offset_w,
                     args.offset_h, barrier);
  write_down(shared, barrier, args.bytes, args.answer, args.missing);
}

FS_KERNEL(kThreads, 1)
im2col_for_both(FS_MAP map, const CopyArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const gpu::Shared barrier = barrier_behind(shared, args.bytes);
  const int rank = gpu::rank_in_cluster();
  prepare(shared, barrier, args.bytes);
  gpu::sync_cluster();
  if (gpu::thread() == 0)
    gpu::copy_im2col_to(3, shared + rank * (args.bytes / 2), map, args.c,
                        rank ? args.w[1] : args.w[0], rank ? args.h[1] : args.h[0],
                        rank ? args.n[1] : args.n[0], args.offset_w, args.offset_h, barrier);
  write_down(shared, barrier, args.bytes, args.answer + rank * args.bytes, args.missing);
  gpu::sync_cluster();  // the other one's copies arrive here
}

FS_KERNEL(kThreads, 1)
box(FS_MAP map, const CopyArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const gpu::Shared barrier = barrier_behind(shared, args.bytes);
  prepare(shared, barrier, args.bytes);
  if (gpu::thread() == 0)
    gpu::copy_box(shared, map, args.c, args.w[0], args.h[0], args.n[0], barrier);
  write_down(shared, barrier, args.bytes, args.answer, args.missing);
}

struct BulkArgs {
  const uint8_t* from;
  int32_t bytes;
  uint8_t* answer;
  int32_t* missing;
};

FS_KERNEL(kThreads, 1)
bulk(const BulkArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const gpu::Shared barrier = barrier_behind(shared, args.bytes);
  prepare(shared, barrier, args.bytes);
  if (gpu::thread() == 0) gpu::copy_bulk(shared, args.from, args.bytes, barrier);
  write_down(shared, barrier, args.bytes, args.answer, args.missing);
}

FS_KERNEL(kThreads, 1)
bulk_for_both(const BulkArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const gpu::Shared barrier = barrier_behind(shared, args.bytes);
  const int rank = gpu::rank_in_cluster(), half = args.bytes / 2;
  prepare(shared, barrier, args.bytes);
  gpu::sync_cluster();
  if (gpu::thread() == 0)
    gpu::copy_bulk_to(3, shared + rank * half, args.from + rank * half, half, barrier);
  write_down(shared, barrier, args.bytes, args.answer + rank * args.bytes, args.missing);
  gpu::sync_cluster();
}

FS_KERNEL(kThreads, 1)
remote(const BulkArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const int rank = gpu::rank_in_cluster(), half = args.bytes / 2;
  for (int i = 4 * gpu::thread(); i < half; i += 4 * kThreads)
    gpu::store_shared<uint32_t>(
        shared + i,
        gpu::load_readonly(reinterpret_cast<const uint32_t*>(args.from + rank * half + i)));
  gpu::sync_cluster();
  for (int i = 4 * gpu::thread(); i < half; i += 4 * kThreads)
    gpu::store_global<uint32_t>(reinterpret_cast<uint32_t*>(args.answer + rank * half + i),
                                gpu::load_cluster(gpu::in_block(shared + i, 1 - rank)));
  gpu::sync_cluster();
}

struct StoreArgs {
  const uint8_t* shared;
  int32_t row, column, bytes;
};

FS_KERNEL(kThreads, 1)
store_of_box(FS_MAP map, const StoreArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  for (int i = 4 * gpu::thread(); i < args.bytes; i += 4 * kThreads)
    gpu::store_shared<uint32_t>(
        shared + i, gpu::load_readonly(reinterpret_cast<const uint32_t*>(args.shared + i)));
  gpu::fence_async();
  gpu::sync_threads();
  if (gpu::thread() == 0) {
    gpu::store_box(map, args.column, args.row, shared);
    gpu::stores_commit();
    gpu::stores_done();
  }
}

// ---- launches

int shared_bytes(int bytes) { return bytes + 1024 + 256; }

Bytes answered(const OnCard& answer, const OnCard& missing) {
  Bytes bytes = answer.back();
  if (as<int32_t>(missing.back())[0])
    throw NoAnswer("the copy's bytes never arrived at the barrier", true);
  return bytes;
}

}  // namespace

Bytes ask_card(const Im2col& q) {
  const OnCard x(q.x.bytes), missing(4, 0);
  const CUtensorMap map = im2col_map(q, x.as<void>());
  const int bytes = q.box_pixels * q.box_bytes;
  const OnCard answer(int64_t{bytes} * q.blocks);
  CopyArgs args{.c = q.c,
                .w = {},
                .h = {},
                .n = {},
                .offset_w = q.offset_w,
                .offset_h = q.offset_h,
                .bytes = bytes,
                .answer = answer.as<uint8_t>(),
                .missing = missing.as<int32_t>()};
  const std::vector<model::Pixel> pixels = model::walk(q);
  for (int i = 0; i < q.blocks; ++i) {
    const model::Pixel& p = pixels[static_cast<size_t>(i) * q.box_pixels / q.blocks];
    args.w[i] = p.w - q.offset_w, args.h[i] = p.h - q.offset_h, args.n[i] = p.n;
  }
  launch(q.blocks == 1 ? &im2col : &im2col_for_both, q.blocks, kThreads, shared_bytes(bytes),
         q.blocks, map, args);
  return answered(answer, missing);
}

Bytes ask_card(const Box& q) {
  const OnCard x(q.x.bytes), missing(4, 0);
  const CUtensorMap map =
      tiled_map<4>(x.as<void>(), {u64(q.x.c), u64(q.x.w), u64(q.x.h), u64(q.x.n)},
                   {u32(q.box_bytes), u32(q.box_w), u32(q.box_h), 1}, q.swizzle);
  const int bytes = q.box_h * q.box_w * q.box_bytes;
  const OnCard answer(bytes);
  const CopyArgs args{.c = q.c,
                      .w = {q.w},
                      .h = {q.h},
                      .n = {q.n},
                      .offset_w = 0,
                      .offset_h = 0,
                      .bytes = bytes,
                      .answer = answer.as<uint8_t>(),
                      .missing = missing.as<int32_t>()};
  launch(&box, 1, kThreads, shared_bytes(bytes), 1, map, args);
  return answered(answer, missing);
}

Bytes ask_card(const StoreBox& q) {
  const OnCard shared(q.shared);
  const OnCard to(int64_t{q.rows} * q.columns + 2 * q.guard);
  const CUtensorMap map = tiled_map<2>(to.as<uint8_t>() + q.guard, {u64(q.columns), u64(q.rows)},
                                       {u32(q.box_columns), u32(q.box_rows)}, q.swizzle);
  const int bytes = static_cast<int>(q.shared.size());
  launch(&store_of_box, 1, kThreads, shared_bytes(bytes), 1, map,
         StoreArgs{shared.as<uint8_t>(), q.row, q.column, bytes});
  return to.back();
}

Bytes ask_card(const Bulk& q) {
  const OnCard from(q.from), missing(4, 0);
  const int bytes = static_cast<int>(q.from.size());
  const OnCard answer(int64_t{bytes} * q.blocks);
  const BulkArgs args{from.as<uint8_t>(), bytes, answer.as<uint8_t>(), missing.as<int32_t>()};
  launch(q.blocks == 1 ? &bulk : &bulk_for_both, q.blocks, kThreads, shared_bytes(bytes), q.blocks,
         args);
  return answered(answer, missing);
}

Bytes ask_card(const Remote& q) {
  const OnCard from(q.from), answer(static_cast<int64_t>(q.from.size()));
  const int bytes = static_cast<int>(q.from.size());
  launch(&remote, 2, kThreads, shared_bytes(bytes / 2), 2,
         BulkArgs{from.as<uint8_t>(), bytes, answer.as<uint8_t>(), nullptr});
  return answer.back();
}

}  // namespace fskernel::probe
