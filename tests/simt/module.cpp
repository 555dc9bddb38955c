// The tensor-core convolution in the emulator, for the tests: numpy arrays in and out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "emulator.h"

namespace fskernel::testing {
namespace {

namespace py = pybind11;
using Array = py::array;
using Floats = py::array_t<float, py::array::c_style>;
using Ints = std::vector<int64_t>;

Geometry geometry_of(const Ints& v) {
  const auto at = [&](int i) { return static_cast<int32_t>(v.at(i)); };
  return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11)};
}

// Of its exact size, with a canary nobody would compute.
struct Memory {
  explicit Memory(int64_t bytes)
      : size(bytes),
        data(static_cast<uint8_t*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256))) {
    std::memset(data.get(), 0xcd, bytes);
  }
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  int64_t size;
  std::unique_ptr<uint8_t, Free> data;
};

using Group = std::tuple<Array, Array, Floats, Ints, int, int>;  // x, weight, m, geometry, range

py::tuple conv(const std::vector<Group>& groups, const Floats& bias,
               const std::optional<Array>& residual, float r, int K, int limit, int plane_bits,
               const std::string& kernel, int order, bool late_copies, uint64_t seed, bool count,
               int multiprocessors) {
  Emulator device;
  device.options.order = static_cast<simt::Order>(order);
  device.options.late_copies = late_copies;
  device.options.seed = seed;
  device.count = multiprocessors;
  const auto reads = [&](const char* name, const Array& a) {
    device.buffers.push_back({name, a.data(), a.nbytes(), false});
    return a.data();
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
    h.lanes = static_cast<int32_t>(weight.itemsize());
    packed.emplace_back(cuda::tensor_packed_bytes(h));
    cuda::pack_tensor_weights(h, weight.data(), packed.back().data.get());
    device.buffers.push_back({"weights", packed.back().data.get(), packed.back().size, false});
    const Geometry& g = h.geometry;
    call.input[i] = {reads("x", x),
                     static_cast<int32_t>(x.itemsize()),
                     x.shape(1),
                     x.shape(2),
                     x.shape(3),
                     packed.back().data.get(),
                     packed.back().size,
                     static_cast<const float*>(reads("m", m)),
                     g};
    call.images = x.shape(0);
    call.out_h =
        (x.shape(1) + g.pad_top + g.pad_bottom - g.dilation_h * (g.kernel_h - 1) - 1) / g.stride_h +
        1;
    call.out_w =
        (x.shape(2) + g.pad_left + g.pad_right - g.dilation_w * (g.kernel_w - 1) - 1) / g.stride_w +
        1;
  }
  Array y(K >= 1 && K <= 8 ? py::dtype::of<uint8_t>() : py::dtype::of<int16_t>(),
          Ints{call.images, call.out_h, call.out_w, call.out_channels});
  std::memset(y.mutable_data(), 0xcd, y.nbytes());
  py::array_t<int64_t> counts(call.images);
  std::memset(counts.mutable_data(), 0, counts.nbytes());
  call.bias = static_cast<const float*>(reads("bias", bias));
  if (residual) {
    call.residual = reads("residual", *residual);
    call.residual_bytes = static_cast<int32_t>(residual->itemsize());
    call.residual_scale = r;
  }
  call.K = K;
  call.limit = limit;
  call.plane_bits = plane_bits;
  call.y = y.mutable_data();
  device.buffers.push_back({"y", y.data(), y.nbytes(), true});
  if (count) {
    call.counts = counts.mutable_data();
    device.buffers.push_back({"counts", counts.data(), counts.nbytes(), true});
  }
  Memory scratch(cuda::tensor_conv_scratch(call, headers));
  device.buffers.push_back({"map", scratch.data.get(), scratch.size, true});
  const char* name = "";
  cuda::run_tensor_conv(device, call, headers, scratch.data.get(), kernel, name);
  const simt::Report& r_ = device.report;
  py::dict report;
  report["blocks"] = r_.blocks;
  report["barriers"] = r_.barriers;
  report["mma"] = r_.mma;
  report["load_matrix"] = r_.load_matrix;
  report["copies"] = r_.copies;
  report["bank_conflicts"] = r_.bank_conflicts;
  report["load_sectors"] = r_.load_sectors;
  report["load_bytes"] = r_.load_bytes;
  report["store_sectors"] = r_.store_sectors;
  report["store_bytes"] = r_.store_bytes;
  return py::make_tuple(y, counts, name, report);
}

py::list kernels() {
  py::list all;
  for (const cuda::TensorKernel& k : cuda::tensor_kernels()) {
    const cuda::TensorTile& t = k.tile;
    py::dict d;
    d["name"] = t.name;
    d["pixels"] = t.pixels;
    d["channels"] = t.channels;
    d["threads"] = t.threads;
    d["shared_bytes"] = t.shared_bytes;
    d["wide"] = t.wide;
    d["groups"] = t.groups;
    d["plane_bits"] = t.plane_bits;
    all.append(d);
  }
  return all;
}

}  // namespace
}  // namespace fskernel::testing

PYBIND11_MODULE(simt_kernels, m) {
  using namespace fskernel::testing;
  namespace py = pybind11;
  py::register_exception<fskernel::simt::Fault>(m, "Fault");
  m.def("conv", &conv, py::arg("groups"), py::arg("bias"), py::arg("residual"), py::arg("r"),
        py::arg("K"), py::arg("limit"), py::arg("plane_bits"), py::arg("kernel") = "",
        py::arg("order") = 0, py::arg("late_copies") = true, py::arg("seed") = 1,
        py::arg("count") = true, py::arg("multiprocessors") = 132);
  m.def("kernels", &kernels);
}
