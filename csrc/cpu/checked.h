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
  if (!fits) throw std::invalid_argument("a size is beyond 63 bits: use a smaller picture");
  return product;
}

inline int64_t checked_sum(std::initializer_list<int64_t> terms) {
  int64_t sum = 0;
  for (const int64_t term : terms)
    if (__builtin_add_overflow(sum, term, &sum))
      throw std::invalid_argument("a size is beyond 63 bits: use a smaller picture");
  return sum;
}

// Whether a map, or a batch of them, has at most that many elements.
inline bool fits(std::initializer_list<int64_t> size) {
  int64_t elements = 1;
  bool fit = true;
  for (const int64_t n : size) {
    if (n == 0) return true;
    fit = fit && n > 0 && !__builtin_mul_overflow(elements, n, &elements);
  }
  return fit && elements <= kMostElements;
}

// `what` it is that has this size, for the message.
inline void check_fits(std::initializer_list<int64_t> size, const std::string& what) {
  if (fits(size)) return;
  std::string shape;
  for (const int64_t n : size) shape += (shape.empty() ? "" : "x") + std::to_string(n);
  throw std::invalid_argument(what + " would have " + shape +
                              " elements, and at most 2^31 - 1 are supported: use a smaller "
                              "picture, less padding, or split the batch");
}

}  // namespace fskernel
