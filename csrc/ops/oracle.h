// The scalar oracle (../reference.h), checked like an operator.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace fskernel {

// Numbers of a caller's.
template <class T>
struct Array {
  const T* data;
  std::vector<int64_t> shape;
  int64_t size() const {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    return n;
  }
};

struct OracleGroup {
  Array<int32_t> x, weight;  // [N, H, W, I], [O, I/groups, kh, kw]
  Array<float> m;            // [O]
  std::vector<int64_t> geometry;
};

struct OracleOutput {
  std::vector<int64_t> shape;
  std::vector<int32_t> y;
  std::vector<int64_t> counts;
};

// Both throw std::invalid_argument for what does not fit together.
OracleOutput oracle_conv(const std::vector<OracleGroup>& groups, const Array<float>& bias,
                         const std::optional<Array<int32_t>>& residual, float r, int32_t K,
                         int32_t limit, const std::optional<Array<float>>& top,
                         const std::optional<Array<float>>& table = std::nullopt,
                         const std::optional<Array<float>>& fitted = std::nullopt,
                         int32_t zero = 0);

// a [N, H, W, C]; b has its pixels or one, its channels or one; m, bias [C].
OracleOutput oracle_gate(const Array<int32_t>& a, const Array<int32_t>& b, int32_t zero_a,
                         int32_t zero_b, const Array<float>& m, const Array<float>& bias, int32_t K,
                         int32_t limit);

}  // namespace fskernel
