// The operators of fskernel as torch knows them; cpu.cpp, plans.cpp and cuda.cpp hold what they do.
#include <torch/csrc/stable/library.h>

#include "../float_rules.h"

STABLE_TORCH_LIBRARY(fskernel, m) {
  m.def("pack(Tensor weight, int[] geometry, int x_min, int x_max) -> Tensor");
  m.def(
      "conv(Tensor x, Tensor packed, Tensor m, int[] geometry, Tensor bias, Tensor? x2, "
      "Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, Tensor? r, int K, "
      "int limit, int plane_bits, Tensor? top=None, float? step=None, bool count=True, "
      "Tensor? table=None, Tensor? fitted=None, int zero=0) -> (Tensor, Tensor)");
  m.def(
      "conv_floats(Tensor x, float inv_step, float offset, int x_K, int x_limit, Tensor packed, "
      "Tensor m, int[] geometry, Tensor bias, Tensor? top, int K, float step, int plane_bits, "
      "bool count, bool channels_first) -> (Tensor, Tensor, Tensor)");
  m.def(
      "conv_maps(Tensor x, int[] x_map, Tensor packed, Tensor m, int[] geometry, Tensor bias, "
      "Tensor? x2, int[] x2_map, Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, "
      "int[] residual_map, Tensor? r, int K, int limit, int plane_bits, int[] halo, "
      "Tensor? top=None, float? step=None, bool count=True, Tensor? table=None, "
      "Tensor? fitted=None, int zero=0) -> (Tensor, Tensor)");
  m.def("max_pool(Tensor x, int[] geometry) -> Tensor");
  m.def("sum_pool(Tensor x, int[] geometry) -> Tensor");
  m.def(
      "gate(Tensor a, Tensor b, int zero_a, int zero_b, Tensor m, Tensor bias, int K, int limit, "
      "bool count=True) -> (Tensor, Tensor)");
  m.def("readout(Tensor x, Tensor weight, Tensor m, Tensor bias, bool pool) -> Tensor");
  m.def("encode(Tensor x, float inv_step, int limit) -> Tensor");
  m.def("encode_map(Tensor x, float inv_step, int limit, int[] halo) -> Tensor");
  m.def("encode_words(Tensor x, float inv_step, float offset, int K) -> Tensor");
  m.def("decode(Tensor words, float step) -> Tensor");
  m.def("synaptic_events(Tensor words, Tensor fan_y, Tensor fan_x) -> Tensor");
  m.def(
      "integrate_and_fire(Tensor x, Tensor packed, Tensor m, int[] geometry, Tensor bias, "
      "Tensor? x2, Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, Tensor? r, "
      "Tensor(a!) membrane) -> (Tensor, Tensor)");
  m.def("pack_rows(Tensor weight, int[] geometry, int inputs) -> Tensor");
  m.def(
      "integrate_and_fire_trains(Tensor x, Tensor packed, Tensor m, int[] geometry, Tensor bias, "
      "Tensor? x2, Tensor? packed2, Tensor? m2, int[] geometry2, Tensor? residual, Tensor? r, "
      "Tensor? rows, Tensor? rows2, Tensor(a!) membrane, int steps, str path) "
      "-> (Tensor, Tensor)");
  m.def(
      "integrate_and_fire_current(Tensor current, Tensor(a!) membrane, int steps) "
      "-> (Tensor, Tensor)");
  m.def("gate_pool(Tensor x, Tensor(a!) totals, int[] geometry, int steps) -> Tensor");
  m.def("run_plan(Tensor x, int plan, int plane_bits, bool count) -> (Tensor, Tensor)");
  m.def("time_plan(Tensor x, int plan, int plane_bits) -> Tensor");
}
