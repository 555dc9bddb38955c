// Sizes that are computed from numbers of others: a product or sum beyond 63 bits, or a map that is
// too large for the kernels, is refused and never wraps.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace fskernel {

// Elements of one map: what the operators' tensors may have, too.
constexpr int64_t kMostElements = (int64_t{1} << 31) - 1;

inline int64_t checked_product(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  bool fits = true;
  for (const int64_t factor : factors)
    fits = !__builtin_mul_overflow(product, factor, &product) && fits;
  for (const int64_t factor : factors)
    if (factor == 0) return 0;
  if (!fits) throw std::invalid_argument("a size is beyond 63 bits: use a smaller image");
  return product;
}

inline int64_t checked_sum(std::initializer_list<int64_t> terms) {
  int64_t sum = 0;
  for (const int64_t term : terms)
    if (__builtin_add_overflow(sum, term, &sum))
      throw std::invalid_argument("a size is beyond 63 bits: use a smaller image");
  return sum;
}

// Whether something that kernels loop over, a map or a batch of them, has at most that many
// elements. Where there are none its positions are bounded: a dimension of 0 counts as 1.
template <class Sizes = std::initializer_list<int64_t>>
bool fits(const Sizes& sizes) {
  int64_t elements = 1;
  bool fit = true;
  for (const int64_t n : sizes)
    fit = fit && n >= 0 && !__builtin_mul_overflow(elements, n > 0 ? n : 1, &elements) &&
          elements <= kMostElements;
  return fit;
}

// `what` has this shape, for the message.
template <class Sizes = std::initializer_list<int64_t>>
void check_fits(const Sizes& sizes, const std::string& what) {
  if (fits(sizes)) return;
  std::string shape;
  for (const int64_t n : sizes) shape += (shape.empty() ? "" : ", ") + std::to_string(n);
  throw std::invalid_argument(what + " shape [" + shape +
                              "]: at most 2^31 - 1 elements (of an empty tensor: positions) are "
                              "supported, split the batch or use a smaller image");
}

}  // namespace fskernel
