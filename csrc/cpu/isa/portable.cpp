// Any processor: plain C++, 4 lanes, so that a compiler may map them to its 128-bit vectors.
#include <cstdint>

#include "../tasks.h"
#define FS_NO_UNROLL
#include "vec_plain.h"
//
#include "../tile/kernels_of.h"

namespace fskernel {
namespace {
using Portable = Plain<4, true>;
constexpr int kPixels = 4, kVectors = 2;

bool supported() { return true; }
}  // namespace

extern const Kernels kernels_portable;
constinit const Kernels kernels_portable =
    kernels_of<Portable, kPixels, kVectors>("portable", &supported, true);
}  // namespace fskernel
