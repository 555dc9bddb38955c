// What only moves codes: channels side by side, larger and smaller maps, one pixel for all.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "../../geometry.h"
#include "../executor.h"
#include "../map.h"

namespace fskernel {

// Channels [first, first + count) of one of the inputs of a concatenation.
struct Run {
  int input;  // the how many-th
  int64_t first, count;
};

// As torch has them; kExpand spreads a map of one pixel over the size of another.
enum class MoveKind { kUpsample, kShuffle, kUnshuffle, kPad, kCrop, kExpand };

struct Move {
  MoveKind kind;
  std::array<int32_t, 4>
      numbers;   // factors of rows and columns; the factor; what is put on or cut off the sides
  int32_t zero;  // the code of padding
};

// The names are those of Python's; throws std::invalid_argument where there is no such kind, or it
// has other numbers.
Move as_move(const std::string& kind, const std::vector<int64_t>& numbers, int32_t zero);
const char* name_of(MoveKind kind);

// Channels of the output; 0 where the factor does not divide them.
int64_t moved_channels(const Move& move, int64_t channels);
// Of the output, for a map and, of kExpand, the map whose size it takes; no rows where the map does
// not fit the move.
Size moved_size(const Move& move, const Size& map, const Size& like);

// x and y have elements of one type, and y the size that belongs to x.
void move(const Move& move, const Map& x, const Map& y, const Executor& executor);

// All pixels of x, of as many channels as y has.
void copy_channels(const Map& x, const Map& y, const Executor& executor);

}  // namespace fskernel
