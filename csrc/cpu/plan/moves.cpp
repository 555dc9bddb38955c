#include "moves.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "../../checked_sizes.h"

namespace fskernel {
namespace {

constexpr int64_t kMostNumber = 1 << 24;  // as of a geometry

struct Kind {
  const char* name;
  size_t numbers;
  int64_t least;
};
// In the order of MoveKind.
constexpr Kind kKinds[] = {{"upsample", 2, 1}, {"shuffle", 1, 1}, {"unshuffle", 1, 1},
                           {"pad", 4, 0},      {"crop", 4, 0},    {"expand", 0, 0}};

int64_t square(const Move& move) { return int64_t{move.numbers[0]} * move.numbers[0]; }

// One pixel's channels, to pixels that lie `pixel` bytes apart; a stride of 0 takes the same one
// again and again. Few bytes are copied without a call.
template <int kBytes>
void copy_few(const uint8_t* from, int64_t from_pixel, uint8_t* to, int64_t to_pixel,
              int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i)
    std::memcpy(to + i * to_pixel, from + i * from_pixel, kBytes);
}

void copy_pixels(const uint8_t* from, int64_t from_pixel, uint8_t* to, int64_t to_pixel,
                 int64_t bytes, int64_t pixels) {
  if (from_pixel == bytes && to_pixel == bytes) {
    std::memcpy(to, from, pixels * bytes);
    return;
  }
  switch (bytes) {
    case 1:
      return copy_few<1>(from, from_pixel, to, to_pixel, pixels);
    case 2:
      return copy_few<2>(from, from_pixel, to, to_pixel, pixels);
    case 4:
      return copy_few<4>(from, from_pixel, to, to_pixel, pixels);
    case 8:
      return copy_few<8>(from, from_pixel, to, to_pixel, pixels);
    case 16:
      return copy_few<16>(from, from_pixel, to, to_pixel, pixels);
    default:
      for (int64_t i = 0; i < pixels; ++i)
        std::memcpy(to + i * to_pixel, from + i * from_pixel, bytes);
  }
}

// The elements of a word, each followed by room for another: bytes, or (kBytes = 2) pairs of them.
template <int kBytes>
uint64_t spread(uint32_t word) {
  uint64_t x = word;
  x = (x | x << 16) & 0x0000FFFF0000FFFF;
  if (kBytes == 1) x = (x | x << 8) & 0x00FF00FF00FF00FF;
  return x;
}
static_assert(std::endian::native == std::endian::little, "elements lie in words from the low end");

// n elements of a and of b in turn.
template <int kBytes>
void braid(const uint8_t* a, const uint8_t* b, uint8_t* to, int64_t n) {
  constexpr int64_t kStep = 4 / kBytes;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    uint32_t words[2];
    std::memcpy(&words[0], a + i * kBytes, 4);
    std::memcpy(&words[1], b + i * kBytes, 4);
    const uint64_t both = spread<kBytes>(words[0]) | spread<kBytes>(words[1]) << 8 * kBytes;
    std::memcpy(to + 2 * i * kBytes, &both, 8);
  }
  for (; i < n; ++i) {
    std::memcpy(to + 2 * i * kBytes, a + i * kBytes, kBytes);
    std::memcpy(to + (2 * i + 1) * kBytes, b + i * kBytes, kBytes);
  }
}

int64_t bytes_of_pixel(const Map& m) { return m.channels * m.bytes; }

void fill_pixels(const Map& y, uint8_t* to, int32_t code, int64_t pixels) {
  if (y.pixel == bytes_of_pixel(y)) return fill(to, y.bytes, code, pixels * y.channels);
  for (int64_t i = 0; i < pixels; ++i) fill(to + i * y.pixel, y.bytes, code, y.channels);
}

void upsample_row(const Move& move, const Map& x, const Map& y, int64_t row) {
  const int64_t times = move.numbers[1];
  const uint8_t* from = x.data + row / move.numbers[0] * x.row;
  uint8_t* to = y.data + row * y.row;
  for (int64_t col = 0; col < x.width; ++col)
    copy_pixels(from + col * x.pixel, 0, to + col * times * y.pixel, y.pixel, bytes_of_pixel(x),
                times);
}

void pad_row(const Move& move, const Map& x, const Map& y, int64_t row) {
  const int64_t left = move.numbers[2], inside = row - move.numbers[0];
  uint8_t* to = y.data + row * y.row;
  if (inside < 0 || inside >= x.height) return fill_pixels(y, to, move.zero, y.width);
  fill_pixels(y, to, move.zero, left);
  copy_pixels(x.data + inside * x.row, x.pixel, to + left * y.pixel, y.pixel, bytes_of_pixel(x),
              x.width);
  fill_pixels(y, to + (left + x.width) * y.pixel, move.zero, move.numbers[3]);
}

void crop_row(const Move& move, const Map& x, const Map& y, int64_t row) {
  const uint8_t* from = x.data + (row + move.numbers[0]) * x.row + move.numbers[2] * x.pixel;
  copy_pixels(from, x.pixel, y.data + row * y.row, y.pixel, bytes_of_pixel(x), y.width);
}

