// A card for tests of the probe: the host model, with the one fault that FSKERNEL_FAKE_CARD names.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "cuda/probe/model_machine.h"

namespace fskernel::probe {
namespace {

class FakeCard : public ModelMachine {
 public:
  explicit FakeCard(std::string fault) : fault_(std::move(fault)) {}

  Facts facts() override {
    Facts f{.name = is("not a H100") ? "NVIDIA A100"
                    : is("H200")     ? "NVIDIA H200"
                                     : "NVIDIA H100",
            .arch = is("sm_80") ? 80 : 90};
    f.driver = is("driver 13.2") ? 13020 : 13000;
    f.sms = 132;
    f.clock_khz = 1980000;
    return f;
  }
  Bytes ask(const Fragments& q) override {
    Bytes a = ModelMachine::ask(q);
    if (is("mma: two sums exchanged")) std::swap_ranges(&a[0], &a[4], &a[4]);
    if (is("ldmatrix: two lanes exchanged"))
      std::swap_ranges(a.end() - 8, a.end() - 4, a.end() - 16);
    return a;
  }
  Bytes ask(const Transposed& q) override {
    if (is("dies")) raise(SIGSEGV);
    if (is("says nothing")) sleep(100);
    if (is("cannot")) throw NoAnswer("CUDA: out of memory");
    if (is("is poisoned")) throw NoAnswer("CUDA: an illegal memory access was encountered", true);
    Bytes a = ModelMachine::ask(q);
    if (is(q.store ? "stmatrix: not transposed" : "ldmatrix: not transposed")) {
      Bytes b(a);
      if (q.store)
        for (int i = 0; i < 4; ++i)
          for (int r = 0; r < 8; ++r)
            for (int c = 0; c < 8; ++c)
              std::copy_n(&a[q.row[8 * i + c] + 2 * r], 2, &b[q.row[8 * i + r] + 2 * c]);
      else
        for (int i = 0; i < 4; ++i)
          for (int lane = 0; lane < 32; ++lane)
            std::copy_n(&q.memory[q.row[8 * i + lane / 4] + 4 * (lane % 4)], 4,
                        &b[16 * lane + 4 * i]);
      return b;
    }
    return a;
  }
  Bytes ask(const Product& given) override {
    Product q = given;
    model::Operand b = model::decode(q.b);
    if (is("wgmma: signs exchanged"))
      q.signs = q.signs == kU8S8 ? kS8U8 : q.signs == kS8U8 ? kU8S8 : q.signs;
    if (is("wgmma: unsigned")) q.signs = kU8U8;
    if (is("wgmma: sums not kept")) q.keep = false;
    if (is("wgmma: A's halves exchanged"))
      for (size_t i = 0; i < q.a_registers.size(); i += 4)
        std::swap(q.a_registers[i], q.a_registers[i + 2]);
    if (is("swizzle: from the operand on") && b.width && !b.base)
      b.base = static_cast<int>(b.start >> 7 & 7);
    if (is("swizzle: base without effect")) b.base = 0;
    if (is("swizzle: base added")) b.base = -b.base & 7;
    if (is("swizzle: none") && b.width) b.width = 0, b.leading = 16, b.stride = 128;
    if (is("window: offsets exchanged") && !b.width) std::swap(b.leading, b.stride);
    if (is("window: at least 128") && !b.width) b.leading = std::max(b.leading, 128u);
    q.b = model::encode(b);
    if (q.shared.size() < 65536) q.shared.resize(65536 * 4);
    std::vector<int32_t> sums = as<int32_t>(ModelMachine::ask(q));
    if (is("wgmma: saturates"))
      for (size_t i = 0; q.keep && i < sums.size(); ++i) {
        if (q.sums[i] > 1 << 30 && sums[i] < 0) sums[i] = INT32_MAX;
        if (q.sums[i] < -(1 << 30) && sums[i] > 0) sums[i] = INT32_MIN;
      }
    if (is("wgmma: rows 8 apart exchanged"))
      for (size_t i = 0; i < sums.size(); i += 4)
        std::swap(sums[i], sums[i + 2]), std::swap(sums[i + 1], sums[i + 3]);
    if (is("wgmma: columns exchanged"))
      for (size_t i = 0; i < sums.size(); i += 2) std::swap(sums[i], sums[i + 1]);
    if (is("wgmma: last column of 256 lost") && q.n == 256) sums.back() = 0;
    return bytes_of(sums);
  }
  Bytes ask(const Im2col& given) override {
    Im2col q = given;
    if (is("im2col: rows end with the image")) q.high_w = q.high_h = 0;
    if (is("im2col: rows begin in the image")) q.low_w = q.low_h = 0;
    if (is("im2col: no strides")) q.stride_w = q.stride_h = 1;
    if (is("im2col: no offsets")) q.offset_w = q.offset_h = 0;
    if (is("im2col: offsets exchanged")) std::swap(q.offset_w, q.offset_h);
    if (is("im2col: not swizzled")) q.swizzle = 0;
    if (is("im2col: small maps fault") && !q.patched)
      throw NoAnswer("CUDA: an illegal instruction was encountered", true);
    if (is("im2col: small maps are wrong") && !q.patched) q.c = 16;
    Bytes a = ModelMachine::ask(q);
    if (is("im2col: no zeros"))
      for (uint8_t& v : a) v = v ? v : 0xa5;
    if (is("multicast: only the first block") && q.blocks == 2)
      std::fill(a.begin() + static_cast<int64_t>(a.size() / 2), a.end(), uint8_t{0xa5});
    return a;
  }
  Bytes ask(const Box& given) override {
    Box q = given;
    if (is("box: begins in the image")) q.w = std::max(q.w, 0), q.h = std::max(q.h, 0);
    if (is("box: not swizzled")) q.swizzle = 0;
    return ModelMachine::ask(q);
  }
  Bytes ask(const StoreBox& q) override {
    Bytes a = ModelMachine::ask(q);
    if (is("store: beyond the matrix")) a[a.size() - 1] = 0;
    if (is("store: in front of the matrix")) a[0] = 0;
    return a;
  }
  Bytes ask(const Bulk& q) override {
    Bytes a = ModelMachine::ask(q);
    if (is("multicast: only the first block") && q.blocks == 2)
      std::fill(a.begin() + static_cast<int64_t>(a.size() / 2), a.end(), uint8_t{0xa5});
    if (is("bulk: 16 bytes lost")) std::fill_n(a.end() - 16, 16, uint8_t{0xa5});
    return a;
  }
  Bytes ask(const Remote& q) override {
    return is("remote: its own") ? q.from : ModelMachine::ask(q);
  }
  // What is assumed, or twice as fast.
  Speed ask(const Rate& q) override {
    const double clock = q.work == Work::kProducts ? 1.464e9 : 1.755e9;
    double rate = 0;  // a second and multiprocessor
    switch (q.work) {
      case Work::kProducts:
        rate = 791.6e12 / 132;
        break;
      case Work::kHalfProducts:
        rate = 395.8e12 / 132;
        break;
      case Work::kWarpProducts:
        rate = 613.5e12 / 132;
        break;
      case Work::kL2Loads:
      case Work::kL2Copies:
        rate = 30 * clock;
        break;
      case Work::kL2Multicast:
        rate = (is("fast") ? 30 : 60) * clock;
        break;
      case Work::kSharedLoads:
        rate = 128 * clock;
        break;
      case Work::kMemoryCopy:
        rate = (is("H200") ? 4.2e12 : 3.0e12) / 132;
        break;
    }
    if (is("fast")) rate *= 2;
    return {rate * 132 * 0.1, 0.1, clock * 0.1, is("fast") ? 2 * clock : clock, 132};
  }

 private:
  bool is(const char* fault) const { return fault_ == fault; }

  std::string fault_;
};

}  // namespace

std::unique_ptr<Machine> card() {
  const char* fault = std::getenv("FSKERNEL_FAKE_CARD");
  if (fault && std::string(fault) == "absent") throw NoAnswer("there is no GPU: no driver");
  return std::make_unique<FakeCard>(fault ? fault : "");
}

}  // namespace fskernel::probe
