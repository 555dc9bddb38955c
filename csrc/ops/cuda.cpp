// The operators for torch's CUDA key, under the schemas of schemas.cpp: packing, convolutions and
// byte maps, and those of on_device.h. Empty without CUDA kernels.
#if FSKERNEL_HAVE_CUDA
#include "cuda.h"

#include <map>
#include <mutex>
#include <tuple>

#include "../cuda/pack.h"
#include "checked_conv.h"
#include "on_device.h"
#include "on_gpu.h"

namespace fskernel {
namespace {

// Headers of packed weights by their address on a GPU: the host reads what a kernel is told from
// here, without waiting for the GPU. What is not here, weights that were packed elsewhere or
// copied, is read back once. An address may have been given to other weights meanwhile: a header
// that does not fit the call, declared range included, is read back again, and a kernel compares
// the seal that it is told with the one that lies in front of the weights.
class Headers {
 public:
  void note(const void* packed, const PackHeader& header) {
    const std::lock_guard<std::mutex> lock(mutex_);
    known_[packed] = header;
  }

  PackHeader of(const ConvInput& in, int64_t channels, const std::string& name, const Gpu& gpu) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = known_.find(in.packed);
      if (found != known_.end() && fits(found->second, in, channels, name)) return found->second;
    }
    if (cuda::capturing(gpu.where))
      throw std::runtime_error(name +
                               " was not packed by this process: run the layer once before its "
                               "stream is captured");
    PackHeader header{};
    if (in.packed_bytes >= static_cast<int64_t>(sizeof header))
      if (const int error = cuda::read_back(in.packed, &header, sizeof header, gpu.where))
        throw std::runtime_error(name + ": " + cuda::error_text(error));
    cuda::check_header(header, in, channels, name);
    note(in.packed, header);
    return header;
  }

 private:
  static bool fits(const PackHeader& header, const ConvInput& in, int64_t channels,
                   const std::string& name) {
    try {
      cuda::check_header(header, in, channels, name);
      return true;
    } catch (const std::invalid_argument&) {
      return false;
    }
  }

  std::mutex mutex_;
  std::map<const void*, PackHeader> known_;
};

Headers& headers() {
  static Headers all;
  return all;
}

// What CheckedConv asks about packed weights, and the headers that came out.
struct KnownHeaders {
  const Gpu& gpu;
  PackHeader header[2]{};
  int groups = 0;

  void operator()(const ConvInput& in, int64_t channels, const std::string& name) {
    header[groups++] = headers().of(in, channels, name, gpu);
  }
};

// The convolution kernel that is asked for by name, for tests and measurements; empty: the fastest.
std::mutex forced_mutex;
std::string forced_name;

std::string forced_kernel() {
  const std::lock_guard<std::mutex> lock(forced_mutex);
  return forced_name;
}

Tensor pack_op(const Tensor& weight, Ints geometry, int64_t x_min, int64_t x_max) {
  const Gpu gpu(weight, "pack");
  const Geometry g = checks::geometry(geometry, "geometry");
  const Tensor w = checks::packable(weight, g, x_min, x_max, gpu.place);
  const PackHeader header =
      cuda::pack_header(g, w.size(0), w.size(1), checks::bytes_of(w), static_cast<int32_t>(x_min),
                        static_cast<int32_t>(x_max));
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  const Tensor on_host = torch::stable::to(w, cpu);
  const Tensor packed = new_tensor(on_host, {cuda::packed_bytes(header)}, ScalarType::Byte);
  cuda::pack(header, on_host.const_data_ptr(), static_cast<uint8_t*>(packed.mutable_data_ptr()));
  const Tensor there = torch::stable::to(packed, weight.device());
  headers().note(there.const_data_ptr(), header);
  return there;
}

// A checked convolution, of either neuron; notes what ran behind `op`.
void run(const Gpu& gpu, const CheckedConv& c, const PackHeader (&header)[2], const Tensor& x,
         const std::string& op) {
  const char* name = "";
  const std::string kernel = forced_kernel();
  // Given back to torch's allocator when this returns, which gives it to later work of this stream.
  Tensor scratch =
      new_tensor(c.y, {cuda::conv_scratch_bytes(c.call, header, kernel)}, ScalarType::Byte);
  const int error = cuda::launch_conv(
      c.call, header, static_cast<uint8_t*>(scratch.mutable_data_ptr()), kernel, gpu.where, name);
  gpu.launched(op + name, x, error);
}

std::tuple<Tensor, Tensor> conv_op(
    const Tensor& x, const Tensor& packed, const Tensor& m, Ints geometry, const Tensor& bias,
    std::optional<Tensor> x2, std::optional<Tensor> packed2, std::optional<Tensor> m2,
    Ints geometry2, std::optional<Tensor> residual, std::optional<Tensor> r, int64_t K,
    int64_t limit, int64_t plane_bits, std::optional<Tensor> top, std::optional<double> step,
    bool count, std::optional<Tensor> table, std::optional<Tensor> fitted, int64_t zero) {
  const Gpu gpu(x, "conv");
  KnownHeaders known{gpu};
  const CheckedConv c(
      gpu.place,
      {x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r, K, limit, plane_bits},
      known, {top, step, count, table, fitted, zero});
  run(gpu, c, known.header, x, "conv/");
  return {c.y, c.counts};
}

