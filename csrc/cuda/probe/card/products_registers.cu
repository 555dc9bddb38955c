// A from registers.
#include "products.cuh"

namespace fskernel::probe {

Bytes product_from_registers(const Product& q) { return run_product<true>(q); }

}  // namespace fskernel::probe
