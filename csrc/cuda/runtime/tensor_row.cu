// One row of configs.inc; setup.py compiles this once a row, with FSKERNEL_ROW = 0, 1, ...
#include "../tensor_make.h"

namespace fskernel::cuda {

template TensorKernel tensor_kernel<FSKERNEL_ROW>();

}  // namespace fskernel::cuda
