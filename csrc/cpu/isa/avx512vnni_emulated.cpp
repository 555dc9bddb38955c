// The AVX512-VNNI kernel over 16 lanes of plain C++: same tile, same packing, same loops. It proves
// the wide kernel's logic on machines without AVX-512; it is slow and never chosen automatically.
#include <cstdint>

#include "../tasks.h"
#define FS_NO_UNROLL
#include "vec_plain.h"
//
#include "../tile/kernels_of.h"

namespace fskernel {
namespace {
using Emulated = Plain<16, true>;
constexpr int kPixels = 7, kVectors = 4;

bool supported() { return true; }
}  // namespace

extern const Kernels kernels_avx512vnni_emulated;
constinit const Kernels kernels_avx512vnni_emulated =
    kernels_of<Emulated, kPixels, kVectors>("avx512vnni_emulated", &supported, false);
}  // namespace fskernel
