// Weights as spikes read them: behind the header, for each block of output channels, one row of a
// whole number of vectors for each tap and input channel. int8 weights become int16, which are
// added up in 16 bits for a while, and int16 weights int32.
#pragma once

#include <string>

#include "../../conv_call.h"
#include "../tasks.h"

namespace fskernel {

struct Rows {
  bool exist;              // only where all output channels read all input channels
  int32_t weight_bytes;    // of those: 2 or 4
  int64_t vectors;         // of a row
  int64_t block_channels;  // output channels of a block; the last one may have fewer
  int64_t blocks, row_bytes, column_bytes, block_bytes;
  int64_t bytes;  // header included
};

// Vectors that a row had best have where a neuron has that many inputs from one group. All groups
// of a layer need the same.
int64_t row_vectors(const Kernels& kernels, int64_t out_channels, int64_t inputs,
                    int32_t weight_bytes);

Rows rows_of(const Kernels& kernels, const Geometry& geometry, int64_t out_channels,
             int64_t in_channels, int32_t weight_bytes, int64_t vectors);
// Of rows that check_rows has accepted.
Rows rows_of(const Kernels& kernels, const uint8_t* rows);

// weight: int8 or int16 [O, I, kh, kw]; rows: rows.bytes bytes.
void pack_rows(const Kernels& kernels, const Rows& rows, const Geometry& geometry,
               int64_t out_channels, int64_t in_channels, const void* weight, int32_t weight_bytes,
               uint8_t* to);

// Throws std::invalid_argument if rows were made for other kernels, shapes or geometry; `name` is
// the argument's.
Rows check_rows(const Kernels& kernels, const ConvInput& input, const uint8_t* rows, int64_t bytes,
                int64_t out_channels, const std::string& name);

}  // namespace fskernel
