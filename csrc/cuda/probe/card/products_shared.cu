// A from shared memory.
#include "products.cuh"

namespace fskernel::probe {

Bytes ask_card(const Product& q) {
  return q.a_in_registers ? product_from_registers(q) : run_product<false>(q);
}

}  // namespace fskernel::probe
