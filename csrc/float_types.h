// torch's four float types, to float32 and back, in arithmetic that any processor has and any
// compiler vectorises: no type of the compiler's own, no branch.
#pragma once

#include <cstdint>

#include "float_rules.h"

namespace fskernel {

enum class FloatType : int32_t { kFloat32, kFloat64, kFloat16, kBFloat16 };
constexpr int64_t float_bytes(FloatType type) {
  return type == FloatType::kFloat32 ? 4 : type == FloatType::kFloat64 ? 8 : 2;
}

struct Half {
  uint16_t bits;
};
struct BrainFloat {
  uint16_t bits;
};

// Internal linkage: compiled anew for each instruction set.
namespace {

inline float float_of_bits(uint32_t bits) {
  float v;
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}
inline uint32_t bits_of_float(float v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  return bits;
}

inline float to_float(double v) { return static_cast<float>(v); }
inline float to_float(BrainFloat v) { return float_of_bits(uint32_t{v.bits} << 16); }
// Exponent and fraction as those of a float32, which is then 2^112 too small; so are subnormal
// numbers, whose product with 2^112 is normal. The largest exponent stands for infinity and NaN.
inline float to_float(Half v) {
  const int32_t magnitude = (v.bits & 0x7fff) << 13;
  const float finite = float_of_bits(static_cast<uint32_t>(magnitude)) * 0x1p112f;
  const uint32_t rest = magnitude >= 0x0f800000 ? 0x7f800000u : 0u;  // signed: what vectors compare
  return float_of_bits(bits_of_float(finite) | rest | (v.bits & 0x8000u) << 16);
}

inline void from_float(float v, double& to) { to = v; }
// To nearest, ties to even; a NaN stays one.
inline void from_float(float v, BrainFloat& to) {
  const uint32_t bits = bits_of_float(v);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  to.bits = static_cast<uint16_t>(v == v ? rounded : (bits >> 16 | 0x40u));
}
// Chosen by masks, which vectors can.
inline void from_float(float v, Half& to) {
  const uint32_t bits = bits_of_float(v), magnitude = bits & 0x7fffffffu;
  const int32_t size = static_cast<int32_t>(magnitude);
  const auto mask = [](bool condition) { return 0u - static_cast<uint32_t>(condition); };
  // Numbers below 2^-14 are rounded to multiples of 2^-24 by adding 0.5, whose last bit is that.
  const uint32_t small = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + (magnitude >> 13 & 1)) >> 13;
  const uint32_t large = 0x7c00u | (mask(size > 0x7f800000) & 0x0200u);
  const uint32_t is_small = mask(size < 0x38800000);
  const uint32_t is_large = mask(size >= 0x477ff000);  // rounds to 2^16 or is beyond
  const uint32_t half = (small & is_small) | (normal & ~is_small & ~is_large) | (large & is_large);
  to.bits = static_cast<uint16_t>(half | (bits >> 16 & 0x8000u));
}

template <class From>
inline void to_floats(const From* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_float(from[i]);
}
template <class To>
inline void from_floats(const float* from, To* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) from_float(from[i], to[i]);
}

}  // namespace
}  // namespace fskernel
