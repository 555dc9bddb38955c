// Neighbouring channels of one pixel, in whatever form a tensor has them: in one piece where
// alignment allows it, else one by one. The latter is seldom met and unrolled into many copies of
// the epilogue, so it is a loop, for which the channels pass through shared memory.
#pragma once

#include "../vector.cuh"
#include "tensor_args.h"

namespace fskernel::cuda {

// Shared memory of a thread's own: word after word, in between those of the other threads, so that
// a warp meets 32 banks.
struct Slot {
  gpu::Shared first;
  int stride;  // between words
  FS_DEVICE gpu::Shared at(int byte) const { return first + byte / 4 * stride + byte % 4; }
};

FS_DEVICE int element_bytes(const Place& at) {
  return at.form == kFloats ? 4 : at.form == kShorts ? 2 : 1;
}

// N channels, of which `count` exist; the others read as 0.
template <int N>
FS_DEVICE void read_channels(const Place& at, const uint8_t* from, int count, Slot slot,
                             int (&code)[N]) {
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
  FS_NO_UNROLL
  for (int i = 0; i < N; ++i) {
    int found = 0;
    if (i < count && at.form == kShorts)
      found = gpu::load_global(reinterpret_cast<const int16_t*>(from) + i);
    else if (i < count && at.form == kBytes)
      found = gpu::load_global(from + i);
    else if (i < count)
      found = gpu::load_global(reinterpret_cast<const int8_t*>(from) + i) * 256 +
              gpu::load_global(from + at.plane + i);
    gpu::store_shared<int16_t>(slot.at(2 * i), static_cast<int16_t>(found));
  }
  FS_UNROLL
  for (int i = 0; i < N; ++i) code[i] = gpu::load_shared<int16_t>(slot.at(2 * i));
}

// Stores them and returns the set bits. Codes behind the last channel are 0: so are its m and bias.
template <int N>
FS_DEVICE int write_channels(const Place& at, uint8_t* to, int count, Slot slot,
                             const int (&code)[N]) {
  uint32_t low[N / 4], high[N / 4];
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
  if (at.form != kBytes) {
    FS_UNROLL
    for (int i = 0; i < N / 4; ++i) spikes += gpu::popcount(high[i]);
  }
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
  for (int i = 0; i < N / 4; ++i) {
    gpu::store_shared<uint32_t>(slot.at(4 * i), low[i]);
    gpu::store_shared<uint32_t>(slot.at(N + 4 * i), high[i]);
  }
  FS_NO_UNROLL
  for (int i = 0; i < gpu::min(N, count); ++i) {
    const uint8_t low_byte = gpu::load_shared<uint8_t>(slot.at(i));
    const uint8_t high_byte = gpu::load_shared<uint8_t>(slot.at(N + i));
    if (at.form == kShorts) {
      gpu::store_global(reinterpret_cast<int16_t*>(to) + i,
                        static_cast<int16_t>(high_byte << 8 | low_byte));
    } else if (at.form == kBytes) {
      gpu::store_global(to + i, low_byte);
    } else {
      gpu::store_global(to + i, high_byte);
      gpu::store_global(to + at.plane + i, low_byte);
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

// The same of floats that the kernel itself changes, and back.
template <int N>
FS_DEVICE void load_kept(const float* from, bool aligned, int count, Slot slot, float (&to)[N]) {
  if (aligned && count >= N) {
    FS_UNROLL
    for (int i = 0; i < N; i += 4) {
      const auto v = gpu::load_global(reinterpret_cast<const gpu::Bytes16*>(from + i));
      FS_UNROLL
      for (int e = 0; e < 4; ++e) to[i + e] = gpu::bits<float>(v.word[e]);
    }
    return;
  }
  FS_NO_UNROLL
  for (int i = 0; i < N; ++i)
    gpu::store_shared<float>(slot.at(4 * i), i < count ? gpu::load_global(from + i) : 0.0f);
  FS_UNROLL
  for (int i = 0; i < N; ++i) to[i] = gpu::load_shared<float>(slot.at(4 * i));
}
template <int N>
FS_DEVICE void store_kept(float* to, bool aligned, int count, Slot slot, const float (&from)[N]) {
  if (aligned && count >= N) {
    FS_UNROLL
    for (int i = 0; i < N; i += 4) {
      gpu::Bytes16 v;
      FS_UNROLL
      for (int e = 0; e < 4; ++e) v.word[e] = gpu::bits<uint32_t>(from[i + e]);
      gpu::store_global(reinterpret_cast<gpu::Bytes16*>(to + i), v);
    }
    return;
  }
  FS_UNROLL
  for (int i = 0; i < N; ++i) gpu::store_shared<float>(slot.at(4 * i), from[i]);
  FS_NO_UNROLL
  for (int i = 0; i < gpu::min(N, count); ++i)
    gpu::store_global(to + i, gpu::load_shared<float>(slot.at(4 * i)));
}

}  // namespace fskernel::cuda
