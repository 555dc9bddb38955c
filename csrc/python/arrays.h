// Arrays of Python's, and lists of numbers, as C++ takes them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <span>
#include <vector>

#include "../ops/checks.h"
#include "../ops/oracle.h"

namespace fskernel {

namespace py = pybind11;
using Ints = std::vector<int64_t>;
// Arrays bring their types and lengths along; what has another type is not converted but refused.
template <class T>
using Numbers = py::array_t<T, py::array::c_style>;
using Floats = Numbers<float>;
using Bytes = Numbers<uint8_t>;

template <class T>
Array<T> as_array(const Numbers<T>& a) {
  return {a.data(), {a.shape(), a.shape() + a.ndim()}};
}

template <class T>
std::optional<Array<T>> as_array(const std::optional<Numbers<T>>& a) {
  return a ? std::optional<Array<T>>(as_array(*a)) : std::nullopt;
}

template <class T>
std::span<const T> elements(const Numbers<T>& a) {
  return {a.data(), static_cast<size_t>(a.size())};
}

inline Geometry as_geometry(const Ints& numbers) { return checks::geometry(numbers, "geometry"); }

}  // namespace fskernel
