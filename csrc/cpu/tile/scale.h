// What words stand for. Internal linkage: compiled anew for each instruction set.
#pragma once

#include "bits.h"

namespace fskernel {
namespace {

// word * step in float64, rounded once. Where the step is a float32 number, one float32 product
// gives the same bits, because a word is one, too, and a product is rounded once.
template <class V>
class Scale {
 public:
  FS_INLINE explicit Scale(double step)
      : step_(step),
        single_(V::splat(static_cast<float>(step))),
        is_single_(static_cast<float>(step) == step) {}
  FS_INLINE typename V::Float operator()(typename V::Int word) const {
    return is_single_ ? V::mul(V::to_float(word), single_) : V::scaled(word, step_);
  }

 private:
  double step_;
  typename V::Float single_;
  bool is_single_;
};

}  // namespace
}  // namespace fskernel
