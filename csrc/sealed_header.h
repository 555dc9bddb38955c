// The header of packed weights, made and checked, for all backends. Its checksum: kernels read the
// header's numbers as they are, so a byte of it that has changed has to be noticed. And the range
// of codes that the weights were packed for, which decides how a kernel reads them.
#pragma once

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>

#include "conv_call.h"
#include "pack_header.h"

namespace fskernel {

inline uint64_t seal_of(const PackHeader& header) {
  static_assert(offsetof(PackHeader, seal) % sizeof(uint64_t) == 0);
  uint64_t hash = 14695981039346656037u;  // FNV-1a, eight bytes at once
  for (size_t at = 0; at < offsetof(PackHeader, seal); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, reinterpret_cast<const char*>(&header) + at, sizeof word);
    hash = (hash ^ word) * 1099511628211u;
    hash ^= hash >> 32;
  }
  return hash;
}

inline PackHeader sealed_header(const char* backend, const Geometry& geometry, int64_t out_channels,
                                int64_t in_channels_per_group, int32_t weight_bytes, int32_t x_min,
                                int32_t x_max, int32_t layout) {
  PackHeader h{};
  std::memcpy(h.magic, kPackMagic, sizeof h.magic);
  std::strncpy(h.backend, backend, sizeof h.backend - 1);
  h.geometry = geometry;
  h.out_channels = out_channels;
  h.in_channels_per_group = in_channels_per_group;
  h.x_min = x_min;
  h.x_max = x_max;
  h.layout = layout;
  h.weight_bytes = weight_bytes;
  h.seal = seal_of(h);
  return h;
}

// What weights are packed into: the header's `layout`, and bytes with the header.
struct PackedForm {
  int32_t layout;
  int64_t bytes;
};

// Throws std::invalid_argument if weights with this header cannot serve this input on `backend`.
// Nothing is computed with the header's numbers before its seal is checked. `name` is the
// argument's name in the message, `otherwise` what to say where another backend packed them.
// form_of(header): the form that weights with these numbers have there.
template <class FormOf>
void check_header(const PackHeader& h, const ConvInput& in, int64_t out_channels,
                  const std::string& name, const char* backend, const std::string& otherwise,
                  FormOf&& form_of) {
  const auto damaged = [&] {
    return std::invalid_argument(
        name +
        " is damaged: its header does not fit the layer or its size; pack the weights again");
  };
  if (std::memcmp(h.magic, kPackMagic, sizeof h.magic) != 0)
    throw std::invalid_argument(name + " holds no packed weights: make them with ops.pack");
  if (h.seal != seal_of(h)) throw damaged();
  std::string packed_for(h.backend, strnlen(h.backend, sizeof h.backend));
  if (packed_for != backend) {
    for (char& c : packed_for)
      if (c < ' ' || c > '~') c = '?';
    throw std::invalid_argument(name + " was packed for " + packed_for + ", but " + otherwise);
  }
  if (h.geometry != in.geometry)
    throw std::invalid_argument(name +
                                " was packed for another geometry: pass the geometry and pad code "
                                "that ops.pack was given");
  if (h.out_channels != out_channels || h.in_channels_per_group * h.geometry.groups != in.channels)
    throw std::invalid_argument(
        name + " was packed for " + std::to_string(h.in_channels_per_group * h.geometry.groups) +
        " input and " + std::to_string(h.out_channels) + " output channels, but the input has " +
        std::to_string(in.channels) + " and the bias " + std::to_string(out_channels));
  if ((h.weight_bytes != 1 && h.weight_bytes != 2) || h.x_min > 0 || h.x_min < -32768 ||
      h.x_max < 0 || h.x_max > 32767)
    throw damaged();
  const PackedForm form = form_of(h);
  if (h.layout != form.layout || in.packed_bytes != form.bytes) throw damaged();
  if (!in.declared || (h.x_min == in.x_min && h.x_max == in.x_max)) return;
  const auto range = [](int32_t low, int32_t high) {
    return '[' + std::to_string(low) + ", " + std::to_string(high) + ']';
  };
  throw std::invalid_argument(name + " was packed for codes in " + range(h.x_min, h.x_max) +
                              ", but the call declares " + range(in.x_min, in.x_max) +
                              ": pack the weights for these codes");
}

}  // namespace fskernel
