// The rows of kernel/configs.inc as the host sees them, and which of them runs a layer. Host only,
// and built without CUDA too: who models the kernels asks here.
#pragma once

#include <cstdint>
#include <iterator>
#include <string>

namespace fskernel::cuda {

struct TensorTile {
  const char* name;
  int pixels, channels;  // of a block
  bool wide;
  int groups, plane_bits;
  bool rate;
  int percent;
};

inline constexpr TensorTile kTensorTiles[] = {
#define FS_TENSOR_CONV(name, BM, BN, WM, WN, stages, blocks, wide, groups, bits, rate, percent) \
  {name, BM, BN, wide, groups, bits, rate, percent},
#include "kernel/configs.inc"
#undef FS_TENSOR_CONV
};
constexpr int kTensorRows = static_cast<int>(std::size(kTensorTiles));

constexpr int64_t padded_channels(int64_t channels) { return (channels + 63) / 64 * 64; }

// What the choice depends on.
struct TileWork {
  int64_t pixels, channels;  // of the output, of all images
  int32_t groups, plane_bits;
  bool narrow;  // spike words and int8 weights only
  bool rate;
};

// Can it run the layer?
inline bool tile_fits(const TensorTile& tile, const TileWork& work) {
  return tile.plane_bits == (work.plane_bits ? work.plane_bits : 8) && tile.rate == work.rate &&
         work.groups <= tile.groups && padded_channels(work.channels) % tile.channels == 0 &&
         (work.narrow || tile.wide);
}

// When the tile model says it has done so, in arbitrary units. A multiprocessor works at the tile's
// share of the peak, whatever number of blocks it holds.
inline double tile_time(const TensorTile& tile, const TileWork& work, int multiprocessors) {
  const int64_t blocks = (work.pixels + tile.pixels - 1) / tile.pixels *
                         (padded_channels(work.channels) / tile.channels);
  const int64_t in_turn = (blocks + multiprocessors - 1) / multiprocessors;
  return static_cast<double>(in_turn) * tile.pixels * tile.channels / tile.percent;
}

// The row that is done first, or the one of that name; -1 where that does not exist or fit.
inline int choose_tile(const TileWork& work, int multiprocessors, const std::string& name) {
  int best = -1;
  for (int row = 0; row < kTensorRows; ++row) {
    const TensorTile& tile = kTensorTiles[row];
    if ((!name.empty() && name != tile.name) || !tile_fits(tile, work)) continue;
    if (best < 0 || tile_time(tile, work, multiprocessors) <
                        tile_time(kTensorTiles[best], work, multiprocessors))
      best = row;
  }
  return best;
}

}  // namespace fskernel::cuda
