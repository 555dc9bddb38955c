// All kernels of an instruction set, made of its vector class: what a file of ../isa includes.
#pragma once

#include "conv_tile.h"
#include "depth_tile.h"
#include "float_codes.h"
#include "pool_readout.h"
#include "product.h"
#include "rate_tile.h"

namespace fskernel {
namespace {

// One row of ../isa/kernels.inc's table.
template <class V, int kMaxP, int kMaxN>
constexpr Kernels kernels_of(const char* name, bool (*supported)(), bool automatic) {
  return {name,
          supported,
          automatic,
          V::kHasU8S8,
          V::kLanes,
          kMaxN,
          kMaxP,
          V::kNarrowPixels,
          V::kEventCosts,
          &conv_task<V, kMaxP, kMaxN>,
          &depth_task<V>,
          &rate_task<V, kMaxP, kMaxN>,
          &list_events<V>,
          &event_task<V>,
          &integrate<V>,
          &spikes_at<V>,
          &count_steps<V>,
          &gate<V>,
          &add_totals,
          &max_pool<V>,
          &sum_pool,
          &product<V>,
          &channel_sums<V>,
          &readout<V>,
          &encode<V>,
          &decode<V>,
          &convert,
          &spikes_in,
          &peak<V, kMaxP, kMaxN>};
}

}  // namespace
}  // namespace fskernel
