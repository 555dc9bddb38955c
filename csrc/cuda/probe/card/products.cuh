// One product of a warpgroup, of any shape and signs: registers and shared memory in, registers
// out.
#pragma once

#include "card.h"
#include "hopper.h"

namespace fskernel::probe {

struct ProductArgs {
  uint64_t a, b;  // descriptors; addresses count from the begin of shared memory
  const uint8_t* shared;
  const uint32_t* a_registers;  // [128][4]
  int32_t* sums;                // [128][n/2], in and out
  int32_t bytes;
  int32_t keep;
};

template <gpu::Types types, int n, bool a_in_registers>
FS_KERNEL(128, 1)
product(const ProductArgs args) {
  const gpu::Shared shared = gpu::dynamic_shared_1024();
  const int thread = gpu::thread();
  for (int i = 4 * thread; i < args.bytes; i += 512)
    gpu::store_shared<uint32_t>(
        shared + i, gpu::load_readonly(reinterpret_cast<const uint32_t*>(args.shared + i)));
  gpu::fence_async();
  gpu::sync_threads();
  gpu::Sum sum[n / 2];
  int32_t* mine = args.sums + thread * (n / 2);
  FS_UNROLL
  for (int i = 0; i < n / 2; ++i) sum[i] = gpu::load_global<int32_t>(mine + i);
  uint32_t a[4];
  FS_UNROLL
  for (int i = 0; i < 4; ++i)
    a[i] = a_in_registers ? gpu::load_readonly(args.a_registers + thread * 4 + i) : 0;
  const uint64_t begin = shared >> 4;
  gpu::pin(sum);
  gpu::products_begin();
  if constexpr (a_in_registers)
    gpu::Multiply<types, n>::registers(sum, a, args.b + begin, args.keep);
  else
    gpu::Multiply<types, n>::shared(sum, args.a + begin, args.b + begin, args.keep);
  gpu::products_commit();
  gpu::products_wait<0>();
  gpu::pin(sum);
  FS_UNROLL
  for (int i = 0; i < n / 2; ++i) gpu::store_global<int32_t>(mine + i, gpu::final_sum(sum[i]));
}

template <int n, bool a_in_registers>
void (*product_kernel(int signs))(ProductArgs) {
  switch (signs) {
    case kU8S8:
      return &product<gpu::Types::kU8S8, n, a_in_registers>;
    case kS8S8:
      return &product<gpu::Types::kS8S8, n, a_in_registers>;
    case kS8U8:
      return &product<gpu::Types::kS8U8, n, a_in_registers>;
    default:
      return &product<gpu::Types::kU8U8, n, a_in_registers>;
  }
}
template <bool a_in_registers>
void (*product_kernel(int signs, int n))(ProductArgs) {
  switch (n) {
    case 8:
      return product_kernel<8, a_in_registers>(signs);
    case 64:
      return product_kernel<64, a_in_registers>(signs);
    case 128:
      return product_kernel<128, a_in_registers>(signs);
    case 208:
      return product_kernel<208, a_in_registers>(signs);
    case 224:
      return product_kernel<224, a_in_registers>(signs);
    case 240:
      return product_kernel<240, a_in_registers>(signs);
    case 256:
      return product_kernel<256, a_in_registers>(signs);
    default:
      throw NoAnswer("no kernel was built for n = " + std::to_string(n));
  }
}

Bytes product_from_registers(const Product&);

template <bool a_in_registers>
Bytes run_product(const Product& q) {
  const OnCard shared(q.shared), sums(q.sums);
  const OnCard a(a_in_registers ? q.a_registers : std::vector<uint32_t>(4));
  const int bytes = static_cast<int>(q.shared.size());
  const ProductArgs args{q.a,   q.b,   shared.as<uint8_t>(), a.as<uint32_t>(), sums.as<int32_t>(),
                         bytes, q.keep};
  launch(product_kernel<a_in_registers>(q.signs, q.n), 1, 128, bytes + 1024, 1, args);
  return sums.back();
}

}  // namespace fskernel::probe
