// The FS convolution on tensor cores: implicit GEMM over NHWC byte maps, then membrane, neuron and
// spike count in registers (items 3 to 5 and 7 of the contract in docs/how-it-works.md).
//
//   sums[pixel][channel] = x[pixel][synapse] * weights[synapse][channel]
//
// A block computes BM pixels x BN channels, a warp WM x WN of them. Tiles of x and weights, 64
// bytes of synapses deep, come by asynchronous copies, STAGES - 1 steps ahead:
//
//   shared memory:  [ stage 0: x BM*64 | weights BN*64 ][ stage 1 ] ... [ row table ][ spike counts
//   ]
//
// A row of 64 bytes is four pieces of 16; piece c of row r lies at c ^ (r/2 % 4), so that the eight
// rows that a matrix load takes at once, and the eight pieces that eight threads copy, lie in
// different banks.
#pragma once

#include "../neuron.h"
#include "conv_args.h"
#include "gpu.h"

namespace fskernel::cuda {

// What a kernel is compiled for; configs.inc lists them.
template <int BM_, int BN_, int WM_, int WN_, int STAGES_, int MIN_BLOCKS_, bool WIDE_, int GROUPS_,
          int PLANE_BITS_>
struct ConvConfig {
  static constexpr int BM = BM_, BN = BN_;        // tile of a block: pixels, channels
  static constexpr int WM = WM_, WN = WN_;        // tile of a warp
  static constexpr int STAGES = STAGES_;          // of the pipeline
  static constexpr int MIN_BLOCKS = MIN_BLOCKS_;  // that shall fit a multiprocessor
  static constexpr bool WIDE = WIDE_;             // all four products; else u8 x s8 alone
  static constexpr int GROUPS = GROUPS_;          // synapse groups at most
  static constexpr int PLANE_BITS = PLANE_BITS_;  // bit-planes of x in one multiplication
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

// Bit-planes first_bit... of the four codes in `bytes`, as four bytes; the topmost ones signed
// where the plane is.
template <class C, bool kSigned>
FS_DEVICE uint32_t bit_planes(uint32_t bytes, int first_bit) {
  if constexpr (C::PLANE_BITS == 8) {
    return bytes;
  } else {
    constexpr uint32_t kEach = 0x01010101u, kMask = (1u << C::PLANE_BITS) - 1;
    const uint32_t field = bytes >> first_bit & kMask * kEach;
    if constexpr (!kSigned) return field;
    const uint32_t sign = field & kEach << (C::PLANE_BITS - 1);
    return field | (sign << 1) * (256 / (kMask + 1) - 1);  // copies the sign into the bits above
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
  gpu::Sum sum[C::MI][C::NI][4];

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

  FS_DEVICE void clear() {
    FS_UNROLL
    for (int i = 0; i < C::MI; ++i) FS_UNROLL
    for (int j = 0; j < C::NI; ++j) FS_UNROLL
    for (int e = 0; e < 4; ++e) sum[i][j][e] = gpu::Sum{};
  }
  FS_DEVICE void shift(int by) {
    FS_UNROLL
    for (int i = 0; i < C::MI; ++i) FS_UNROLL
    for (int j = 0; j < C::NI; ++j) FS_UNROLL
    for (int e = 0; e < 4; ++e) sum[i][j][e] = gpu::shift_left(sum[i][j][e], by);
  }

  FS_DEVICE void run(const TensorGroup& group) {
    clear();
    FS_NO_UNROLL
    for (int i = 0; i < group.passes; ++i) {
      const ConvPass pass = group.pass[i];
      if (i) shift(pass.shift);
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

 private:
  template <Product kProduct>
  FS_DEVICE void run_pass(int steps, int first_bit) {
    FS_NO_UNROLL
    for (; steps > 0; --steps) {
      gpu::copy_wait<C::STAGES - 2>();
      gpu::sync_threads();  // all copies of this stage are here, and nobody reads `free_` any more
      loader_.load(free_);
      FS_UNROLL
      for (int k = 0; k < 2; ++k) {
        uint32_t w[C::NI / 2][4], x[C::MI][4];
        FS_UNROLL
        for (int j = 0; j < C::NI / 2; ++j)
          gpu::load_matrix_x4(w[j], w_from_[k] + stage_ + j * 16 * 64);
        FS_UNROLL
        for (int i = 0; i < C::MI; ++i) {
          gpu::load_matrix_x4(x[i], x_from_[k] + stage_ + i * 16 * 64);
          FS_UNROLL
          for (int e = 0; e < 4; ++e)
            x[i][e] = bit_planes < C,
            kProduct == Product::kS8S8 || kProduct == Product::kS8U8 > (x[i][e], first_bit);
        }
        FS_UNROLL
        for (int i = 0; i < C::MI; ++i) FS_UNROLL
        for (int j = 0; j < C::NI; ++j)
          multiply<kProduct>(sum[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
      }
      free_ = stage_;
      stage_ = stage_ == (C::STAGES - 1) * C::STAGE ? 0 : stage_ + C::STAGE;
    }
  }

  Loader<C>& loader_;
  gpu::Shared x_from_[2], w_from_[2];
  int stage_ = 0, free_ = (C::STAGES - 1) * C::STAGE;
};

// N neighbouring channels of one pixel, N = 8 or 16, in memory. `count` of them exist.
template <int N>
FS_DEVICE void load_bytes(const uint8_t* from, uint32_t (&to)[N / 4]) {
  if constexpr (N == 16) {
    const gpu::Bytes16 v = gpu::load_global(reinterpret_cast<const gpu::Bytes16*>(from));
    FS_UNROLL
    for (int i = 0; i < 4; ++i) to[i] = v.word[i];
  } else {
    const gpu::Bytes8 v = gpu::load_global(reinterpret_cast<const gpu::Bytes8*>(from));
    FS_UNROLL
    for (int i = 0; i < 2; ++i) to[i] = v.word[i];
  }
}
template <int N>
FS_DEVICE void store_bytes(uint8_t* to, const uint32_t (&from)[N / 4]) {
  if constexpr (N == 16)
    gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to),
                      gpu::Bytes16{{from[0], from[1], from[2], from[3]}});
  else
    gpu::store_global(reinterpret_cast<gpu::Bytes8*>(to), gpu::Bytes8{{from[0], from[1]}});
}

template <int N>
FS_DEVICE void read_channels(const Place& at, const uint8_t* from, int count, int (&code)[N]) {
  if (at.aligned && count >= N) {
    uint32_t low[N / 4], high[N / 4];
    if (at.form == kShorts) {
      load_bytes<N>(from, low);
      load_bytes<N>(from + N, high);
      FS_UNROLL
      for (int i = 0; i < N; ++i) {
        const uint32_t pair = i < N / 2 ? low[i / 2] : high[i / 2 - N / 4];
        code[i] = static_cast<int16_t>(pair >> i % 2 * 16);
      }
    } else if (at.form == kBytes) {
      load_bytes<N>(from, low);
      FS_UNROLL
      for (int i = 0; i < N; ++i) code[i] = low[i / 4] >> i % 4 * 8 & 255;
    } else {
      load_bytes<N>(from, high);
      load_bytes<N>(from + at.plane, low);
      FS_UNROLL
      for (int i = 0; i < N; ++i)
        code[i] = static_cast<int8_t>(high[i / 4] >> i % 4 * 8) * 256 +
                  static_cast<int>(low[i / 4] >> i % 4 * 8 & 255);
    }
    return;
  }
  FS_UNROLL
  for (int i = 0; i < N; ++i) {
    code[i] = 0;
    if (i >= count) continue;
    if (at.form == kShorts) {
      code[i] = gpu::load_global(reinterpret_cast<const int16_t*>(from) + i);
    } else if (at.form == kBytes) {
      code[i] = gpu::load_global(from + i);
    } else {
      code[i] = gpu::load_global(reinterpret_cast<const int8_t*>(from) + i) * 256 +
                gpu::load_global(from + at.plane + i);
    }
  }
}

// Stores them and returns the set bits.
template <int N>
FS_DEVICE int write_channels(const Place& at, uint8_t* to, int count, const int (&code)[N]) {
  uint32_t low[N / 4], high[N / 4];  // bytes; channels behind the last have the code 0
  FS_UNROLL
  for (int i = 0; i < N; i += 4) {
    const uint32_t a = gpu::permute_bytes(code[i], code[i + 1], 0x5140);
    const uint32_t b = gpu::permute_bytes(code[i + 2], code[i + 3], 0x5140);
    low[i / 4] = gpu::permute_bytes(a, b, 0x5410);
    high[i / 4] = gpu::permute_bytes(a, b, 0x7632);
  }
  int spikes = 0;
  FS_UNROLL
  for (int i = 0; i < N / 4; ++i) spikes += gpu::popcount(low[i]);
  if (at.form != kBytes) FS_UNROLL
  for (int i = 0; i < N / 4; ++i) spikes += gpu::popcount(high[i]);
  if (at.aligned && count >= N) {
    if (at.form == kBytes) {
      store_bytes<N>(to, low);
    } else if (at.form == kPlanes) {
      store_bytes<N>(to, high);
      store_bytes<N>(to + at.plane, low);
    } else {
      uint32_t pairs[2][N / 4];
      FS_UNROLL
      for (int i = 0; i < N / 2; ++i)
        pairs[i / (N / 4)][i % (N / 4)] =
            gpu::permute_bytes(low[i / 2], high[i / 2], i % 2 ? 0x7362 : 0x5140);
      store_bytes<N>(to, pairs[0]);
      store_bytes<N>(to + N, pairs[1]);
    }
    return spikes;
  }
  FS_UNROLL
  for (int i = 0; i < N; ++i) {
    if (i >= count) continue;
    if (at.form == kShorts) {
      gpu::store_global(reinterpret_cast<int16_t*>(to) + i, static_cast<int16_t>(code[i]));
    } else if (at.form == kBytes) {
      gpu::store_global(to + i, static_cast<uint8_t>(code[i]));
    } else {
      gpu::store_global(to + i, static_cast<uint8_t>(code[i] >> 8));
      gpu::store_global(to + at.plane + i, static_cast<uint8_t>(code[i]));
    }
  }
  return spikes;
}

// Of N neighbouring channels, of which `count` exist.
template <int N>
FS_DEVICE void load_floats(const float* from, bool aligned, int count, float (&to)[N]) {
  if (!aligned || count < N) {
    FS_UNROLL
    for (int i = 0; i < N; ++i) to[i] = i < count ? gpu::load_readonly(from + i) : 0.0f;
    return;
  }
  FS_UNROLL
  for (int i = 0; i < N; i += 4) {
    const gpu::Bytes16 v = gpu::load_readonly(reinterpret_cast<const gpu::Bytes16*>(from + i));
    FS_UNROLL
    for (int e = 0; e < 4; ++e) to[i + e] = gpu::bits<float>(v.word[e]);
  }
}

template <class C>
FS_KERNEL(C::THREADS, C::MIN_BLOCKS)
tensor_conv(const TensorConvArgs args) {
  constexpr int N = C::CHANNELS;
  const gpu::Shared shared = gpu::dynamic_shared();
  const int warp = gpu::thread() / 32, lane = gpu::thread() % 32;
  const int warp_m = warp % C::WARPS_M, warp_n = warp / C::WARPS_M;
  // Blocks that read the same pixels follow each other.
  const int block_m = gpu::block_x() / args.channel_blocks;
  const int first_pixel = block_m * C::BM;
  const int first_channel = (gpu::block_x() - block_m * args.channel_blocks) * C::BN;

  write_table<C>(args, shared, first_pixel);
  gpu::sync_threads();
  Loader<C> loader(args, shared, first_channel);
  Multiplier<C> multiplier(shared, loader, warp_m, warp_n);

  // This thread's channels, and their membrane potentials (item 4): v = fma(sum, m, bias), then the
  // second group's v = fma(sum2, m2, v). With one group that is left to the end, and the sums stay
  // in their registers until then.
  const int channel =
      first_channel + (warp_n * C::WN & ~63) + lane % 4 * 16 + (warp_n * C::WN & 63) / 4;
  const int count = args.channels - channel;
  float held[C::GROUPS == 2 ? C::MI : 1][C::GROUPS == 2 ? C::NI : 1][4];
  if constexpr (C::GROUPS == 1) {
    multiplier.run(args.group[0]);
  } else {
    FS_NO_UNROLL
    for (int g = 0; g < args.groups; ++g) {
      multiplier.run(args.group[g]);
      float m[N], bias[N];
      load_floats(args.group[g].m + channel, args.aligned, count, m);
      load_floats(args.bias + channel, args.aligned, count, bias);
      FS_UNROLL
      for (int i = 0; i < C::MI; ++i) FS_UNROLL
      for (int j = 0; j < C::NI; ++j) FS_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float sum = gpu::to_float(gpu::final_sum(multiplier.sum[i][j][e]));
        const float before = g ? held[i][j][e] : bias[j * 2 + e % 2];
        held[i][j][e] = gpu::fma(sum, m[j * 2 + e % 2], before);
      }
    }
  }

  float m[N], bias[N];
  if constexpr (C::GROUPS == 1) {
    load_floats(args.group[0].m + channel, args.aligned, count, m);
    load_floats(args.bias + channel, args.aligned, count, bias);
  }
  // A tile may hold pixels of several images; a thread's rows come in rising order.
  const int of_image = args.out_h * args.out_w, first_image = first_pixel / of_image;
  const int last_image = (gpu::min(first_pixel + C::BM, args.pixels) - 1) / of_image;
  int spikes = 0, image = first_image, image_end = (first_image + 1) * of_image;
  FS_UNROLL
  for (int i = 0; i < C::MI; ++i) FS_UNROLL
  for (int h = 0; h < 2; ++h) {
    const int row = warp_m * C::WM + i * 16 + h * 8 + lane / 4, pixel = first_pixel + row;
    if (pixel >= args.pixels || count <= 0) continue;
    float v[N];
    FS_UNROLL
    for (int c = 0; c < N; ++c) {
      const int e = h * 2 + c % 2;
      if constexpr (C::GROUPS == 1)
        v[c] = gpu::fma(gpu::to_float(gpu::final_sum(multiplier.sum[i][c / 2][e])), m[c], bias[c]);
      else
        v[c] = held[i][c / 2][e];
    }
    if (args.residual_at.form != kNone) {
      const uint32_t at = gpu::load_shared<uint32_t>(table_entry<C>(shared, kResidual, row));
      const int bytes = args.residual_at.form == kShorts ? 2 : 1;
      int code[N];
      read_channels<N>(args.residual_at, args.residual + at + channel * bytes, count, code);
      FS_UNROLL
      for (int c = 0; c < N; ++c)
        v[c] = gpu::fma(gpu::to_float(code[c]), args.residual_scale, v[c]);
    }
    int code[N];
    if (args.K) FS_UNROLL
    for (int c = 0; c < N; ++c) code[c] = fire(v[c], args.top);
    else FS_UNROLL for (int c = 0; c < N; ++c) code[c] = graded(v[c], args.top);
    if (count < N)  // whatever lies behind the last channel is not a spike
      FS_UNROLL
    for (int c = 0; c < N; ++c) code[c] = c < count ? code[c] : 0;
    if (pixel >= image_end) {
      if (spikes) gpu::atomic_add_shared(shared + C::COUNTS + 4 * (image - first_image), spikes);
      spikes = 0;
      image = pixel / of_image;
      image_end = (image + 1) * of_image;
    }
    const uint32_t at = gpu::load_shared<uint32_t>(table_entry<C>(shared, kY, row));
    const int bytes = args.y_at.form == kShorts ? 2 : 1;
    spikes += write_channels<N>(args.y_at, args.y + at + channel * bytes, count, code);
  }

  if (args.counts == nullptr || args.K == 0) return;
  if (first_image == last_image) {
    spikes = gpu::reduce_add(spikes);
    if (lane > 0) spikes = 0;
  }
  if (spikes) gpu::atomic_add_shared(shared + C::COUNTS + 4 * (image - first_image), spikes);
  gpu::sync_threads();
  for (int i = gpu::thread(); i <= last_image - first_image; i += C::THREADS)
    gpu::atomic_add(args.counts + first_image + i,
                    gpu::load_shared<uint32_t>(shared + C::COUNTS + 4 * i));
}

}  // namespace fskernel::cuda
