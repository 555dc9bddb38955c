// The CUDA kernels on the emulator, as functions for Python: numpy arrays in and out. Built by
// bench/emulated/backend.py; for tests and for whoever has no GPU.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "cuda/any_conv.h"
#include "cuda/pool_readout_encode_launch.h"
#include "cuda/tensor_make.h"
#include "simt/launch.h"

namespace fskernel::cuda {
namespace {

namespace py = pybind11;
using Array = py::array;
using Floats = py::array_t<float, py::array::c_style>;
using Longs = py::array_t<int64_t, py::array::c_style>;
using Ints = std::vector<int64_t>;

simt::Options options;

// The emulator as the device that the files *_run.h launch on. It knows every array of the call, so
// that it notices an access to anything else.
struct Emulator {
  std::vector<simt::Buffer> buffers;

  const uint8_t* reads(const char* name, const Array& a) {
    buffers.push_back({name, a.data(), a.nbytes(), false});
    return static_cast<const uint8_t*>(a.data());
  }
  template <class T>
  T* writes(const char* name, Array& a) {
    buffers.push_back({name, a.data(), a.nbytes(), true});
    return static_cast<T*>(a.mutable_data());
  }
  int multiprocessors() const { return 4; }  // so that small layers use large tiles, too

  template <class Args>
  int launch(const Launch& how, void (*kernel)(Args), const Args& args) {
    simt::launch({{static_cast<int>(how.blocks)}, how.threads, how.shared_bytes}, buffers, options,
                 [=] { kernel(args); });
    return 0;
  }
};

Geometry geometry(const Ints& v) {
  if (v.size() != 12) throw std::invalid_argument("geometry needs 12 numbers");
  const auto at = [&](int i) { return static_cast<int32_t>(v[i]); };
  return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11)};
}

int64_t out_size(int64_t size, int64_t k, int64_t s, int64_t before, int64_t after, int64_t d) {
  return (size + before + after - d * (k - 1) - 1) / s + 1;
}

Array words(const Ints& shape, int K) {
  return Array(K >= 1 && K <= 8 ? py::dtype::of<uint8_t>() : py::dtype::of<int16_t>(), shape);
}

Array pack_weights(const Array& weight, const Ints& g, int x_min, int x_max) {
  const PackHeader h = pack_header(geometry(g), weight.shape(0), weight.shape(1),
                                   static_cast<int32_t>(weight.itemsize()), x_min, x_max);
  Array packed(py::dtype::of<uint8_t>(), Ints{packed_bytes(h)});
  pack(h, weight.data(), static_cast<uint8_t*>(packed.mutable_data()));
  return packed;
}

// x, packed, m, geometry, and the numbers of x where it is a byte map (see Given in
// checked_conv.h).
using Group = std::tuple<Array, Array, Floats, Ints, Ints>;

// Six numbers from `first` on; none: not kept.
Kept kept_as(const Ints& v, size_t first) {
  if (v.empty()) return {};
  const auto at = [&](size_t i) { return static_cast<int32_t>(v.at(first + i)); };
  return {true, at(0), at(1), at(2), at(3), at(4), at(5)};
}

py::tuple conv_of(const std::vector<Group>& groups, const Floats& bias,
                  const std::optional<Array>& residual, const Ints& residual_map, float r, int K,
                  int limit, int plane_bits, const Ints& halo, std::optional<Floats> membrane,
                  const std::string& kernel, const std::optional<Floats>& top, double step) {
  Emulator device;
  ConvCall call{};
  PackHeader headers[2]{};
  call.out_channels = bias.size();
  for (const auto& [x, packed, m, ints, map] : groups) {
    const Geometry g = geometry(ints);
    ConvInput& in = call.input[call.input_count];
    const auto size = [&, &x = x, &map = map](size_t i) {
      return map.empty() ? x.shape(static_cast<ssize_t>(i)) : map.at(i);
    };
    in = {device.reads("x", x),
          map.empty() ? static_cast<int32_t>(x.itemsize()) : static_cast<int32_t>(map.at(4)),
          size(1),
          size(2),
          size(3),
          device.reads("packed", packed),
          packed.nbytes(),
          reinterpret_cast<const float*>(device.reads("m", m)),
          g,
          kept_as(map, 5)};
    std::memcpy(&headers[call.input_count], packed.data(), sizeof(PackHeader));
    check_header(headers[call.input_count++], in, call.out_channels, "packed");
    call.images = size(0);
    call.out_h = out_size(in.height, g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h);
    call.out_w = out_size(in.width, g.kernel_w, g.stride_w, g.pad_left, g.pad_right, g.dilation_w);
  }
  call.y_kept = kept_as(halo, 0);
  const Ints shape = {call.images, call.out_h, call.out_w, call.out_channels};
  Array y = step > 0 ? Array(Floats(shape)) : words(shape, K);
  if (top) call.top = reinterpret_cast<const float*>(device.reads("top", *top));
  call.step = step;
  if (call.y_kept.map) {
    const ByteMap map = kept_map(call.y_kept, call.images, call.out_h, call.out_w,
                                 call.out_channels, static_cast<int32_t>(y.itemsize()));
    y = Array(py::dtype::of<uint8_t>(), Ints{map.bytes()});
    std::memset(y.mutable_data(), 0xcd, y.nbytes());  // what nobody would compute
  }
  Longs counts(call.images);
  std::memset(counts.mutable_data(), 0, counts.nbytes());
  call.bias = reinterpret_cast<const float*>(device.reads("bias", bias));
  if (residual) {
    call.residual = device.reads("residual", *residual);
    call.residual_kept = kept_as(residual_map, 5);
    call.residual_bytes =
        static_cast<int32_t>(residual_map.empty() ? residual->itemsize() : residual_map.at(4));
    call.residual_scale = r;
  }
  call.K = K;
  call.limit = limit;
  call.plane_bits = plane_bits;
  call.y = device.writes<void>("y", y);
  call.counts = device.writes<int64_t>("counts", counts);
  if (membrane) call.membrane = device.writes<float>("membrane", *membrane);
  const char* name = "";
  Array scratch(py::dtype::of<uint8_t>(), Ints{conv_scratch(call, headers, kernel) + 256});
  auto* from = device.writes<uint8_t>("scratch", scratch);
  from += (256 - reinterpret_cast<uintptr_t>(from) % 256) % 256;
  run_conv(device, call, headers, from, kernel, name);
  return py::make_tuple(y, counts, name);
}

