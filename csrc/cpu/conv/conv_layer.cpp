#include "conv_layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace fskernel {
namespace {

// m, bias or top with every group's last vector filled up.
const float* pad_channels(const Kernels& kernels, const Layout& l, const float* from, float* to,
                          float fill) {
  const int64_t padded = l.vectors * kernels.lanes;
  for (int64_t g = 0; g < l.groups; ++g) {
    std::copy_n(from + g * l.channels, l.channels, to + g * padded);
    std::fill_n(to + g * padded + l.channels, padded - l.channels, fill);
  }
  return to;
}

bool has_depth(const ConvLayer& layer) {
  return layer.group[0].layout.depth_operands > 0 && layer.group_count == 1 &&
         !layer.has_residual && !layer.shape.row;
}

// The channels' values in the order of the depthwise kernel, `fill` behind the last one.
const float* depth_parameters(const Kernels& kernels, const Layout& l, const float* from, float* to,
                              float fill) {
  for (int64_t block = 0; block < l.depth_blocks; ++block)
    for (int32_t vector = 0; vector < depth_vectors(l.family); ++vector)
      for (int32_t lane = 0; lane < kernels.lanes; ++lane) {
        const int64_t o = block * depth_channels(kernels, l) + depth_order(l.family, vector, lane);
        to[(block * depth_vectors(l.family) + vector) * kernels.lanes + lane] =
            o < l.channels ? from[o] : fill;
      }
  return to;
}

// Sums are below 2^31 in magnitude and residuals at most 2^15.
bool is_bounded(const ConvLayer& layer, const float* const m[2], const float* bias) {
  for (int64_t o = 0; o < layer.out_channels; ++o) {
    float most = std::abs(bias[o]) / 0x1p31f + std::abs(layer.residual_scale) / 0x1p16f;
    for (int32_t i = 0; i < layer.group_count; ++i) most += std::abs(m[i][o]);
    if (!(most < 0.99f)) return false;
  }
  return true;
}

// Whether nothing that one table for all can give reaches 2^31.
bool is_bounded(const Shape& shape) {
  if (shape.row) return false;
  const float* offset = shape.table + shape.segments;
  for (int32_t i = 0; i < shape.segments; ++i)
    if (!(std::abs(shape.table[i]) * 256.0f + std::abs(offset[i]) < 0x1p30f)) return false;
  return true;
}

}  // namespace

void check_tops(const float* top, int64_t n, int32_t K, const std::string& name) {
  for (int64_t i = 0; i < n; ++i)
    if (!(top[i] >= 0 && top[i] <= static_cast<float>((1 << K) - 1) &&
          top[i] == std::floor(top[i])))
      throw std::invalid_argument(
          name + " holds " + std::to_string(top[i]) + ": expected whole numbers from 0 to " +
          std::to_string((1 << K) - 1) + ", the largest word of K=" + std::to_string(K));
}

void check_shape(const Shape& shape, int64_t tables, int32_t K, const std::string& name) {
  const int32_t S = shape.segments;
  if (S != 32 && S != 64 && S != 128 && S != 256)
    throw std::invalid_argument(name + " has " + std::to_string(S) +
                                " segments: expected 32, 64, 128 or 256");
  if (K < 1)
    throw std::invalid_argument(name + " is given with K=" + std::to_string(K) +
                                ": it is of neurons, which have a K of 1 to 15");
  for (int64_t i = 0; i < tables * 2 * S; ++i)
    if (!std::isfinite(shape.table[i]))
      throw std::invalid_argument(name + " holds " + std::to_string(shape.table[i]) +
                                  ": expected finite slopes and offsets");
}

void check_fitted(const Fitted& fitted, int32_t K, const std::string& name) {
  const int32_t steps = fitted.steps;
  const auto refuse = [&](const std::string& what) { throw std::invalid_argument(name + what); };
  if (steps < 1 || steps > kMostSteps)
    refuse(" has " + std::to_string(steps) + " time steps: expected 1 to 16");
  if (K < 1 || K > 16)
    refuse(" is given with K=" + std::to_string(K) + ": expected the bits of its codes, 1 to 16");
  for (int32_t i = 0; i < 3 * steps; ++i)
    if (!std::isfinite(fitted.lines[i]))
      refuse(" holds " + std::to_string(fitted.lines[i]) + ": expected finite numbers");
  for (const float* d = fitted.lines + 2 * steps; d < fitted.lines + 3 * steps; ++d)
    if (*d != std::floor(*d) || std::abs(*d) > kLargestWorth)
      refuse(" holds a worth of " + std::to_string(*d) +
             ": expected whole numbers from -32768 to 32768");
  if (!(fitted.zero >= 0 && fitted.zero <= static_cast<float>((1 << K) - 1)))
    refuse(" is given with zero=" + std::to_string(fitted.zero) + ": expected a code of " +
           std::to_string(K) + " bits");
}

