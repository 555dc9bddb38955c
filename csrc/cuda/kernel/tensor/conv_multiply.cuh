// From shared memory through the tensor core into sums.
#pragma once

#include "conv_loader.cuh"

namespace fskernel::cuda {

// Of the four codes in each element, the bit-planes first_bit... that one multiplication takes; the
// topmost ones signed where the plane is.
template <class C, bool kSigned>
FS_DEVICE void take_bit_planes(uint32_t (&bytes)[4], int first_bit) {
  if constexpr (C::PLANE_BITS < 8) {
    constexpr uint32_t kEach = 0x01010101u, kMask = (1u << C::PLANE_BITS) - 1;
    FS_UNROLL
    for (int i = 0; i < 4; ++i) {
      uint32_t field = bytes[i] >> first_bit & kMask * kEach;
      const uint32_t sign = field & kEach << (C::PLANE_BITS - 1);
      if (kSigned) field |= (sign << 1) * (255 >> C::PLANE_BITS);  // into all the bits above it
      bytes[i] = field;
    }
  }
}

template <Product kProduct>
FS_DEVICE void multiply(gpu::Sum (&sum)[4], const uint32_t (&x)[4], uint32_t w0, uint32_t w1) {
  if constexpr (kProduct == Product::kU8S8) gpu::mma_u8s8(sum, x, w0, w1);
  if constexpr (kProduct == Product::kS8S8) gpu::mma_s8s8(sum, x, w0, w1);
  if constexpr (kProduct == Product::kS8U8) gpu::mma_s8u8(sum, x, w0, w1);
  if constexpr (kProduct == Product::kU8U8) gpu::mma_u8u8(sum, x, w0, w1);
}

// The sums of a warp's tile, and the pipeline that feeds them.
template <class C>
class Multiplier {
 public:
  FS_DEVICE Multiplier(gpu::Shared shared, Loader<C>& loader, int warp_m, int warp_n)
      : loader_(loader) {
    const int lane = gpu::thread() % 32, swizzle = lane / 2 & 3;
    const int x_row = warp_m * C::WM + lane % 16;
    const int w_row = warp_n * C::WN + lane % 8 + lane / 16 * 8;
    FS_UNROLL
    for (int k = 0; k < 2; ++k) {  // the two halves of a step, 32 bytes each
      x_from_[k] = shared + x_row * 64 + ((2 * k + lane / 16) ^ swizzle) * 16;
      w_from_[k] = shared + C::X_STAGE + w_row * 64 + ((2 * k + lane / 8 % 2) ^ swizzle) * 16;
      gpu::keep(x_from_[k]);
      gpu::keep(w_from_[k]);
    }
    FS_UNROLL
    for (int stage = 0; stage < C::STAGES - 1; ++stage) loader_.load(stage * C::STAGE);
  }

  // All passes of a group, in Horner's order.
  FS_DEVICE void run(const TensorGroup& group) {
    each_sum([](gpu::Sum& sum) { sum = gpu::Sum{}; });
    FS_NO_UNROLL
    for (int i = 0; i < group.passes; ++i) {
      const ConvPass pass = group.pass[i];
      if (i) each_sum([&](gpu::Sum& sum) { sum = gpu::shift_left(sum, pass.shift); });
      if constexpr (!C::WIDE) {
        run_pass<Product::kU8S8>(group.steps, pass.first_bit);
      } else {
        switch (pass.product) {
          case Product::kU8S8:
            run_pass<Product::kU8S8>(group.steps, pass.first_bit);
            break;
          case Product::kS8S8:
            run_pass<Product::kS8S8>(group.steps, pass.first_bit);
            break;
          case Product::kS8U8:
            run_pass<Product::kS8U8>(group.steps, pass.first_bit);
            break;
          case Product::kU8U8:
            run_pass<Product::kU8U8>(group.steps, pass.first_bit);
            break;
        }
      }
    }
  }

  // Of row 16*i + 8*half + lane/4 of the warp's tile, the thread's c-th channel.
  FS_DEVICE int final_sum(int i, int half, int c) const {
    return gpu::final_sum(sum_[i][c / 2][half * 2 + c % 2]);
  }

 private:
  template <class Function>
  FS_DEVICE void each_sum(const Function& f) {
    FS_UNROLL
    for (int i = 0; i < C::MI; ++i) {
      FS_UNROLL
      for (int j = 0; j < C::NI; ++j) {
        FS_UNROLL
        for (int e = 0; e < 4; ++e) f(sum_[i][j][e]);
      }
    }
  }

  template <Product kProduct>
  FS_DEVICE void run_pass(int steps, int first_bit) {
    constexpr bool kSigned = kProduct == Product::kS8S8 || kProduct == Product::kS8U8;
    FS_NO_UNROLL
    for (; steps > 0; --steps) {
      gpu::copy_wait<C::STAGES - 2>();
      gpu::sync_threads();  // all copies of this stage are here, and nobody reads `free_` any more
      loader_.load(free_);
      FS_UNROLL
      for (int k = 0; k < 2; ++k) {
        uint32_t w[C::NI / 2][4];
        FS_UNROLL
        for (int j = 0; j < C::NI / 2; ++j)
          gpu::load_matrix_x4(w[j], w_from_[k] + stage_ + j * 16 * 64);
        uint32_t x[C::MI][4];
        FS_UNROLL
        for (int i = 0; i < C::MI; ++i) {
          gpu::load_matrix_x4(x[i], x_from_[k] + stage_ + i * 16 * 64);
          take_bit_planes<C, kSigned>(x[i], first_bit);
        }
        FS_UNROLL
        for (int i = 0; i < C::MI; ++i) {
          FS_UNROLL
          for (int j = 0; j < C::NI; ++j)
            multiply<kProduct>(sum_[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
        }
      }
      free_ = stage_;
      stage_ = stage_ == (C::STAGES - 1) * C::STAGE ? 0 : stage_ + C::STAGE;
    }
  }

  gpu::Sum sum_[C::MI][C::NI][4];
  Loader<C>& loader_;
  gpu::Shared x_from_[2], w_from_[2];
  int stage_ = 0, free_ = (C::STAGES - 1) * C::STAGE;
};

}  // namespace fskernel::cuda
