// The way from float tensors to codes and back, over a vector class V (../isa/vec_*.h): any of
// torch's float types, in any order of memory. Channels come first or last in nearly all tensors:
// what is last already is one long run, what is first is turned around in small blocks.
#pragma once

#include "../../float_types.h"
#include "bits.h"
#include "scale.h"

namespace fskernel {
namespace {

constexpr int64_t kRun = 512;  // values that are taken through a buffer at once
// Pixels and channels of a block that is turned around: few streams at once, whose lines often lie
// in the same sets of the cache.
constexpr int64_t kBlockPixels = 128, kBlockChannels = 16;

// ---- values to codes ----------------------------------------------------------------------------

// Beyond the range by more than rounding explains: values of exactly alpha are common.
constexpr float kBeyond = 1 + 0x1p-20f;

template <class V>
struct EncodeRule {
  explicit EncodeRule(const EncodeTask& t) : graded(t.K == 0) {
    const float whole = static_cast<float>(1 << t.K), limit = static_cast<float>(t.limit);
    inv_step = V::splat(t.inv_step);
    offset = V::splat(t.offset);
    top = V::splat(graded ? limit : whole - 1);
    above = V::splat((graded ? limit + 1 : whole + t.offset) * kBeyond);
    below = V::splat(-(limit + 1) * kBeyond);
  }
  typename V::Float inv_step, offset, top, above, below;
  const bool graded;
};

// What was met, lane by lane.
template <class V>
struct Met {
  typename V::Float least;
  typename V::Int beyond;
};

// kBytes: of a code. n: a multiple of the lanes.
template <class V, int kBytes>
FS_INLINE void encode_vectors(const EncodeRule<V>& rule, const float* x, uint8_t* y, int64_t n,
                              Met<V>& met) {
  for (int64_t i = 0; i < n; i += V::kLanes, y += kBytes * V::kLanes) {
    const typename V::Float value = V::load_float(x + i);
    met.least = V::smaller(value, met.least);
    typename V::Int code[1];
    if (kBytes == 2 && rule.graded) {
      const typename V::Float v = V::mul(value, rule.inv_step);
      met.beyond = V::count_above(met.beyond, v, rule.above);
      met.beyond = V::count_above(met.beyond, rule.below, v);
      code[0] = V::graded(v, rule.top);
      V::store_s16(y, code);
    } else {
      const typename V::Float v = V::fma(value, rule.inv_step, rule.offset);
      met.beyond = V::count_above(met.beyond, v, rule.above);
      code[0] = V::fire(v, rule.top);
      if constexpr (kBytes == 1)
        V::store_u8(y, code);
      else
        V::store_u16(y, code);
    }
  }
}

// n neighbouring values, at most kRun where they are not float32.
template <class V, int kBytes, class From>
FS_INLINE void encode_run(const EncodeRule<V>& rule, const From* x, uint8_t* y, int64_t n,
                          Met<V>& met) {
  alignas(64) float values[kRun];
  alignas(64) uint8_t rest[2 * V::kLanes];
  const float* from = values;
  if constexpr (sizeof(From) == 4)
    from = reinterpret_cast<const float*>(x);
  else
    to_floats(x, values, n);
  const int64_t whole = n - n % V::kLanes;
  encode_vectors<V, kBytes>(rule, from, y, whole, met);
  if (whole == n) return;
  alignas(64) float last[V::kLanes] = {};
  for (int64_t i = whole; i < n; ++i) last[i - whole] = from[i];
  encode_vectors<V, kBytes>(rule, last, rest, V::kLanes, met);
  __builtin_memcpy(y + kBytes * whole, rest, kBytes * (n - whole));
}

// Elements of 1, 2 or 4 bytes that fill 16.
template <int kBytes>
struct RowOf;
template <>
struct RowOf<1> {
  using Type = uint8_t __attribute__((vector_size(16)));
};
template <>
struct RowOf<2> {
  using Type = uint16_t __attribute__((vector_size(16)));
};
template <>
struct RowOf<4> {
  using Type = uint32_t __attribute__((vector_size(16)));
};

// The lower, or upper, halves of a and b, element by element in turn.
template <class Row>
FS_INLINE Row lower(Row a, Row b) {
  if constexpr (sizeof a[0] == 1)
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  else if constexpr (sizeof a[0] == 2)
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  else
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
template <class Row>
FS_INLINE Row upper(Row a, Row b) {
  if constexpr (sizeof a[0] == 1)
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
  else if constexpr (sizeof a[0] == 2)
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  else
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

// Turns a square around, element j of row i to element i of row j: log2(kSide) perfect shuffles.
template <class Row, int kSide>
FS_INLINE void turn(Row (&r)[kSide]) {
#pragma GCC unroll 4
  for (int side = kSide; side > 1; side /= 2) {
    Row next[kSide];
#pragma GCC unroll 8
    for (int i = 0; i < kSide / 2; ++i) {
      next[2 * i] = lower(r[i], r[i + kSide / 2]);
      next[2 * i + 1] = upper(r[i], r[i + kSide / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) r[i] = next[i];
  }
}

// [rows][cols] elements of 1, 2 or 4 bytes, rows from_row bytes apart -> [cols][rows], to_row
// apart.
template <int kBytes>
FS_INLINE void turn_block(const uint8_t* from, int64_t from_row, int64_t rows, int64_t cols,
                          uint8_t* to, int64_t to_row) {
  using Row = typename RowOf<kBytes>::Type;
  constexpr int kSide = 16 / kBytes;
  for (int64_t i = 0; i < rows; i += kSide)
    for (int64_t j = 0; j < cols; j += kSide) {
      const uint8_t* x = from + i * from_row + j * kBytes;
      uint8_t* y = to + j * to_row + i * kBytes;
      const int64_t high = rows - i < kSide ? rows - i : kSide;
      const int64_t wide = cols - j < kSide ? cols - j : kSide;
      Row r[kSide] = {};
      if (high == kSide && wide == kSide) {
#pragma GCC unroll 16
        for (int k = 0; k < kSide; ++k) __builtin_memcpy(&r[k], x + k * from_row, sizeof(Row));
        turn(r);
#pragma GCC unroll 16
        for (int k = 0; k < kSide; ++k) __builtin_memcpy(y + k * to_row, &r[k], sizeof(Row));
      } else {
        for (int64_t k = 0; k < high; ++k) __builtin_memcpy(&r[k], x + k * from_row, wide * kBytes);
        turn(r);
        for (int64_t k = 0; k < wide; ++k) __builtin_memcpy(y + k * to_row, &r[k], high * kBytes);
      }
    }
}

constexpr int64_t kFewChannels = 4;

template <int kBytes>
struct CodeType {
  using Type = uint8_t;
};
template <>
struct CodeType<2> {
  using Type = int16_t;
};
template <int kBytes>
using CodeOf = typename CodeType<kBytes>::Type;

// [kChannels][kBlockPixels] codes -> n pixels of as many, for a number that the compiler knows.
template <class Code, int kChannels>
FS_INLINE void interleave(const uint8_t* block, uint8_t* to, int64_t pixel, int64_t n) {
  const Code* codes = reinterpret_cast<const Code*>(block);
  if (pixel == kChannels * static_cast<int64_t>(sizeof(Code)) && n == kBlockPixels) {
    Code* y = reinterpret_cast<Code*>(to);
    for (int64_t i = 0; i < kBlockPixels; ++i)
      for (int c = 0; c < kChannels; ++c) y[i * kChannels + c] = codes[c * kBlockPixels + i];
    return;
  }
  for (int64_t i = 0; i < n; ++i, to += pixel)
    for (int c = 0; c < kChannels; ++c)
      __builtin_memcpy(to + c * sizeof(Code), &codes[c * kBlockPixels + i], sizeof(Code));
}

template <class Code>
FS_INLINE void interleave(const uint8_t* block, int64_t channels, uint8_t* to, int64_t pixel,
                          int64_t n) {
  switch (channels) {
    case 1:
      return interleave<Code, 1>(block, to, pixel, n);
    case 2:
      return interleave<Code, 2>(block, to, pixel, n);
    case 3:
      return interleave<Code, 3>(block, to, pixel, n);
    default:
      return interleave<Code, 4>(block, to, pixel, n);
  }
}

template <class V, int kBytes, class From>
void encode_rows(const EncodeTask& task, Encoded* encoded) {
  EncodeTask t = task;
  const EncodeRule<V> rule(t);
  Met<V> met;
  met.least = V::splat(0.0f);
  met.beyond = V::zero();
  const auto* x = static_cast<const From*>(t.x);
  int64_t width = t.width, rows = t.row_end - t.row_begin;
  // Rows that follow each other without a gap, on both sides, are one.
  if (t.stride_h == width * t.stride_w && t.y_row == width * t.y_pixel) {
    width *= rows;
    rows = rows ? 1 : 0;
  }
  alignas(64) uint8_t block[kBlockPixels * kBlockChannels * kBytes];
  alignas(64) From gathered[kBlockPixels];
  int64_t since = 0;
  const auto note = [&](int64_t values) {  // before 32 bits of a lane are full
    since += values;
    if (since < int64_t{1} << 30) return;
    encoded->beyond += V::lane_sum(met.beyond);
    met.beyond = V::zero();
    since = 0;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const From* from = x + (t.row_begin + row) * t.stride_h;
    uint8_t* to = t.y + (t.row_begin + row) * t.y_row;
    const bool last = t.stride_c == 1 || t.channels == 1;
    if (last && t.stride_w == t.channels && t.y_pixel == t.channels * kBytes) {
      const int64_t n = width * t.channels, most = sizeof(From) == 4 ? 1 << 20 : kRun;
      for (int64_t i = 0; i < n; i += most) {
        const int64_t part = n - i < most ? n - i : most;
        encode_run<V, kBytes>(rule, from + i, to + i * kBytes, part, met);
        note(part);
      }
      continue;
    }
    if (last && t.channels >= V::kLanes) {
      for (int64_t col = 0; col < width; ++col)
        for (int64_t c = 0; c < t.channels; c += kRun) {
          const int64_t part = t.channels - c < kRun ? t.channels - c : kRun;
          encode_run<V, kBytes>(rule, from + col * t.stride_w + c,
                                to + col * t.y_pixel + c * kBytes, part, met);
          note(part);
        }
      continue;
    }
    for (int64_t col = 0; col < width; col += kBlockPixels)
      for (int64_t c = 0; c < t.channels; c += kBlockChannels) {
        const int64_t n = width - col < kBlockPixels ? width - col : kBlockPixels;
        const int64_t side = t.channels - c < kBlockChannels ? t.channels - c : kBlockChannels;
        for (int64_t i = 0; i < side; ++i) {
          const From* at = from + col * t.stride_w + (c + i) * t.stride_c;
          // Every channel is a stream of its own, too short here for the processor to foresee: what
          // the next block reads is fetched while this one is turned around.
          const From* next = c + kBlockChannels < t.channels
                                 ? at + kBlockChannels * t.stride_c
                                 : from + (col + kBlockPixels) * t.stride_w + i * t.stride_c;
          if (t.stride_w == 1)
            for (int64_t k = 0; k < n; k += 64 / sizeof(From)) __builtin_prefetch(next + k);
          if (t.stride_w != 1) {
            for (int64_t k = 0; k < n; ++k) gathered[k] = at[k * t.stride_w];
            at = gathered;
          }
          encode_run<V, kBytes>(rule, at, block + i * kBlockPixels * kBytes, n, met);
        }
        note(n * side);
        uint8_t* y = to + col * t.y_pixel + c * kBytes;
        if (side <= kFewChannels)
          interleave<CodeOf<kBytes>>(block, side, y, t.y_pixel, n);
        else
          turn_block<kBytes>(block, kBlockPixels * kBytes, side, n, y, t.y_pixel);
      }
  }
  encoded->beyond += V::lane_sum(met.beyond);
  alignas(64) float least[V::kLanes];
  V::store_float(least, met.least);
  for (const float value : least) encoded->least = value < encoded->least ? value : encoded->least;
}

template <class V, class From>
void encode_type(const EncodeTask& t, Encoded* encoded) {
  if (t.y_bytes == 1)
    encode_rows<V, 1, From>(t, encoded);
  else
    encode_rows<V, 2, From>(t, encoded);
}

template <class V>
Encoded encode(const EncodeTask& t) {
  Encoded encoded;
  switch (t.type) {
    case FloatType::kFloat32:
      encode_type<V, float>(t, &encoded);
      break;
    case FloatType::kFloat64:
      encode_type<V, double>(t, &encoded);
      break;
    case FloatType::kFloat16:
      encode_type<V, Half>(t, &encoded);
      break;
    case FloatType::kBFloat16:
      encode_type<V, BrainFloat>(t, &encoded);
      break;
  }
  return encoded;
}

// ---- words to values ----------------------------------------------------------------------------

// n values, at most kRun where they do not become float32. kBytes 4: floats, as they are.
template <class V, int kBytes, class To>
FS_INLINE void decode_run(const uint8_t* x, const Scale<V>& scale, To* y, int64_t n) {
  alignas(64) float values[kRun + V::kLanes];
  float* to = sizeof(To) == 4 ? reinterpret_cast<float*>(y) : values;
  if constexpr (kBytes == 4) {
    __builtin_memcpy(to, x, 4 * n);
  } else {
    int64_t i = 0;
    for (; i + V::kLanes <= n; i += V::kLanes) {
      const auto word = kBytes == 1 ? V::widen_u8(x + i) : V::widen_s16(x + 2 * i);
      V::store_float(to + i, scale(word));
    }
    if (i < n) {
      alignas(64) uint8_t rest[kBytes * V::kLanes] = {};
      alignas(64) float last[V::kLanes];
      __builtin_memcpy(rest, x + kBytes * i, kBytes * (n - i));
      V::store_float(last, scale(kBytes == 1 ? V::widen_u8(rest) : V::widen_s16(rest)));
      __builtin_memcpy(to + i, last, 4 * (n - i));
    }
  }
  if constexpr (sizeof(To) != 4) from_floats(values, y, n);
}

template <class V, int kBytes, class To>
void decode_rows(const DecodeTask& task) {
  const DecodeTask t = task;
  const Scale<V> scale(t.step);
  auto* y = static_cast<To*>(t.y);
  const int64_t pixel = t.channels * kBytes;
  int64_t width = t.width, rows = t.row_end - t.row_begin;
  if (t.stride_h == width * t.stride_w) {
    width *= rows;
    rows = rows ? 1 : 0;
  }
  alignas(64) uint8_t turned[kBlockPixels * kBlockChannels * kBytes];
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* from = t.x + (t.row_begin + row) * t.width * pixel;
    To* to = y + (t.row_begin + row) * t.stride_h;
    if ((t.stride_c == 1 || t.channels == 1) && t.stride_w == t.channels) {
      const int64_t n = width * t.channels, most = sizeof(To) == 4 ? n : kRun;
      for (int64_t i = 0; i < n; i += most)
        decode_run<V, kBytes>(from + i * kBytes, scale, to + i, n - i < most ? n - i : most);
      continue;
    }
    for (int64_t col = 0; col < width; col += kBlockPixels)
      for (int64_t c = 0; c < t.channels; c += kBlockChannels) {
        const int64_t n = width - col < kBlockPixels ? width - col : kBlockPixels;
        const int64_t side = t.channels - c < kBlockChannels ? t.channels - c : kBlockChannels;
        turn_block<kBytes>(from + col * pixel + c * kBytes, pixel, n, side, turned,
                           kBlockPixels * kBytes);
        for (int64_t i = 0; i < side; ++i)
          decode_run<V, kBytes>(turned + i * kBlockPixels * kBytes, scale,
                                to + (c + i) * t.stride_c + col, n);
      }
  }
}

template <class V, class To>
void decode_type(const DecodeTask& t) {
  if (t.x_bytes == 1)
    decode_rows<V, 1, To>(t);
  else if (t.x_bytes == 2)
    decode_rows<V, 2, To>(t);
  else
    decode_rows<V, 4, To>(t);
}

template <class V>
void decode(const DecodeTask& t) {
  switch (t.type) {
    case FloatType::kFloat32:
      return decode_type<V, float>(t);
    case FloatType::kFloat64:
      return decode_type<V, double>(t);
    case FloatType::kFloat16:
      return decode_type<V, Half>(t);
    case FloatType::kBFloat16:
      return decode_type<V, BrainFloat>(t);
  }
}

}  // namespace
}  // namespace fskernel
