// What a tensor-core kernel is compiled for, and how a block lays out its shared memory.
#pragma once

#include "../gpu.h"
#include "tensor_args.h"

namespace fskernel::cuda {

// What a kernel is compiled for; configs.inc lists them.
template <int BM_, int BN_, int WM_, int WN_, int STAGES_, int MIN_BLOCKS_, bool WIDE_, int GROUPS_,
          int PLANE_BITS_, bool RATE_>
struct ConvConfig {
  static constexpr int BM = BM_, BN = BN_;        // tile of a block: pixels, channels
  static constexpr int WM = WM_, WN = WN_;        // tile of a warp
  static constexpr int STAGES = STAGES_;          // of the pipeline
  static constexpr int MIN_BLOCKS = MIN_BLOCKS_;  // that shall fit a multiprocessor
  static constexpr bool WIDE = WIDE_;             // all four products; else u8 x s8 alone
  static constexpr int GROUPS = GROUPS_;          // synapse groups at most
  static constexpr int PLANE_BITS = PLANE_BITS_;  // bit-planes of x in one multiplication
  static constexpr bool RATE = RATE_;  // one step of integrate-and-fire neurons; else FS neurons
  static constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN;
  static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
  static constexpr int MI = WM / 16, NI = WN / 8;  // m16n8 tiles of a warp
  static constexpr int ROWS = THREADS / 4;         // four threads copy a row of 64 bytes
  static constexpr int X_STAGE = BM * 64, STAGE = X_STAGE + BN * 64;
  static constexpr int TABLE = STAGES * STAGE;    // of BM rows, 16 bytes each
  static constexpr int COUNTS = TABLE + BM * 16;  // of at most BM images
  static constexpr int SHARED = COUNTS + BM * 4;
  static constexpr int CHANNELS = WN / 4;  // neighbouring ones that a thread ends up with
  static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && (WN == 32 || WN == 64));
  static_assert(BN % 64 == 0, "weight rows are permuted in groups of 64");
  static_assert(BM % ROWS == 0 && BN % ROWS == 0 && ROWS % 8 == 0, "copies are whole rounds");
  static_assert(STAGES >= 2 && (GROUPS == 1 || GROUPS == 2));
  static_assert(THREADS * CHANNELS * 4 <= TABLE, "the epilogue's slots lie where tiles lay");
  static_assert(PLANE_BITS == 1 || PLANE_BITS == 2 || PLANE_BITS == 4 || PLANE_BITS == 8);
};

// The row table, one column after the other.
enum Column { kX0, kX1, kY, kResidual };

template <class C>
FS_DEVICE gpu::Shared table_entry(gpu::Shared shared, Column column, int row) {
  return shared + C::TABLE + (column * C::BM + row) * 4;
}

struct Pixel {
  uint32_t image, row, col;
};
FS_DEVICE Pixel pixel_of(const TensorConvArgs& args, uint32_t index) {  // unsigned divides faster
  const uint32_t width = args.out_w, of_image = args.out_h * width, image = index / of_image;
  const uint32_t in_image = index - image * of_image, row = in_image / width;
  return {image, row, in_image - row * width};
}
FS_DEVICE uint32_t offset_of(const Place& at, const Pixel& p) {
  return p.image * at.image + p.row * at.row + p.col * at.pixel;
}

// One division for a row and block: where the row's pixel lies in every tensor. Rows behind the
// last pixel repeat it; the epilogue drops them.
template <class C>
FS_DEVICE void write_table(const TensorConvArgs& args, gpu::Shared shared, int first) {
  for (int r = gpu::thread(); r < C::BM; r += C::THREADS) {
    const Pixel p = pixel_of(args, gpu::min(first + r, args.pixels - 1));
    FS_UNROLL
    for (int g = 0; g < C::GROUPS; ++g) {
      const TensorGroup& group = args.group[g];
      gpu::store_shared<uint32_t>(
          table_entry<C>(shared, g ? kX1 : kX0, r),
          p.image * group.x_image + p.row * group.x_row + p.col * group.x_pixel);
    }
    gpu::store_shared<uint32_t>(table_entry<C>(shared, kY, r), offset_of(args.y_at, p));
    gpu::store_shared<uint32_t>(table_entry<C>(shared, kResidual, r),
                                offset_of(args.residual_at, p));
    gpu::store_shared<int>(shared + C::COUNTS + 4 * r, 0);
  }
}

}  // namespace fskernel::cuda
