// What the probe can ask, as plain data, and who may answer: a card, or the model on the host.
// Every answer is bytes, as they lay in registers or memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace fskernel::probe {

using Bytes = std::vector<uint8_t>;

template <class T>
Bytes bytes_of(const std::vector<T>& v) {
  Bytes b(v.size() * sizeof(T));
  if (!b.empty()) std::memcpy(b.data(), v.data(), b.size());
  return b;
}
template <class T>
std::vector<T> as(const Bytes& b) {
  std::vector<T> v(b.size() / sizeof(T));
  if (!v.empty()) std::memcpy(v.data(), b.data(), v.size() * sizeof(T));
  return v;
}

// Why a question has no answer. `poisoned`: the process can ask nothing more.
struct NoAnswer : std::runtime_error {
  explicit NoAnswer(const std::string& why, bool poisoned = false)
      : std::runtime_error(why), poisoned(poisoned) {}
  bool poisoned;
};

// Signs of A and B.
enum Signs { kU8S8, kS8S8, kS8U8, kU8U8, kSigns };
constexpr const char* kSignNames[kSigns] = {"u8.s8", "s8.s8", "s8.u8", "u8.u8"};
constexpr bool a_signed(int signs) { return signs == kS8S8 || signs == kS8U8; }
constexpr bool b_signed(int signs) { return signs == kS8S8 || signs == kU8S8; }

// Each case lists its fields once, for golden files: visit("name", field)...

// Of one warp: mma.sync m16n8k32 in the order of Signs, ldmatrix x4 and x2.
// Answer: sums [4][32][4], fragments [32][4] and [32][2], all int32.
struct Fragments {
  static constexpr const char* kName = "fragments";
  std::vector<uint32_t> x, w;  // [32][4], [32][2]
  Bytes memory;                // 1024
  std::vector<uint32_t> row;   // [32] offsets, multiples of 16
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("x", x), visit("w", w), visit("memory", memory), visit("row", row);
  }
};

// Transposing moves of four 8 x 8 matrices of 16-bit elements. A store's answer is the 1024 bytes,
// 0xa5 where nothing was stored; a load's the registers [32][4].
struct Transposed {
  static constexpr const char* kName = "transposed";
  bool store;
  std::vector<uint32_t> registers;  // [32][4]; of a store
  Bytes memory;                     // 1024; of a load
  std::vector<uint32_t> row;        // [32]
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("store", store), visit("registers", registers), visit("memory", memory),
        visit("row", row);
  }
};

// One product m64nNk32 of a warpgroup. Answer: its registers afterwards, int32 [128][n/2].
struct Product {
  static constexpr const char* kName = "product";
  int signs, n;
  bool a_in_registers;
  bool keep;                          // else the sums begin at 0
  uint64_t a, b;                      // descriptors; addresses count from the begin of `shared`
  Bytes shared;                       // lies at a multiple of 1024
  std::vector<uint32_t> a_registers;  // [128][4]
  std::vector<int32_t> sums;          // [128][n/2] before
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("signs", signs), visit("n", n), visit("a_in_registers", a_in_registers),
        visit("keep", keep), visit("a", a), visit("b", b), visit("shared", shared),
        visit("a_registers", a_registers), visit("sums", sums);
  }
};

// [n][h][w][c] bytes in device memory.
struct Tensor {
  int n, h, w, c;
  Bytes bytes;
  int64_t size() const { return int64_t{n} * h * w * c; }
};

// One im2col copy. Answer: the box as it lies in shared memory; with two blocks both of them, one
// behind the other (each block fetches half of the pixels for both).
struct Im2col {
  static constexpr const char* kName = "im2col";
  Tensor x;
  int low_w, low_h, high_w, high_h;  // corners of the bounding box, as the map is told
  int stride_w, stride_h;
  int box_pixels, box_bytes;
  int swizzle;             // 0, 32, 64 or 128
  bool patched = true;     // small tensors' maps corrected
  int c, w, h, n;          // where the first pixel lies, seen by tap (0, 0)
  int offset_w, offset_h;  // the tap
  int blocks = 1;
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("x_n", x.n), visit("x_h", x.h), visit("x_w", x.w), visit("x_c", x.c), visit("x", x.bytes),
        visit("low_w", low_w), visit("low_h", low_h), visit("high_w", high_w),
        visit("high_h", high_h), visit("stride_w", stride_w), visit("stride_h", stride_h),
        visit("box_pixels", box_pixels), visit("box_bytes", box_bytes), visit("swizzle", swizzle),
        visit("patched", patched), visit("c", c), visit("w", w), visit("h", h), visit("n", n),
        visit("offset_w", offset_w), visit("offset_h", offset_h), visit("blocks", blocks);
  }
};

