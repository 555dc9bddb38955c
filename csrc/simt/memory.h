// Shared and global memory under watch. Functions return what is wrong, or an empty string.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "launch.h"

namespace fskernel::simt {

// A place in the source.
struct Where {
  const char* file = "";
  uint32_t line = 0;
  static constexpr Where here(std::source_location at = std::source_location::current()) {
    return {at.file_name(), at.line()};
  }
};
inline bool same(Where a, Where b) { return a.line == b.line && a.file == b.file; }
inline std::string text(Where where) {
  const std::string_view file = where.file;
  return std::string(file.substr(file.find_last_of('/') + 1)) + ":" + std::to_string(where.line);
}

// Who accesses memory, and when: the number of barriers that the block has passed, and of those
// that the thread's warp has.
struct Party {
  int thread;
  uint32_t epoch, warp_epoch;
};

class SharedMemory {
 public:
  // Addresses do not start at 0, nor do they on the device.
  static constexpr uint32_t kBase = 1024;

  void begin(int bytes, uint8_t poison) {
    if (static_cast<int>(memory_.size()) != bytes) {
      std::vector<uint8_t>(bytes).swap(memory_);  // of its exact size, for AddressSanitizer
      shadow_.resize(bytes);
    }
    std::fill(memory_.begin(), memory_.end(), poison);
    std::fill(shadow_.begin(), shadow_.end(), Shadow{});
  }

  uint8_t* at(uint32_t address) { return memory_.data() + (address - kBase); }

  std::string span(uint32_t address, int bytes, int alignment) const {
    const int64_t offset = int64_t{address} - kBase;
    if (offset < 0 || offset + bytes > static_cast<int64_t>(memory_.size()))
      return "shared access out of bounds: " + std::to_string(bytes) + " bytes at offset " +
             std::to_string(offset) + " of " + std::to_string(memory_.size());
    if (address % alignment)
      return "misaligned shared access: offset " + std::to_string(offset) + " is no multiple of " +
             std::to_string(alignment);
    return {};
  }

  std::string read(uint32_t address, int bytes, const Party& me) {
    for (Shadow* s = shadow(address); s < shadow(address) + bytes; ++s) {
      if (s->pending >= 0)
        return "shared read of an asynchronous copy that thread " + std::to_string(s->pending) +
               " has not waited for" + offset(s);
      if (s->writer == kNobody) return "read of shared memory that was never written" + offset(s);
      if (!ordered(s->writer, s->write_epoch, s->write_warp_epoch, me))
        return "race: shared read after a write by " + who(s->writer) + " without a barrier" +
               offset(s);
      note_reader(*s, me);
    }
    return {};
  }

  // Whether `me` may write now; a copy may land at any time from here on.
  std::string may_write(uint32_t address, int bytes, const Party& me) {
    for (Shadow* s = shadow(address); s < shadow(address) + bytes; ++s) {
      if (s->pending >= 0)
        return "shared write over an asynchronous copy that thread " + std::to_string(s->pending) +
               " has not waited for" + offset(s);
      if (!ordered(s->writer, s->write_epoch, s->write_warp_epoch, me))
        return "race: shared write after a write by " + who(s->writer) + " without a barrier" +
               offset(s);
      if (!ordered(s->reader, s->read_epoch, s->read_warp_epoch, me))
        return "race: shared write after a read by " + who(s->reader) + " without a barrier" +
               offset(s);
    }
    return {};
  }
  void written(uint32_t address, int bytes, const Party& me, bool atomically = false) {
    for (Shadow* s = shadow(address); s < shadow(address) + bytes; ++s) {
      s->pending = -1;
      s->writer = static_cast<int16_t>(atomically ? kAtomics : me.thread);
      s->write_epoch = me.epoch;
      s->write_warp_epoch = me.warp_epoch;
    }
  }
  // Atomics of the same epoch do not race with each other.
  std::string may_update(uint32_t address, int bytes, const Party& me) {
    const Shadow& s = *shadow(address);
    if (s.writer == kNobody) return "update of shared memory that was never written" + offset(&s);
    if (s.writer == kAtomics && s.pending < 0 &&
        ordered(s.reader, s.read_epoch, s.read_warp_epoch, me))
      return {};
    return may_write(address, bytes, me);
  }
  void pend(uint32_t address, int bytes, int thread) {
    for (Shadow* s = shadow(address); s < shadow(address) + bytes; ++s)
      s->pending = static_cast<int16_t>(thread);
  }