// y[r*i + a][r*j + b][c] = x[i][j][c*r*r + a*r + b]
template <class T>
void shuffle_row(int64_t r, const Map& x, const Map& y, int64_t row) {
  for (int64_t col = 0; col < y.width; ++col) {
    const auto* from = reinterpret_cast<const T*>(x.data + row / r * x.row + col / r * x.pixel) +
                       row % r * r + col % r;
    auto* to = reinterpret_cast<T*>(y.data + row * y.row + col * y.pixel);
    for (int64_t c = 0; c < y.channels; ++c) to[c] = from[c * r * r];
  }
}

// y[i][j][c*r*r + a*r + b] = x[r*i + a][r*j + b][c]
template <class T>
void unshuffle_row(int64_t r, const Map& x, const Map& y, int64_t row) {
  for (int64_t col = 0; col < x.width; ++col)
    for (int64_t a = 0; a < r; ++a) {
      const auto* from = reinterpret_cast<const T*>(x.data + (row * r + a) * x.row + col * x.pixel);
      auto* to = reinterpret_cast<T*>(y.data + row * y.row + col / r * y.pixel) + a * r + col % r;
      for (int64_t c = 0; c < x.channels; ++c) to[c * r * r] = from[c];
    }
}

void move_row(const Move& move, const Map& x, const Map& y, int64_t row) {
  const int64_t r = move.numbers[0];
  switch (move.kind) {
    case MoveKind::kUpsample:
      return upsample_row(move, x, y, row);
    case MoveKind::kShuffle:
      return x.bytes == 1 ? shuffle_row<uint8_t>(r, x, y, row) : shuffle_row<int16_t>(r, x, y, row);
    case MoveKind::kUnshuffle:
      return x.bytes == 1 ? unshuffle_row<uint8_t>(r, x, y, row)
                          : unshuffle_row<int16_t>(r, x, y, row);
    case MoveKind::kPad:
      return pad_row(move, x, y, row);
    case MoveKind::kCrop:
      return crop_row(move, x, y, row);
    case MoveKind::kExpand:
      return copy_pixels(x.data, 0, y.data + row * y.row, y.pixel, bytes_of_pixel(x), y.width);
  }
}

}  // namespace

Move as_move(const std::string& kind, const std::vector<int64_t>& numbers, int32_t zero) {
  for (size_t i = 0; i < std::size(kKinds); ++i) {
    if (kind != kKinds[i].name) continue;
    Move move{static_cast<MoveKind>(i), {}, zero};
    if (numbers.size() != kKinds[i].numbers)
      throw std::invalid_argument("a move of kind " + kind + " has " +
                                  std::to_string(kKinds[i].numbers) + " numbers, not " +
                                  std::to_string(numbers.size()));
    for (size_t k = 0; k < numbers.size(); ++k) {
      if (numbers[k] < kKinds[i].least || numbers[k] > kMostNumber)
        throw std::invalid_argument(
            "a number of a move of kind " + kind + " is " + std::to_string(numbers[k]) +
            ": expected " + std::to_string(kKinds[i].least) + " to " + std::to_string(kMostNumber));
      move.numbers[k] = static_cast<int32_t>(numbers[k]);
    }
    return move;
  }
  throw std::invalid_argument("kind is '" + kind + "': there is no such move");
}

const char* name_of(MoveKind kind) { return kKinds[static_cast<size_t>(kind)].name; }

int64_t moved_channels(const Move& move, int64_t channels) {
  if (move.kind == MoveKind::kUnshuffle) return checked_product({channels, square(move)});
  if (move.kind != MoveKind::kShuffle) return channels;
  return channels % square(move) == 0 ? channels / square(move) : 0;
}

Size moved_size(const Move& move, const Size& map, const Size& like) {
  const auto& n = move.numbers;
  switch (move.kind) {
    case MoveKind::kUpsample:
      return {map.h * n[0], map.w * n[1]};
    case MoveKind::kShuffle:
      return {map.h * n[0], map.w * n[0]};
    case MoveKind::kUnshuffle:
      return map.h % n[0] == 0 && map.w % n[0] == 0 ? Size{map.h / n[0], map.w / n[0]} : Size{};
    case MoveKind::kPad:
      return {map.h + n[0] + n[1], map.w + n[2] + n[3]};
    case MoveKind::kCrop:
      return map.h > int64_t{n[0]} + n[1] && map.w > int64_t{n[2]} + n[3]
                 ? Size{map.h - n[0] - n[1], map.w - n[2] - n[3]}
                 : Size{};
    case MoveKind::kExpand:
      return map.h == 1 && map.w == 1 ? like : Size{};
  }
  return {};
}

void move(const Move& move, const Map& x, const Map& y, const Executor& executor) {
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) move_row(move, x, y, row);
  });
}

void copy_channels(const Map& x, const Map& y, const Executor& executor) {
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      copy_pixels(x.data + row * x.row, x.pixel, y.data + row * y.row, y.pixel, bytes_of_pixel(y),
                  y.width);
  });
}

void braid_channels(const Map& a, const Map& b, const Map& y, const Executor& executor) {
  split(executor, y.height, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t col = 0; col < y.width; ++col)
        (y.bytes == 1 ? braid<1> : braid<2>)(a.data + row * a.row + col * a.pixel,
                                             b.data + row * b.row + col * b.pixel,
                                             y.data + row * y.row + col * y.pixel, a.channels);
  });
}

}  // namespace fskernel
