// A convolution in the emulator, for Python: numpy arrays in and out, through any way to run one.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda/tensor_launch.h"
#include "simt/launch.h"

namespace fskernel::testing {

namespace py = pybind11;
using Array = py::array;
using Floats = py::array_t<float, py::array::c_style>;
using Ints = std::vector<int64_t>;

// The emulator as a device. It knows every buffer of the call, so that it notices an access to
// anything else.
struct Emulator {
  simt::Options options;
  std::vector<simt::Buffer> buffers;
  simt::Report report{};  // of the last launch

  template <class Args>
  int launch(const cuda::Launch& how, void (*kernel)(Args), const Args& args) {
    report = simt::launch({{static_cast<int>(how.blocks)}, how.threads, how.shared_bytes}, buffers,
                          options, [=] { kernel(args); });
    return 0;
  }
};

// Of its exact size and aligned as device memory is, filled with what nobody would compute.
struct Memory {
  explicit Memory(int64_t n)
      : bytes(n),
        data(static_cast<uint8_t*>(std::aligned_alloc(256, (n + 255) / 256 * 256 + 256))) {
    std::memset(data.get(), 0xcd, n);
  }
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  int64_t bytes;
  std::unique_ptr<uint8_t, Free> data;
};

using Group = std::tuple<Array, Array, Floats, Ints, int, int>;  // x, weight, m, geometry, range

struct Settings {
  int order;
  bool late_copies;
  uint64_t seed;
  bool shadow, count;
  // The output goes into a map of bytes with that many halo pixels around it, as it would for the
  // next layer; and the residual comes from such a map. -1: dense tensors.
  int y_halo, residual_halo;
  int x_halo;  // pixels that the first input's map has around the halo that the layer needs
};

inline Geometry geometry_of(const Ints& v) {
  const auto at = [&](int i) { return static_cast<int32_t>(v.at(i)); };
  return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11)};
}

inline cuda::ByteMap map_around(const ConvCall& call, int halo, int planes) {
  cuda::ByteMap map{};
  map.planes = planes;
  map.images = call.images;
  map.channels = (call.out_channels + 15) / 16 * 16;
  map.rows = call.out_h + 2 * halo, map.cols = call.out_w + 2 * halo;
  map.top = map.left = halo;
  return map;
}