// One tiled copy of a box [1][box_h][box_w][box_bytes]; coordinates may be negative.
struct Box {
  static constexpr const char* kName = "box";
  Tensor x;
  int box_w, box_h, box_bytes;
  int swizzle;
  int c, w, h, n;
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("x_n", x.n), visit("x_h", x.h), visit("x_w", x.w), visit("x_c", x.c), visit("x", x.bytes),
        visit("box_w", box_w), visit("box_h", box_h), visit("box_bytes", box_bytes),
        visit("swizzle", swizzle), visit("c", c), visit("w", w), visit("h", h), visit("n", n);
  }
};

// A tiled store of shared memory into a matrix of bytes. Answer: the matrix and what lies around
// it.
struct StoreBox {
  static constexpr const char* kName = "store_box";
  int rows, columns;  // of the matrix
  int guard;          // bytes in front of it and behind, 0xa5 as the matrix itself
  int box_rows, box_columns;
  int swizzle;
  int row, column;
  Bytes shared;
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("rows", rows), visit("columns", columns), visit("guard", guard),
        visit("box_rows", box_rows), visit("box_columns", box_columns), visit("swizzle", swizzle),
        visit("row", row), visit("column", column), visit("shared", shared);
  }
};

// A plain copy. Two blocks: block i fetches half i for both. Answer: all blocks' shared memory.
struct Bulk {
  static constexpr const char* kName = "bulk";
  Bytes from;
  int blocks;
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("from", from), visit("blocks", blocks);
  }
};

// Two blocks of a cluster put half i into their shared memory and read the other's. Answer: what
// block 0 read, what block 1 read.
struct Remote {
  static constexpr const char* kName = "remote";
  Bytes from;
  template <class Visit>
  void fields(Visit&& visit) const {
    visit("from", from);
  }
};

enum class Work {
  kProducts,      // wgmma s8.u8 of shape m64nNk32; units: multiply-accumulates
  kHalfProducts,  // wgmma f16, m64nNk16, float sums
  kWarpProducts,  // mma.sync m16n8k32
  kL2Loads,       // 16-byte loads of a buffer that fits the L2 cache; bytes
  kL2Copies,      // the same by plain bulk copies
  kL2Multicast,   // the same, each byte fetched once for two blocks; bytes that arrive
  kSharedLoads,   // conflict-free 16-byte loads
  kMemoryCopy,    // device memory to device memory; bytes read and bytes written
};
struct Rate {
  Work work;
  int n = 0;
  double seconds = 0.15;  // how long to measure
};
struct Speed {
  double units;    // of all multiprocessors
  double seconds;  // by events
  double clocks;   // mean of all multiprocessors, 0 where not asked
  double hertz;    // clocks over the global timer
  int sms;
};

struct Facts {
  std::string name;
  int arch = 0;  // 90
  int driver = 0, runtime = 0, sms = 0, clock_khz = 0, memory_clock_khz = 0, l2_bytes = 0;
  int64_t memory_bytes = 0;
};

class Machine {
 public:
  virtual ~Machine() = default;
  virtual Facts facts() = 0;
  virtual Bytes ask(const Fragments&) = 0;
  virtual Bytes ask(const Transposed&) = 0;
  virtual Bytes ask(const Product&) = 0;
  virtual Bytes ask(const Im2col&) = 0;
  virtual Bytes ask(const Box&) = 0;
  virtual Bytes ask(const StoreBox&) = 0;
  virtual Bytes ask(const Bulk&) = 0;
  virtual Bytes ask(const Remote&) = 0;
  virtual Speed ask(const Rate&) = 0;
};

// Throws NoAnswer where this program was built without CUDA or there is no card.
std::unique_ptr<Machine> card();

}  // namespace fskernel::probe