std::tuple<Tensor, Tensor> conv_maps_op(
    const Tensor& x, Ints x_map, const Tensor& packed, const Tensor& m, Ints geometry,
    const Tensor& bias, std::optional<Tensor> x2, Ints x2_map, std::optional<Tensor> packed2,
    std::optional<Tensor> m2, Ints geometry2, std::optional<Tensor> residual, Ints residual_map,
    std::optional<Tensor> r, int64_t K, int64_t limit, int64_t plane_bits, Ints halo,
    std::optional<Tensor> top, std::optional<double> step, bool count, std::optional<Tensor> table,
    std::optional<Tensor> fitted, int64_t zero) {
  const Gpu gpu(x, "conv_maps");
  KnownHeaders known{gpu};
  const auto given = [](const std::optional<Tensor>& t, const Ints& map) {
    return t.has_value() ? std::optional<Given>({*t, map}) : std::nullopt;
  };
  const CheckedConv c(gpu.place,
                      {Given(x, x_map), packed, m, geometry, bias, given(x2, x2_map), packed2, m2,
                       geometry2, given(residual, residual_map), r, K, limit, plane_bits},
                      known, {top, step, count, table, fitted, zero}, kept_as(halo, "halo"));
  run(gpu, c, known.header, x, "conv/");
  return {c.y, c.counts};
}

std::tuple<Tensor, Tensor> integrate_and_fire_op(
    const Tensor& x, const Tensor& packed, const Tensor& m, Ints geometry, const Tensor& bias,
    std::optional<Tensor> x2, std::optional<Tensor> packed2, std::optional<Tensor> m2,
    Ints geometry2, std::optional<Tensor> residual, std::optional<Tensor> r, Tensor membrane) {
  const Gpu gpu(x, "integrate_and_fire");
  KnownHeaders known{gpu};
  CheckedConv c(gpu.place, {x, packed, m, geometry, bias, x2, packed2, m2, geometry2, residual, r},
                known, {});
  FS_CHECK(gpu.place.holds(membrane) && membrane.scalar_type() == ScalarType::Float &&
               membrane.is_contiguous() && checks::shape(membrane) == checks::shape(c.y),
           "membrane is ", checks::type_name(membrane.scalar_type()), " of shape ",
           checks::shape(membrane), ": expected contiguous float32 ", checks::shape(c.y), " on ",
           gpu.place.name());
  c.call.membrane = static_cast<float*>(membrane.mutable_data_ptr());
  run(gpu, c, known.header, x, "integrate_and_fire/");
  return {c.y, c.counts};
}

Tensor encode_map_op(const Tensor& x, double inv_step, int64_t limit, Ints halo) {
  checks::in_range(limit, 1, 32767, "limit", "of graded values");
  FS_CHECK(!halo.empty(), "halo has no numbers: expected the 6 of a halo");
  const Kept kept = kept_as(halo, "halo");
  const Gpu gpu(x, "encode");
  checks::encodable(x, inv_step, gpu.place);
  const cuda::ByteMap map =
      cuda::kept_map(kept, x.size(0), x.size(2), x.size(3), x.size(1), word_bytes(0));
  Tensor y = new_tensor(x, {map.bytes()}, ScalarType::Byte);
  gpu.encode("encode_map", x, checks::as_encoder(inv_step, 0.0, 0, limit), y, kept);
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(fskernel, CUDA, m) {
  m.impl("pack", OPERATOR(pack_op));
  m.impl("conv", OPERATOR(conv_op));
  m.impl("conv_maps", OPERATOR(conv_maps_op));
  m.impl("integrate_and_fire", OPERATOR(integrate_and_fire_op));
  m.impl("encode_map", OPERATOR(encode_map_op));
  implement_on<Gpu>(m);
}

}  // namespace

void force_cuda_kernel(const std::string& name) {
  const std::lock_guard<std::mutex> lock(forced_mutex);
  forced_name = name;
}

void run_cuda_probe(int64_t x, int64_t w, int64_t bytes, int64_t row, int64_t sums,
                    int64_t fragments_x4, int64_t fragments_x2, int device) {
  const torch::stable::accelerator::DeviceGuard guard(device);
  const int error = cuda::launch_probe(
      reinterpret_cast<const uint32_t*>(x), reinterpret_cast<const uint32_t*>(w),
      reinterpret_cast<const uint8_t*>(bytes), reinterpret_cast<const uint32_t*>(row),
      reinterpret_cast<int32_t*>(sums), reinterpret_cast<uint32_t*>(fragments_x4),
      reinterpret_cast<uint32_t*>(fragments_x2), {device, Streams::get().current(device)});
  if (error) throw std::runtime_error(std::string("cuda_probe: ") + cuda::error_text(error));
}

std::map<std::string, int64_t (*)(int)> cuda_streams() {
  std::map<std::string, int64_t (*)(int)> ways;
  if (Streams::get().native)
    ways["native"] = [](int device) {
      return reinterpret_cast<int64_t>(Streams::get().by_native(device));
    };
  if (Streams::get().shim)
    ways["shim"] = [](int device) {
      return reinterpret_cast<int64_t>(Streams::get().by_shim(device));
    };
  return ways;
}

}  // namespace fskernel
#endif
