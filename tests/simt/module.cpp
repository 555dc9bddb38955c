// The tensor-core convolution in the emulator, and single instructions of it.
#include "cuda/tensor_choice.h"
#include "cuda/tensor_make.h"
#include "python_conv.h"

namespace fskernel::testing {
namespace {

py::tuple conv(const std::vector<Group>& groups, const Floats& bias,
               const std::optional<Array>& residual, float r, int K, int limit, int plane_bits,
               const std::optional<Floats>& top, double step, const std::optional<Floats>& membrane,
               const Settings& settings, const std::string& kernel, int multiprocessors) {
  const auto choose = [&](const cuda::TensorConvArgs& args) {
    return cuda::choose_tensor_kernel(args, plane_bits, multiprocessors, kernel);
  };
  return run_conv(choose, groups, bias, residual, r, K, limit, plane_bits, top, step, membrane,
                  settings);
}

// One warp's product: fragments [32][4], [32][2] and sums [32][4] as its lanes hold them.
using Words = py::array_t<uint32_t, py::array::c_style>;
using Sums = py::array_t<int32_t, py::array::c_style>;
Sums mma(const std::string& product, const Words& a, const Words& b, const Sums& c) {
  Sums out({32, 4});
  const uint32_t *pa = a.data(), *pb = b.data();
  const int32_t* pc = c.data();
  int32_t* to = out.mutable_data();
  simt::launch({{}, 32}, {}, {}, [=] {
    const int lane = gpu::thread();
    uint32_t x[4];
    gpu::Sum sum[4];
    for (int i = 0; i < 4; ++i) x[i] = pa[lane * 4 + i];
    for (int i = 0; i < 4; ++i) sum[i] = gpu::plus({}, pc[lane * 4 + i]);
    const uint32_t w0 = pb[lane * 2], w1 = pb[lane * 2 + 1];
    if (product == "s8s8") gpu::mma_s8s8(sum, x, w0, w1);
    if (product == "s8u8") gpu::mma_s8u8(sum, x, w0, w1);
    if (product == "u8s8") gpu::mma_u8s8(sum, x, w0, w1);
    if (product == "u8u8") gpu::mma_u8u8(sum, x, w0, w1);
    for (int i = 0; i < 4; ++i) to[lane * 4 + i] = sum[i].wrapped;
  });
  return out;
}

// One warp's matrix load out of `bytes`: row addresses [32] in, fragments [32][matrices] out.
Words load_matrix(const py::array_t<uint8_t, py::array::c_style>& bytes, const Words& rows,
                  int matrices) {
  Words out({32, matrices});
  const uint8_t* from = bytes.data();
  const uint32_t* row = rows.data();
  uint32_t* to = out.mutable_data();
  const int n = static_cast<int>(bytes.size());
  simt::launch({{}, 32, n}, {}, {}, [=] {
    const gpu::Shared shared = gpu::dynamic_shared();
    const int lane = gpu::thread();
    for (int i = lane; i < n; i += 32) gpu::store_shared<uint8_t>(shared + i, from[i]);
    gpu::sync_threads();
    uint32_t x4[4], x2[2];
    if (matrices == 4)
      gpu::load_matrix_x4(x4, shared + row[lane]);
    else
      gpu::load_matrix_x2(x2, shared + row[lane]);
    for (int i = 0; i < matrices; ++i) to[lane * matrices + i] = matrices == 4 ? x4[i] : x2[i];
  });
  return out;
}

// The checks of a layer's sizes, without its memory: one group, a square kernel, padded by half of
// it.
void check_sizes(int64_t images, int64_t size, int64_t channels, int64_t out, int32_t kernel) {
  ConvCall call{};
  PackHeader headers[2]{};
  Geometry& g = headers[0].geometry;
  g = {kernel, kernel, 1, 1, kernel / 2, kernel / 2, kernel / 2, kernel / 2, 1, 1, 1, 0};
  headers[0].x_max = 255;
  headers[0].weight_bytes = 1;
  call.input[call.input_count++] = {nullptr, 1, size, size, channels, nullptr, 0, nullptr, g};
  call.images = images, call.out_h = call.out_w = size, call.out_channels = out;
  call.K = 8;
  cuda::ByteMap map[2];
  cuda::tensor_conv_args(call, headers, map);
}

}  // namespace
}  // namespace fskernel::testing

PYBIND11_MODULE(simt_kernels, m) {
  using namespace fskernel::testing;
  bind_settings(m);
  m.def("conv", &conv);
  m.def("mma", &mma);
  m.def("load_matrix", &load_matrix);
  m.def("check_sizes", &check_sizes);
}