 private:
  // In place of a thread's number.
  static constexpr int kNobody = -1, kMany = -2, kAtomics = -3;
  static constexpr int kWarp = -16;  // several lanes of warp w: kWarp - w

  struct Shadow {
    uint32_t write_epoch = 0, read_epoch = 0, write_warp_epoch = 0, read_warp_epoch = 0;
    int16_t writer = kNobody, reader = kNobody, pending = -1;
  };

  Shadow* shadow(uint32_t address) { return shadow_.data() + (address - kBase); }
  std::string offset(const Shadow* s) const {
    return ", offset " + std::to_string(s - shadow_.data());
  }
  static std::string who(int party) {
    if (party == kMany) return "several warps";
    if (party == kAtomics) return "atomics";
    if (party <= kWarp) return "several lanes of warp " + std::to_string(kWarp - party);
    return "thread " + std::to_string(party);
  }

  // Did what `party` did then happen before what `me` does now?
  static bool ordered(int party, uint32_t epoch, uint32_t warp_epoch, const Party& me) {
    if (party == kNobody || party == me.thread || epoch != me.epoch) return true;
    const int warp = party >= 0 ? party / 32 : party <= kWarp ? kWarp - party : -1;
    return warp == me.thread / 32 && warp_epoch != me.warp_epoch;
  }

  static void note_reader(Shadow& s, const Party& me) {
    const int warp = me.thread / 32;
    if (s.reader != kNobody && s.reader != me.thread && s.read_epoch == me.epoch) {
      const bool own = s.reader >= 0 ? s.reader / 32 == warp : s.reader == kWarp - warp;
      // A lane of the own warp that read before the warp's last barrier no longer matters.
      if (!own)
        s.reader = kMany;
      else
        s.reader =
            static_cast<int16_t>(s.read_warp_epoch == me.warp_epoch ? kWarp - warp : me.thread);
    } else {
      s.reader = static_cast<int16_t>(me.thread);
    }
    s.read_epoch = me.epoch;
    s.read_warp_epoch = me.warp_epoch;
  }

  std::vector<uint8_t> memory_;
  std::vector<Shadow> shadow_;
};

class GlobalMemory {
 public:
  void begin(const std::vector<Buffer>& buffers) {
    areas_.clear();
    for (const Buffer& b : buffers) {
      areas_.push_back({b, static_cast<const uint8_t*>(b.data), {}});
      if (b.writable) areas_.back().shadow.assign(b.bytes, Shadow{});
    }
  }

  enum Access { kRead, kReadOnly, kWrite, kUpdate };

  std::string access(const void* address, int bytes, Access kind, int64_t thread) {
    const uint8_t* p = static_cast<const uint8_t*>(address);
    if (reinterpret_cast<uintptr_t>(p) % bytes)
      return std::string("misaligned global ") + name(kind) + " of " + std::to_string(bytes) +
             " bytes" + place(p);
    Area* area = find(p, bytes);
    if (!area)
      return std::string("global ") + name(kind) + " of " + std::to_string(bytes) +
             " bytes out of bounds" + place(p);
    if (kind >= kWrite && !area->buffer.writable)
      return std::string("global ") + name(kind) + " into a read-only buffer" + place(p);
    if (area->shadow.empty()) return {};
    for (int i = 0; i < bytes; ++i) {
      Shadow& s = area->shadow[p - area->begin + i];
      const bool foreign = s.writer != kNobody && !(s.writer == thread && kind != kReadOnly) &&
                           !(s.writer == kAtomics && kind == kUpdate);
      const bool was_read = kind >= kWrite && s.reader != kNobody && s.reader != thread;
      if (foreign || was_read)
        return std::string("race in global memory: ") + name(kind) + " of a byte that " +
               (foreign ? "was written" : "was read") + " in this launch" + place(p + i);
      if (kind >= kWrite)
        s.writer = kind == kUpdate ? kAtomics : thread;
      else
        s.reader =
            kind == kReadOnly || (s.reader != kNobody && s.reader != thread) ? kMany : thread;
    }
    return {};
  }

 private:
  static constexpr int64_t kNobody = -1, kMany = -2, kAtomics = -3;
  struct Shadow {
    int64_t writer = kNobody, reader = kNobody;
  };
  struct Area {
    Buffer buffer;
    const uint8_t* begin;
    std::vector<Shadow> shadow;  // of writable buffers
  };

