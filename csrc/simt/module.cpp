// The CUDA kernels on the emulator, as functions for Python: numpy arrays in and out. Built by
// bench/emulated/backend.py; for tests and for whoever has no GPU.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "checked_numbers.h"
#include "cuda/any_conv.h"
#include "cuda/pool_readout_encode_launch.h"
#include "cuda/tensor_make.h"
#include "simt/device.h"

namespace fskernel::cuda {
namespace {

namespace py = pybind11;
using Array = py::array;
using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;
using Longs = py::array_t<int64_t, py::array::c_style>;
using Ints = std::vector<int64_t>;

simt::Options options;

// Of so few multiprocessors that small layers use large tiles, too.
simt::Device new_device() { return simt::Device(options, 4); }

// Codes as they are given: a dense array, or a byte map with the numbers that say what it is.
CodesShape shape_of(const Array& x, const Ints& map, const char* name) {
  if (!map.empty()) return map_as(map, name);
  return {x.shape(0), x.shape(1), x.shape(2), x.shape(3), static_cast<int32_t>(x.itemsize())};
}

// For codes of K steps, dense or as a byte map.
Array new_codes(const Ints& shape, int K, const Kept& kept) {
  if (!kept.map)
    return Array(word_bytes(K) == 1 ? py::dtype::of<uint8_t>() : py::dtype::of<int16_t>(), shape);
  const ByteMap map = kept_map(kept, shape[0], shape[1], shape[2], shape[3], word_bytes(K));
  Array bytes(py::dtype::of<uint8_t>(), Ints{map.bytes()});
  std::memset(bytes.mutable_data(), 0xcd, bytes.nbytes());  // what nobody would compute
  return bytes;
}

Longs zeros(int64_t n) {
  Longs counts(n);
  std::memset(counts.mutable_data(), 0, counts.nbytes());
  return counts;
}

Array pack_weights(const Array& weight, const Ints& numbers, int x_min, int x_max) {
  const PackHeader h =
      pack_header(checks::geometry(numbers, "geometry"), weight.shape(0), weight.shape(1),
                  static_cast<int32_t>(weight.itemsize()), x_min, x_max);
  Bytes packed(packed_bytes(h));
  pack(h, weight.data(), packed.mutable_data());
  return packed;
}

// x, packed, m, geometry, and the numbers of x where it is a byte map.
using Group = std::tuple<Array, Bytes, Floats, Ints, Ints>;

py::tuple conv_of(const std::vector<Group>& groups, const Floats& bias,
                  const std::optional<Array>& residual, const Ints& residual_map, float r, int K,
                  int limit, int plane_bits, const Ints& halo, std::optional<Floats> membrane,
                  const std::string& kernel, const std::optional<Floats>& top, double step,
                  const std::optional<Floats>& table, const std::optional<Floats>& fitted,
                  int zero) {
  simt::Device device = new_device();
  ConvCall call{};
  PackHeader headers[2]{};
  call.out_channels = bias.size();
  for (const auto& [x, packed, m, numbers, map] : groups) {
    const Geometry g = checks::geometry(numbers, "geometry");
    const CodesShape codes = shape_of(x, map, "x");
    ConvInput& in = call.input[call.input_count];
    in = {device.reads("x", x),
          codes.bytes,
          codes.height,
          codes.width,
          codes.channels,
          device.reads("packed", packed),
          packed.nbytes(),
          device.reads("m", m),
          g,
          codes.kept};
    std::memcpy(&headers[call.input_count], packed.data(), sizeof(PackHeader));
    check_header(headers[call.input_count++], in, call.out_channels, "packed");
    const Size out = output_size(g, in.height, in.width);
    call.images = codes.images, call.out_h = out.h, call.out_w = out.w;
  }
  call.y_kept = kept_as(halo, "halo");
  const Ints shape = {call.images, call.out_h, call.out_w, call.out_channels};
  Array y = step > 0 ? Array(Floats(shape)) : new_codes(shape, K, call.y_kept);
  if (top) call.top = device.reads("top", *top);
  if (table) {
    const auto S = static_cast<int32_t>(table->shape(2));
    call.shape = {device.reads("table", *table), S, table->shape(0) > 1 ? 2 * S : 0};
  }
  if (fitted)
    call.fitted = {device.reads("fitted", *fitted), static_cast<int32_t>(fitted->shape(1)),
                   static_cast<float>(zero)};
  call.step = step;
  Longs counts = zeros(call.images);
  call.bias = device.reads("bias", bias);
  if (residual) {
    const CodesShape codes = shape_of(*residual, residual_map, "residual");
    call.residual = device.reads("residual", *residual);
    call.residual_kept = codes.kept;
    call.residual_bytes = codes.bytes;
    call.residual_scale = r;
  }
  call.K = K;
  call.limit = limit;
  call.plane_bits = plane_bits;
  call.y = device.writes("y", y);
  call.counts = device.writes("counts", counts);
  if (membrane) call.membrane = device.writes("membrane", *membrane);
  const char* name = "";
  Bytes scratch(conv_scratch(call, headers, kernel) + 256);
  uint8_t* from = device.writes("scratch", scratch);
  from += (256 - reinterpret_cast<uintptr_t>(from) % 256) % 256;
  run_conv(device, call, headers, from, kernel, name);
  return py::make_tuple(y, counts, name);
}

Array pool_of(const Array& x, const Ints& numbers, bool maximum) {
  simt::Device device = new_device();
  const Geometry g = checks::geometry(numbers, "geometry");
  const Size out = output_size(g, x.shape(1), x.shape(2));
  Array y(maximum ? x.dtype() : py::dtype::of<int16_t>(),
          Ints{x.shape(0), out.h, out.w, x.shape(3)});
  run_pool(device,
           {device.reads("x", x), static_cast<int32_t>(x.itemsize()), x.shape(0), x.shape(1),
            x.shape(2), x.shape(3), out.h, out.w, g, maximum, device.writes("y", y)});
  return y;
}

// b may have one pixel, or one channel.
py::tuple product_of(const Array& a, const Array& b, int zero_a, int zero_b, const Floats& m,
                     const Floats& bias, int K, int limit) {
  simt::Device device = new_device();
  Array y = new_codes(Ints(a.shape(), a.shape() + 4), K, {});
  Longs counts = zeros(a.shape(0));
  const Gate gate{zero_a, zero_b, device.reads("m", m), device.reads("bias", bias), K, limit};
  run_product(device, {device.reads("a", a), device.reads("b", b),
                       static_cast<int32_t>(a.itemsize()), static_cast<int32_t>(b.itemsize()),
                       a.shape(0), a.shape(1) * a.shape(2), a.shape(3), b.shape(1) * b.shape(2),
                       b.shape(3), gate, device.writes("y", y), device.writes("counts", counts)});
  return py::make_tuple(y, counts);
}

Floats readout_of(const Array& x, const Array& weight, const Floats& m, const Floats& bias,
                  bool pooled) {
  simt::Device device = new_device();
  py::array_t<int32_t> sums({x.shape(0), x.shape(3)});
  Floats y({x.shape(0), weight.shape(0)});
  // The sums are written by one launch and only read by the next.
  run_readout(device, {device.reads("x", x), static_cast<int32_t>(x.itemsize()), x.shape(0),
                       x.shape(1) * x.shape(2), x.shape(3), pooled, device.writes("sums", sums),
                       device.reads("weight", weight), static_cast<int32_t>(weight.itemsize()),
                       weight.shape(0), device.reads("m", m), device.reads("bias", bias),
                       device.writes("y", y)});
  return y;
}

// x [N, C, H, W], any strides; `base` is the array that holds all of it.
Array encode_any(const py::array_t<float>& x, const Array& base, float inv_step, float offset,
                 int K, int limit, const Ints& halo) {
  simt::Device device = new_device();
  device.reads("x", base);
  const Kept kept = kept_as(halo, "halo");
  Array y = new_codes({x.shape(0), x.shape(2), x.shape(3), x.shape(1)}, K, kept);
  const auto stride = [&](int i) { return static_cast<int64_t>(x.strides(i) / sizeof(float)); };
  run_encode(device,
             {x.data(), x.shape(0), x.shape(1), x.shape(2), x.shape(3), stride(0), stride(1),
              stride(2), stride(3), inv_step, offset, K, limit, device.writes("y", y), kept});
  return y;
}

Floats decode_of(const Array& x, double step) {
  simt::Device device = new_device();
  Floats y(Ints(x.shape(), x.shape() + x.ndim()));
  run_decode(device, {device.reads("words", x), static_cast<int32_t>(x.itemsize()), step,
                      device.writes("y", y), x.size()});
  return y;
}

Longs events(const Array& x, const Longs& fan_y, const Longs& fan_x) {
  simt::Device device = new_device();
  Longs counts = zeros(x.shape(0));
  run_events(device, {device.reads("words", x), static_cast<int32_t>(x.itemsize()), x.shape(0),
                      x.shape(1), x.shape(2), x.shape(3), device.reads("fan_y", fan_y),
                      device.reads("fan_x", fan_x), device.writes("events", counts)});
  return counts;
}

// What probe.cuh writes down: sums [4][32][4], fragments [32][4] and [32][2].
py::tuple probe_of(const Array& x, const Array& w, const Bytes& bytes, const Array& row) {
  simt::Device device = new_device();
  py::array_t<int32_t> sums({4, 32, 4});
  py::array_t<uint32_t> x4({32, 4}), x2({32, 2});
  const auto words = [&](const char* name, const Array& a) {
    return static_cast<const uint32_t*>(device.reads(name, a));
  };
  run_probe(device,
            {words("x", x), words("w", w), device.reads("bytes", bytes), words("row", row),
             device.writes("sums", sums), device.writes("x4", x4), device.writes("x2", x2)});
  return py::make_tuple(sums, x4, x2);
}

}  // namespace
}  // namespace fskernel::cuda

PYBIND11_MODULE(emulated_kernels, m) {
  using namespace fskernel::cuda;
  using fskernel::simt::Order;
  m.def("set_options", [](int order, bool late_copies, uint64_t seed) {
    options.order = static_cast<Order>(order);
    options.late_copies = late_copies;
    options.seed = seed;
  });
  m.def("pack", &pack_weights);
  m.def("conv", &conv_of);
  m.def("pool", &pool_of);
  m.def("product", &product_of);
  m.def("readout", &readout_of);
  m.def("encode", &encode_any);
  m.def("decode", &decode_of);
  m.def("synaptic_events", &events);
  m.def("probe", &probe_of);
}
