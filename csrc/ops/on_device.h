// The operators that are not convolutions, written once for all devices: checks, outputs, the call.
// A Device is made for one operator, of its first argument and its name. It says in `place` where
// tensors have to be; its pool, product, readout, encode, decode and synaptic_events run a kernel
// on checked tensors and note that under the name they are given first.
#pragma once

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../conv_call.h"
#include "checks.h"

namespace fskernel {

using checks::new_output;
using checks::new_tensor;
using checks::ScalarType;
using checks::Tensor;
using Ints = std::vector<int64_t>;

template <class Device>
Tensor pool_op(const Tensor& x, const Ints& geometry, bool maximum) {
  const char* op = maximum ? "max_pool" : "sum_pool";
  const Device device(x, op);
  const Geometry g = checks::geometry(geometry, "geometry");
  const Tensor in = checks::activations(x, "x", device.place);
  const Size out = checks::output_of(in, g, "x");
  Tensor y = new_output(in, {in.size(0), out.h, out.w, in.size(3)},
                        maximum ? in.scalar_type() : ScalarType::Short);
  device.pool(op, in, g, maximum, y);
  return y;
}

template <class Device>
Tensor max_pool_op(const Tensor& x, Ints geometry) {
  return pool_op<Device>(x, geometry, true);
}

template <class Device>
Tensor sum_pool_op(const Tensor& x, Ints geometry) {
  return pool_op<Device>(x, geometry, false);
}

template <class Device>
std::tuple<Tensor, Tensor> gate_op(const Tensor& a, const Tensor& b, int64_t zero_a, int64_t zero_b,
                                   const Tensor& m, const Tensor& bias, int64_t K, int64_t limit,
                                   bool count) {
  const Device device(a, "gate");
  const Tensor in = checks::activations(a, "a", device.place);
  const Tensor by = checks::activations(b, "b", device.place);
  checks::multipliable(in, by);
  checks::in_range(K, 0, 15, "K", "time steps; 0 gives graded output");
  checks::in_range(limit, 1, 32767, "limit", "of graded output");
  checks::code_of_zero(in, zero_a, "zero_a");
  checks::code_of_zero(by, zero_b, "zero_b");
  const Tensor mm = checks::finite_per_channel(m, "m", in.size(3), device.place);
  const Tensor bb = checks::finite_per_channel(bias, "bias", in.size(3), device.place);
  Tensor y = new_output(in, {in.size(0), in.size(1), in.size(2), in.size(3)}, checks::word_type(K));
  Tensor counts = torch::stable::new_zeros(in, Ints{count ? in.size(0) : 0}, ScalarType::Long);
  const Gate gate{static_cast<int32_t>(zero_a),
                  static_cast<int32_t>(zero_b),
                  static_cast<const float*>(mm.const_data_ptr()),
                  static_cast<const float*>(bb.const_data_ptr()),
                  static_cast<int32_t>(K),
                  static_cast<int32_t>(limit)};
  device.product("gate", in, by, gate, y, counts);
  return {y, counts};
}

template <class Device>
Tensor readout_op(const Tensor& x, const Tensor& weight, const Tensor& m, const Tensor& bias,
                  bool pooled) {
  const Device device(x, "readout");
  const Tensor in = checks::activations(x, "x", device.place);
  const Tensor w = checks::dense(weight, "weight", 2, "[O, F]",
                                 {ScalarType::Char, ScalarType::Short}, device.place);
  checks::readable(in, w, pooled);
  const int64_t out = w.size(0);
  const Tensor mm = checks::per_channel(m, "m", out, device.place);
  const Tensor b = checks::per_channel(bias, "bias", out, device.place);
  Tensor y = new_output(in, {in.size(0), out}, ScalarType::Float);
  device.readout("readout", in, w, mm, b, pooled, y);
  return y;
}

template <class Device>
Tensor encode_any(const char* name, const Tensor& x, double inv_step, double offset, int64_t K,
                  int64_t limit) {
  const Device device(x, "encode");
  checks::encodable(x, inv_step, device.place);
  Tensor y = new_tensor(x, {x.size(0), x.size(2), x.size(3), x.size(1)}, checks::word_type(K));
  device.encode(name, x, checks::as_encoder(inv_step, offset, K, limit), y);
  return y;
}

template <class Device>
Tensor encode_op(const Tensor& x, double inv_step, int64_t limit) {
  checks::in_range(limit, 1, 32767, "limit", "of graded values");
  return encode_any<Device>("encode", x, inv_step, 0.0, 0, limit);
}

template <class Device>
Tensor encode_words_op(const Tensor& x, double inv_step, double offset, int64_t K) {
  checks::words(offset, K);
  return encode_any<Device>("encode_words", x, inv_step, offset, K, 0);
}

template <class Device>
Tensor decode_op(const Tensor& words, double step) {
  const Device device(words, "decode");
  const Tensor in = checks::activations(words, "words", device.place);
  checks::step(step, 1);
  Tensor y = new_tensor(in, {in.size(0), in.size(1), in.size(2), in.size(3)}, ScalarType::Float);
  device.decode("decode", in, step, y);
  return y;
}

template <class Device>
Tensor synaptic_events_op(const Tensor& words, const Tensor& fan_y, const Tensor& fan_x) {
  const Device device(words, "synaptic_events");
  const Tensor in = checks::activations(words, "words", device.place);
  const Tensor fy = checks::dense(fan_y, "fan_y", 1, "[H]", {ScalarType::Long}, device.place);
  const Tensor fx = checks::dense(fan_x, "fan_x", 1, "[W]", {ScalarType::Long}, device.place);
  checks::fans(in, fy, fx);
  Tensor events = torch::stable::new_zeros(in, Ints{in.size(0)}, ScalarType::Long);
  device.synaptic_events("synaptic_events", in, fy, fx, events);
  return events;
}

// Registers all of them for a device's key.
template <class Device>
void implement_on(torch::stable::detail::StableLibrary& m) {
  m.impl("max_pool", OPERATOR(max_pool_op<Device>));
  m.impl("sum_pool", OPERATOR(sum_pool_op<Device>));
  m.impl("gate", OPERATOR(gate_op<Device>));
  m.impl("readout", OPERATOR(readout_op<Device>));
  m.impl("encode", OPERATOR(encode_op<Device>));
  m.impl("encode_words", OPERATOR(encode_words_op<Device>));
  m.impl("decode", OPERATOR(decode_op<Device>));
  m.impl("synaptic_events", OPERATOR(synaptic_events_op<Device>));
}

}  // namespace fskernel