  static const char* name(Access kind) {
    return kind == kWrite ? "store" : kind == kUpdate ? "atomic" : "load";
  }
  Area* find(const uint8_t* p, int bytes) {
    for (Area& a : areas_)
      if (p >= a.begin && p + bytes <= a.begin + a.buffer.bytes) return &a;
    return nullptr;
  }
  // Relative to the nearest buffer.
  std::string place(const uint8_t* p) const {
    const Area* best = nullptr;
    int64_t least = INT64_MAX;
    for (const Area& a : areas_) {
      const int64_t far = std::max<int64_t>({0, a.begin - p, p - (a.begin + a.buffer.bytes - 1)});
      if (far < least) least = far, best = &a;
    }
    if (!best) return "";
    return ", byte " + std::to_string(p - best->begin) + " of " + best->buffer.name +
           ", which has " + std::to_string(best->buffer.bytes);
  }

  std::vector<Area> areas_;
};

// Puts together again what the lanes of a warp do in one instruction: the n-th access of each lane
// since all have last met, as long as it is at the same place in the source.
class WarpLog {
 public:
  enum Kind { kShared, kLoad, kStore };

  void begin(int warps) { warps_.assign(warps, {}); }
  void note(int thread, Kind kind, uint64_t address, int bytes, Where where, Report& report) {
    Warp& warp = warps_[thread / 32];
    const int lane = thread % 32;
    const uint64_t n = warp.next[lane]++;
    while (warp.first + warp.open.size() <= n) warp.open.push_back({});
    Instruction& i = warp.open[n - warp.first];
    if (!i.lanes) {
      i.kind = kind;
      i.bytes = bytes;
      i.where = where;
    } else if (!same(i.where, where) || i.kind != kind || i.bytes != bytes) {
      i.mixed =
          true;  // lanes took different ways; their numbers no longer say what belongs together
    }
    i.lanes |= 1u << lane;
    i.address[lane] = address;
    while (!warp.open.empty() && warp.open.front().lanes == 0xffffffffu) {
      count(warp.open.front(), report);
      warp.open.pop_front();
      ++warp.first;
    }
  }
  // All lanes of the warp are at the same place again.
  void meet(int warp, Report& report) {
    Warp& w = warps_[warp];
    for (const Instruction& i : w.open) count(i, report);
    w = {};
  }

 private:
  struct Instruction {
    Kind kind = kShared;
    int bytes = 0;
    uint32_t lanes = 0;
    bool mixed = false;
    Where where;
    uint64_t address[32];
  };
  struct Warp {
    uint64_t next[32] = {}, first = 0;
    std::deque<Instruction> open;
  };

  static void count(const Instruction& i, Report& report) {
    if (i.mixed || !i.lanes) return;
    if (i.kind == kShared) {
      report.bank_conflicts += conflicts(i);
      return;
    }
    std::vector<uint64_t> sectors;
    int64_t bytes = 0;
    for (int l = 0; l < 32; ++l)
      if (i.lanes >> l & 1) sectors.push_back(i.address[l] / 32), bytes += i.bytes;
    std::sort(sectors.begin(), sectors.end());
    const int64_t n = std::unique(sectors.begin(), sectors.end()) - sectors.begin();
    (i.kind == kLoad ? report.load_sectors : report.store_sectors) += n;
    (i.kind == kLoad ? report.load_bytes : report.store_bytes) += bytes;
  }

  // 32 banks of 4 bytes; 128 bytes a pass, so 8 lanes of 16 bytes, or 16 of 8, go together.
  static int conflicts(const Instruction& i) {
    const int together = i.bytes == 16 ? 8 : i.bytes == 8 ? 16 : 32;
    int extra = 0;
    for (int begin = 0; begin < 32; begin += together) {
      std::vector<uint64_t> words[32];
      size_t most = 1;
      for (int l = begin; l < begin + together; ++l) {
        if (!(i.lanes >> l & 1)) continue;
        for (uint64_t w = i.address[l] / 4; w < (i.address[l] + i.bytes + 3) / 4; ++w) {
          auto& bank = words[w % 32];
          if (std::find(bank.begin(), bank.end(), w) == bank.end()) bank.push_back(w);
          most = std::max(most, bank.size());
        }
      }
      extra += static_cast<int>(most) - 1;
    }
    return extra;
  }

  std::vector<Warp> warps_;
};

}  // namespace fskernel::simt
