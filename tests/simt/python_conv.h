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

#include "checked_numbers.h"
#include "cuda/tensor_launch.h"
#include "simt/device.h"

namespace fskernel::testing {

namespace py = pybind11;
using Array = py::array;
using Floats = py::array_t<float, py::array::c_style>;
using Ints = std::vector<int64_t>;

// Of its exact size and aligned as device memory is, filled with what nobody would compute.
class Memory {
 public:
  explicit Memory(int64_t n)
      : bytes_(n),
        data_(static_cast<uint8_t*>(std::aligned_alloc(256, (n + 255) / 256 * 256 + 256))) {
    std::memset(data_.get(), 0xcd, n);
  }
  const uint8_t* data() const { return data_.get(); }
  uint8_t* mutable_data() { return data_.get(); }
  int64_t nbytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  int64_t bytes_;
  std::unique_ptr<uint8_t, Free> data_;
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

// With that many pixels around every image.
inline cuda::ByteMap map_around(const ConvCall& call, int halo, int bytes) {
  return cuda::kept_map({true, halo, halo, halo, halo}, call.images, call.out_h, call.out_w,
                        call.out_channels, bytes);
}

// choose(TensorConvArgs) gives a TensorKernel. Returns y, counts, the kernel's name and the report;
// where y is a map, its bytes. membrane: of rate-coded neurons, updated; or none.
template <class Choose>
py::tuple run_conv(const Choose& choose, const std::vector<Group>& groups, const Floats& bias,
                   const std::optional<Array>& residual, float r, int K, int limit, int plane_bits,
                   const std::optional<Floats>& top, double step,
                   const std::optional<Floats>& membrane, const Settings& settings) {
  simt::Options options;
  options.order = static_cast<simt::Order>(settings.order);
  options.late_copies = settings.late_copies;
  options.seed = settings.seed;
  options.shadow = settings.shadow;
  simt::Device device(options);
  ConvCall call{};
  PackHeader headers[2]{};
  std::vector<Memory> packed;
  call.out_channels = bias.size();
  for (const auto& [x, weight, m, numbers, x_min, x_max] : groups) {
    const int i = call.input_count++;
    PackHeader& h = headers[i];
    h.geometry = checks::geometry(numbers, "geometry");
    h.out_channels = weight.shape(0);
    h.in_channels_per_group = weight.shape(1);
    h.x_min = x_min;
    h.x_max = x_max;
    h.weight_bytes = static_cast<int32_t>(weight.itemsize());
    Memory& w = packed.emplace_back(cuda::tensor_packed_bytes(h));
    cuda::pack_tensor_weights(h, weight.data(), w.mutable_data());
    call.input[i] = {device.reads("x", x),
                     static_cast<int32_t>(x.itemsize()),
                     x.shape(1),
                     x.shape(2),
                     x.shape(3),
                     device.reads("weights", w),
                     w.nbytes(),
                     device.reads("m", m),
                     h.geometry};
    const Size out = output_size(h.geometry, x.shape(1), x.shape(2));
    call.images = x.shape(0), call.out_h = out.h, call.out_w = out.w;
  }
  call.bias = device.reads("bias", bias);
  call.K = K;
  call.limit = limit;
  call.plane_bits = plane_bits;
  if (top) call.top = device.reads("top", *top);
  call.step = step;
  py::array_t<int64_t> counts(call.images);
  std::memset(counts.mutable_data(), 0, counts.nbytes());
  if (settings.count) call.counts = device.writes("counts", counts);
  const cuda::ByteMap y_map = map_around(call, settings.y_halo, word_bytes(K));
  Array y(step > 0             ? py::dtype::of<float>()
          : word_bytes(K) == 1 ? py::dtype::of<uint8_t>()
                               : py::dtype::of<int16_t>(),
          Ints{call.images, call.out_h, call.out_w, call.out_channels});
  if (settings.y_halo >= 0)
    y = Array(py::dtype::of<uint8_t>(),
              Ints{y_map.planes, y_map.images, y_map.rows, y_map.cols, y_map.channels});
  Memory y_memory(y.nbytes());
  call.y = device.writes("y", y_memory);
  if (residual) {
    call.residual = device.reads("residual", *residual);
    call.residual_bytes = static_cast<int32_t>(residual->itemsize());
    call.residual_scale = r;
  }
  Memory kept(membrane ? membrane->nbytes() : 0);
  if (membrane) {
    std::memcpy(kept.mutable_data(), membrane->data(), kept.nbytes());
    call.membrane = reinterpret_cast<float*>(device.writes("membrane", kept));
  }

  cuda::ByteMap map[2];
  cuda::TensorConvArgs args = cuda::tensor_conv_args(call, headers, map);
  Memory scratch(cuda::tensor_conv_scratch(call, headers));
  uint8_t* const maps = device.writes("map", scratch);
  int64_t first = 0;
  if (settings.y_halo >= 0) {
    args.y_at = cuda::place_in(y_map, first);
    args.y = y_memory.mutable_data() + first;
  }
  const cuda::ByteMap residual_map =
      map_around(call, settings.residual_halo, call.residual_bytes == 2 ? 2 : 1);
  Memory residual_memory(settings.residual_halo < 0 ? 0 : residual_map.bytes());
  if (residual && settings.residual_halo >= 0) {
    ConvInput in{};
    in.x = call.residual;
    in.x_bytes = call.residual_bytes;
    in.height = call.out_h, in.width = call.out_w, in.channels = call.out_channels;
    uint8_t* const to = device.writes("residual map", residual_memory);
    cuda::launch_fill_map(device, in, residual_map, to);
    args.residual_at = cuda::place_in(residual_map, first);
    args.residual = to + first;
  }
  cuda::ByteMap larger = map[0];
  larger.rows += 2 * settings.x_halo, larger.cols += 16 * settings.x_halo;
  larger.top += settings.x_halo, larger.left += 2 * settings.x_halo;
  Memory x_memory(settings.x_halo ? larger.bytes() : 0);
  const cuda::TensorKernel kernel = choose(args);
  if (args.pixels) {
    cuda::launch_fill_maps(device, call, map, maps, args);
    if (settings.x_halo) {
      uint8_t* const to = device.writes("larger map", x_memory);
      cuda::launch_fill_map(device, call.input[0], larger, to);
      args.group[0].x = to + cuda::read_from(larger, call.input[0].geometry, args.group[0]);
    }
    cuda::launch_tensor_conv(device, kernel, args);
  }
  std::memcpy(y.mutable_data(), y_memory.data(), y.nbytes());
  if (membrane) std::memcpy(Floats(*membrane).mutable_data(), kept.data(), kept.nbytes());
  const simt::Report& found = device.report();
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