// choose(TensorConvArgs) gives a TensorKernel. Returns y, counts, the kernel's name and the report;
// where y is a map, its bytes. membrane: of rate-coded neurons, updated; or none.
template <class Choose>
py::tuple run_conv(const Choose& choose, const std::vector<Group>& groups, const Floats& bias,
                   const std::optional<Array>& residual, float r, int K, int limit, int plane_bits,
                   const std::optional<Floats>& top, double step,
                   const std::optional<Floats>& membrane, const Settings& settings) {
  Emulator device;
  device.options.order = static_cast<simt::Order>(settings.order);
  device.options.late_copies = settings.late_copies;
  device.options.seed = settings.seed;
  device.options.shadow = settings.shadow;
  const auto reads = [&](const char* name, const Array& a) {
    device.buffers.push_back({name, a.data(), a.nbytes(), false});
    return a.data();
  };
  const auto owns = [&](const char* name, const Memory& m, bool writable) {
    device.buffers.push_back({name, m.data.get(), m.bytes, writable});
    return m.data.get();
  };
  ConvCall call{};
  PackHeader headers[2]{};
  std::vector<Memory> packed;
  call.out_channels = bias.size();
  for (const auto& [x, weight, m, ints, x_min, x_max] : groups) {
    const int i = call.input_count++;
    PackHeader& h = headers[i];
    h.geometry = geometry_of(ints);
    h.out_channels = weight.shape(0);
    h.in_channels_per_group = weight.shape(1);
    h.x_min = x_min;
    h.x_max = x_max;
    h.weight_bytes = static_cast<int32_t>(weight.itemsize());
    packed.emplace_back(cuda::tensor_packed_bytes(h));
    cuda::pack_tensor_weights(h, weight.data(), packed.back().data.get());
    const Geometry& g = h.geometry;
    call.input[i] = {reads("x", x),
                     static_cast<int32_t>(x.itemsize()),
                     x.shape(1),
                     x.shape(2),
                     x.shape(3),
                     owns("weights", packed.back(), false),
                     packed.back().bytes,
                     static_cast<const float*>(reads("m", m)),
                     g};
    const auto size = [](int64_t n, int64_t k, int64_t s, int64_t pad, int64_t d) {
      return (n + pad - d * (k - 1) - 1) / s + 1;
    };
    call.images = x.shape(0);
    call.out_h = size(x.shape(1), g.kernel_h, g.stride_h, g.pad_top + g.pad_bottom, g.dilation_h);
    call.out_w = size(x.shape(2), g.kernel_w, g.stride_w, g.pad_left + g.pad_right, g.dilation_w);
  }
  const bool bytes = K >= 1 && K <= 8;
  call.bias = static_cast<const float*>(reads("bias", bias));
  call.K = K;
  call.limit = limit;
  call.plane_bits = plane_bits;
  if (top) call.top = static_cast<const float*>(reads("top", *top));
  call.step = step;
  py::array_t<int64_t> counts(call.images);
  std::memset(counts.mutable_data(), 0, counts.nbytes());
  if (settings.count) {
    call.counts = counts.mutable_data();
    device.buffers.push_back({"counts", counts.data(), counts.nbytes(), true});
  }
  const cuda::ByteMap y_map = map_around(call, settings.y_halo, bytes ? 1 : 2);
  Array y(step > 0 ? py::dtype::of<float>()
          : bytes  ? py::dtype::of<uint8_t>()
                   : py::dtype::of<int16_t>(),
          Ints{call.images, call.out_h, call.out_w, call.out_channels});
  if (settings.y_halo >= 0)
    y = Array(py::dtype::of<uint8_t>(),
              Ints{y_map.planes, y_map.images, y_map.rows, y_map.cols, y_map.channels});
  const Memory y_memory(y.nbytes());
  call.y = owns("y", y_memory, true);
  if (residual) {
    call.residual = reads("residual", *residual);
    call.residual_bytes = static_cast<int32_t>(residual->itemsize());
    call.residual_scale = r;
  }
  const Memory kept(membrane ? membrane->nbytes() : 0);
  if (membrane) {
    std::memcpy(kept.data.get(), membrane->data(), kept.bytes);
    call.membrane = reinterpret_cast<float*>(owns("membrane", kept, true));
  }

  cuda::ByteMap map[2];
  cuda::TensorConvArgs args = cuda::tensor_conv_args(call, headers, map);
  const Memory scratch(cuda::tensor_conv_scratch(call, headers));
  owns("map", scratch, true);
  int64_t first = 0;
  if (settings.y_halo >= 0) {
    args.y_at = cuda::place_in(y_map, first);
    args.y = y_memory.data.get() + first;
  }
  const cuda::ByteMap residual_map =
      map_around(call, settings.residual_halo, call.residual_bytes == 2 ? 2 : 1);
  const Memory residual_memory(settings.residual_halo < 0 ? 0 : residual_map.bytes());
  if (residual && settings.residual_halo >= 0) {
    ConvInput in{};
    in.x = call.residual;
    in.x_bytes = call.residual_bytes;
    in.height = call.out_h, in.width = call.out_w, in.channels = call.out_channels;
    owns("residual map", residual_memory, true);
    cuda::launch_fill_map(device, in, residual_map, residual_memory.data.get());
    args.residual_at = cuda::place_in(residual_map, first);
    args.residual = residual_memory.data.get() + first;
  }
  cuda::ByteMap larger = map[0];
  larger.rows += 2 * settings.x_halo, larger.cols += 16 * settings.x_halo;
  larger.top += settings.x_halo, larger.left += 2 * settings.x_halo;
  const Memory x_memory(settings.x_halo ? larger.bytes() : 0);
  const cuda::TensorKernel kernel = choose(args);
  if (args.pixels) {
    cuda::launch_fill_maps(device, call, map, scratch.data.get(), args);
    if (settings.x_halo) {
      owns("larger map", x_memory, true);
      cuda::launch_fill_map(device, call.input[0], larger, x_memory.data.get());
      args.group[0].x =
          x_memory.data.get() + cuda::read_from(larger, call.input[0].geometry, args.group[0]);
    }
    cuda::launch_tensor_conv(device, kernel, args);
  }
  std::memcpy(y.mutable_data(), y_memory.data.get(), y.nbytes());
  if (membrane) std::memcpy(Floats(*membrane).mutable_data(), kept.data.get(), kept.bytes);
  const simt::Report& found = device.report;
  py::dict report;
  report["blocks"] = found.blocks;
  report["mma"] = found.mma;
  report["bank_conflicts"] = found.bank_conflicts;
  report["load_sectors"] = found.load_sectors;
  report["load_bytes"] = found.load_bytes;
  report["store_sectors"] = found.store_sectors;
  report["store_bytes"] = found.store_bytes;
  return py::make_tuple(y, counts, kernel.tile.name, report);
}

inline void bind_settings(py::module_& m) {
  py::register_local_exception<simt::Fault>(m, "Fault");
  py::class_<Settings>(m, "Settings", py::module_local())
      .def(py::init<int, bool, uint64_t, bool, bool, int, int, int>(), py::kw_only(),
           py::arg("order") = 0, py::arg("late_copies") = true, py::arg("seed") = 1,
           py::arg("shadow") = true, py::arg("count") = true, py::arg("y_halo") = -1,
           py::arg("residual_halo") = -1, py::arg("x_halo") = 0);
}

}  // namespace fskernel::testing