Array pool_of(const Array& x, const Ints& ints, bool maximum) {
  Emulator device;
  const Geometry g = geometry(ints);
  PoolCall call{device.reads("x", x),
                static_cast<int32_t>(x.itemsize()),
                x.shape(0),
                x.shape(1),
                x.shape(2),
                x.shape(3),
                out_size(x.shape(1), g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h),
                out_size(x.shape(2), g.kernel_w, g.stride_w, g.pad_left, g.pad_right, g.dilation_w),
                g,
                maximum,
                nullptr};
  Array y(maximum ? x.dtype() : py::dtype::of<int16_t>(),
          Ints{call.images, call.out_h, call.out_w, call.channels});
  call.y = device.writes<void>("y", y);
  run_pool(device, call);
  return y;
}

Floats readout_of(const Array& x, const Array& weight, const Floats& m, const Floats& bias,
                  bool pooled) {
  Emulator device;
  py::array_t<int32_t> sums({x.shape(0), x.shape(3)});
  Floats y({x.shape(0), weight.shape(0)});
  // The sums are written by one launch and only read by the next.
  run_readout(
      device,
      {device.reads("x", x), static_cast<int32_t>(x.itemsize()), x.shape(0),
       x.shape(1) * x.shape(2), x.shape(3), pooled, device.writes<int32_t>("sums", sums),
       device.reads("weight", weight), static_cast<int32_t>(weight.itemsize()), weight.shape(0),
       reinterpret_cast<const float*>(device.reads("m", m)),
       reinterpret_cast<const float*>(device.reads("bias", bias)), device.writes<float>("y", y)});
  return y;
}

// x [N, C, H, W], any strides; `base` is the array that holds all of it.
Array encode_any(const py::array_t<float>& x, const Array& base, float inv_step, float offset,
                 int K, int limit, const Ints& halo) {
  Emulator device;
  device.reads("x", base);
  const Kept kept = kept_as(halo, 0);
  Array y = words({x.shape(0), x.shape(2), x.shape(3), x.shape(1)}, K);
  if (kept.map) {
    const ByteMap map = kept_map(kept, x.shape(0), x.shape(2), x.shape(3), x.shape(1),
                                 static_cast<int32_t>(y.itemsize()));
    y = Array(py::dtype::of<uint8_t>(), Ints{map.bytes()});
    std::memset(y.mutable_data(), 0xcd, y.nbytes());  // what nobody would compute
  }
  const auto stride = [&](int i) { return static_cast<int64_t>(x.strides(i) / sizeof(float)); };
  run_encode(device,
             {x.data(), x.shape(0), x.shape(1), x.shape(2), x.shape(3), stride(0), stride(1),
              stride(2), stride(3), inv_step, offset, K, limit, device.writes<void>("y", y), kept});
  return y;
}

Floats decode_of(const Array& x, double step) {
  Emulator device;
  Floats y(Ints(x.shape(), x.shape() + x.ndim()));
  run_decode(device, {device.reads("words", x), static_cast<int32_t>(x.itemsize()), step,
                      device.writes<float>("y", y), x.size()});
  return y;
}

Longs events(const Array& x, const Longs& fan_y, const Longs& fan_x) {
  Emulator device;
  Longs counts(x.shape(0));
  std::memset(counts.mutable_data(), 0, counts.nbytes());
  run_events(device, {device.reads("words", x), static_cast<int32_t>(x.itemsize()), x.shape(0),
                      x.shape(1), x.shape(2), x.shape(3),
                      reinterpret_cast<const int64_t*>(device.reads("fan_y", fan_y)),
                      reinterpret_cast<const int64_t*>(device.reads("fan_x", fan_x)),
                      device.writes<int64_t>("events", counts)});
  return counts;
}

// What probe.cuh writes down: sums [4][32][4], fragments [32][4] and [32][2].
py::tuple probe_of(const Array& x, const Array& w, const Array& bytes, const Array& row) {
  Emulator device;
  py::array_t<int32_t> sums({4, 32, 4});
  py::array_t<uint32_t> x4({32, 4}), x2({32, 2});
  const auto words = [](const uint8_t* p) { return reinterpret_cast<const uint32_t*>(p); };
  run_probe(device,
            {words(device.reads("x", x)), words(device.reads("w", w)), device.reads("bytes", bytes),
             words(device.reads("row", row)), device.writes<int32_t>("sums", sums),
             device.writes<uint32_t>("x4", x4), device.writes<uint32_t>("x2", x2)});
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
  m.def("readout", &readout_of);
  m.def("encode", &encode_any);
  m.def("decode", &decode_of);
  m.def("synaptic_events", &events);
  m.def("probe", &probe_of);
}
