#include <array>
#include <string>

#include "../cuda/pack.h"
#include "../cuda/tensor_layout.h"
#include "../ops/checked_conv.h"
#include "arrays.h"
#include "bindings.h"

namespace fskernel {

void bind_cuda_rules(py::module_& m) {
  m.def("cuda_pack_bytes",
        [](int64_t out, int64_t in, int weight_bytes, Ints ints, int x_min, int x_max) {
          return cuda::packed_bytes(
              cuda::pack_header(as_geometry(ints), out, in, weight_bytes, x_min, x_max));
        });
  m.def("cuda_on_tensor_cores",
        [](Ints ints) { return cuda::packed_parts(as_geometry(ints)) == cuda::kTensorWeights; });
  m.def("cuda_stored_channels", [](Ints ints, int64_t channels) {
    return cuda::stored_channels(as_geometry(ints), channels);
  });
  m.def("cuda_planes", &cuda::planes_of, py::arg("x_min"), py::arg("x_max"));
  // Bytes of a map of codes [N, H, W, C] of so many bytes each, kept with this halo.
  m.def("cuda_kept_bytes", [](Ints halo, std::array<int64_t, 4> size, int bytes) {
    return cuda::kept_map(kept_as(halo, "halo"), size[0], size[1], size[2], size[3], bytes).bytes();
  });
  // Bytes of the map that a layer reads, made of dense codes [N, H, W, C] in [x_min, x_max].
  m.def("cuda_map_bytes", [](Ints ints, std::array<int64_t, 4> size, int x_min, int x_max) {
    return cuda::byte_map(as_geometry(ints), size[0], size[1], size[2], size[3], x_min, x_max)
        .bytes();
  });
  // Whether a layer reads dense codes of so many bytes as they are.
  m.def("cuda_reads_dense", [](Ints ints, int64_t channels, int x_min, int x_max, int bytes) {
    const cuda::ByteMap map = cuda::byte_map(as_geometry(ints), 1, 1, 1, channels, x_min, x_max);
    return cuda::is_byte_map(map, 1, 1, channels, bytes, 16);
  });
  // K-steps of 64 bytes in one pass over the synapses, and the number of passes.
  m.def("cuda_steps", [](Ints ints, int64_t channels) {
    const Geometry g = as_geometry(ints);
    return cuda::step_order(g, cuda::stored_channels(g, channels), 0).steps();
  });
  m.def("cuda_passes", [](int x_min, int x_max, int weight_bytes, int plane_bits) {
    cuda::ByteMap map{};
    map.planes = cuda::planes_of(x_min, x_max), map.is_signed = x_min < 0;
    cuda::ConvPass pass[cuda::kMaxPasses];
    checks::plane_bits(plane_bits);
    checks::in_range(weight_bytes, 1, 2, "weight_bytes", "of one weight");
    return cuda::horner_passes(map, x_max, weight_bytes, plane_bits ? plane_bits : 8, pass);
  });
  // Row of `cuda_kernels` that runs a layer of so many output pixels and channels, -1: none.
  m.def(
      "cuda_choose_tile",
      [](int64_t pixels, int64_t channels, int groups, bool narrow, int multiprocessors,
         int plane_bits, bool rate, const std::string& name) {
        checks::in_range(multiprocessors, 1, 1 << 20, "multiprocessors", "of a GPU");
        return cuda::choose_tile({pixels, channels, groups, plane_bits, narrow, rate},
                                 multiprocessors, name);
      },
      py::arg("pixels"), py::arg("channels"), py::arg("groups"), py::arg("narrow"),
      py::arg("multiprocessors"), py::arg("plane_bits") = 0, py::arg("rate") = false,
      py::arg("name") = "");
  py::list kernels;
  for (const cuda::TensorTile& tile : cuda::kTensorTiles) kernels.append(tile.name);
  kernels.append("direct");
  m.attr("cuda_kernels") = py::tuple(kernels);
}

}  // namespace fskernel
