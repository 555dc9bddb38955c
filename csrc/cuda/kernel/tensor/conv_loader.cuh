// The way of x and the weights into shared memory.
#pragma once

#include "conv_config.cuh"

namespace fskernel::cuda {

// Issues the copies of one k-step after the other, over all passes of all groups. A thread copies
// piece `tid % 4` of every ROWS-th row, so its addresses differ by constants.
template <class C>
class Loader {
 public:
  FS_DEVICE Loader(const TensorConvArgs& args, gpu::Shared shared, int first_channel)
      : args_(args), shared_(shared), row_(gpu::thread() / 4), piece_(gpu::thread() % 4) {
    x_to_ = shared + row_ * 64 + ((piece_ ^ (row_ / 2 & 3)) << 4);
    w_to_ = shared + C::X_STAGE + gpu::thread() * 16;
    gpu::keep(x_to_);
    gpu::keep(w_to_);
    w_offset_ = first_channel * 64 + gpu::thread() * 16;
    start_group();
    FS_UNROLL
    for (int g = 0; g < C::GROUPS; ++g)
      if (g < args.groups) todo_ += args.group[g].steps * args.group[g].passes;
  }

  // Into the stage at `to`, if there is anything left.
  FS_DEVICE void load(int to) {
    if (todo_ > 0) {
      --todo_;
      FS_UNROLL
      for (int i = 0; i < C::BM / C::ROWS; ++i)
        gpu::copy_async_16_reused(x_to_ + to + i * C::ROWS * 64, x_ + x_offset_[i]);
      FS_UNROLL
      for (int i = 0; i < C::BN / C::ROWS; ++i)
        gpu::copy_async_16(w_to_ + to + i * C::ROWS * 64, w_ + i * C::ROWS * 64);
      x_ += group().order.step;
      w_ += args_.padded_channels * 64;
      if (--inner_ == 0) next_row();
    }
    gpu::copy_commit();  // an empty group too: waits count groups
  }

 private:
  FS_DEVICE const TensorGroup& group() const { return args_.group[C::GROUPS == 1 ? 0 : group_]; }

  FS_DEVICE void next_row() {
    inner_ = group().order.inner;
    x_ += group().order.row_jump;
    if (--rows_ > 0) return;
    rows_ = group().order.rows;
    x_ += group().order.chunk_jump;
    if (--chunks_ > 0) return;
    if (++pass_ < group().passes) return start_pass();
    if (C::GROUPS == 1 || ++group_ >= args_.groups) return;
    start_group();
  }
  FS_DEVICE void start_pass() {
    const ConvPass& pass = group().pass[pass_];
    x_ = group().x + pass.x_plane * group().x_plane;
    w_ = group().weights + pass.w_plane * group().w_plane + w_offset_;
    inner_ = group().order.inner;
    rows_ = group().order.rows;
    chunks_ = group().order.chunks;
  }
  FS_DEVICE void start_group() {
    pass_ = 0;
    FS_UNROLL
    for (int i = 0; i < C::BM / C::ROWS; ++i)
      x_offset_[i] = piece_ * 16 + gpu::load_shared<uint32_t>(table_entry<C>(
                                       shared_, group_ ? kX1 : kX0, row_ + i * C::ROWS));
    start_pass();
  }

  const TensorConvArgs& args_;
  gpu::Shared shared_;
  int row_, piece_;
  gpu::Shared x_to_, w_to_;
  const uint8_t *x_, *w_;
  uint32_t x_offset_[C::BM / C::ROWS];
  int w_offset_;
  int group_ = 0, pass_, inner_, rows_, chunks_, todo_ = 0;
};

}  // namespace fskernel::cuda