int64_t parameter_floats(const Kernels& kernels, const ConvLayer& layer) {
  const Layout& l = layer.group[0].layout;
  const int64_t tables = layer.shape.row * l.groups * l.vectors * kernels.lanes;
  const int64_t depth = has_depth(layer) ? 3 * l.depth_blocks * depth_channels(kernels, l) : 0;
  const int64_t own = layer.out_channels;  // where no tops are given
  return own + (2 + layer.group_count) * l.groups * l.vectors * kernels.lanes + depth + tables;
}

void pad_parameters(const Kernels& kernels, ConvLayer& layer, const float* const m[2],
                    const float* bias, const float* top, float* to) {
  // Also the second group's m is laid out like the first group's channels, because the first
  // group's tasks read it.
  const Layout& l = layer.group[0].layout;
  const int64_t padded = l.groups * l.vectors * kernels.lanes;
  const float largest = static_cast<float>((1 << layer.K) - 1);
  if (!top) {
    std::fill_n(to, layer.out_channels, largest);
    top = to;
  }
  to += layer.out_channels;
  // A membrane of -inf reaches no threshold, also where one is below zero.
  const float silent = layer.fitted.lines ? -std::numeric_limits<float>::infinity() : 0.0f;
  const auto next = [&](const float* from, float fill = 0.0f) {
    const float* at = pad_channels(kernels, l, from, to, fill);
    to += padded;
    return at;
  };
  layer.bias = next(bias, silent);
  layer.top = next(top);
  for (int32_t i = 0; i < layer.group_count; ++i) layer.group[i].m = next(m[i]);
  const bool whole = std::all_of(top, top + layer.out_channels,
                                 [&](float neurons_top) { return neurons_top == largest; });
  layer.saturates = layer.K == 8 && whole && !layer.fitted.lines &&
                    (layer.shape.table ? is_bounded(layer.shape) : is_bounded(layer, m, bias));
  if (layer.shape.row) {
    std::fill_n(to, padded * layer.shape.row, 0.0f);
    for (int64_t g = 0; g < l.groups; ++g)
      std::copy_n(layer.shape.table + g * l.channels * layer.shape.row,
                  l.channels * layer.shape.row,
                  to + g * l.vectors * kernels.lanes * layer.shape.row);
    layer.shape.table = to;
    to += padded * layer.shape.row;
  }
  if (!has_depth(layer)) return;
  const auto next_depth = [&](const float* from, float fill = 0.0f) {
    const float* at = depth_parameters(kernels, l, from, to, fill);
    to += l.depth_blocks * depth_channels(kernels, l);
    return at;
  };
  layer.depth_m = next_depth(m[0]);
  layer.depth_bias = next_depth(bias, silent);
  layer.depth_top = next_depth(top);
}

ConvGroup conv_group(const Kernels& kernels, const uint8_t* packed) {
  ConvGroup g{};
  std::memcpy(&g.header, packed, sizeof g.header);
  g.layout = layout_of(kernels, g.header);
  g.weights = packed + kPackHeaderBytes;
  return g;
}

std::string describe(const Kernels& kernels, const ConvLayer& layer) {
  static const char* const family[] = {"u8s8", "s16s16", "depth_u8", "depth_s16"};
  const Layout& l = layer.group[0].layout;
  // A depthwise tile: outputs that share an operand x vectors of a block.
  const int64_t vectors =
      layer.depth_m ? depth_vectors(l.family) : l.vectors - block_begin(l, l.blocks - 1);
  const bool narrow = kernels.narrow_pixels && vectors <= 2 && layer.group_count == 1 &&
                      layer.K <= 8 && !l.depthwise && !layer.fitted.lines;
  const int64_t pixels = layer.depth_m ? l.depth_outputs
                         : narrow      ? kernels.narrow_pixels
                                       : kernels.max_pixels;
  return std::string(family[l.family]) + "/" + std::to_string(pixels) + "x" +
         std::to_string(vectors);
}

}  // namespace fskernel
