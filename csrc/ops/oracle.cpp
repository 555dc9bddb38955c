#include "oracle.h"

#include <cmath>

#include "../reference.h"
#include "checks.h"

namespace fskernel {
namespace {

template <class T>
void check_sizes(const Array<T>& a, const std::vector<int64_t>& expected, const char* name) {
  FS_CHECK(a.shape == expected, name, " has shape ", checks::shape(a.shape), ": expected ",
           checks::shape(expected));
}

// The oracle's int64 sums hold any number of products of 16-bit values.
void check_codes(const Array<int32_t>& a, const char* name) {
  for (const int32_t* v = a.data; v < a.data + a.size(); ++v)
    FS_CHECK(*v >= -32768 && *v <= 32767, name, " holds ", *v, ": expected 16-bit numbers");
}

}  // namespace

OracleOutput oracle_conv(const std::vector<OracleGroup>& groups, const Array<float>& bias,
                         const std::optional<Array<int32_t>>& residual, float r, int32_t K,
                         int32_t limit, const std::optional<Array<float>>& top,
                         const std::optional<Array<float>>& table,
                         const std::optional<Array<float>>& fitted, int32_t zero) {
  FS_CHECK(!groups.empty(), "groups is empty: expected at least one");
  FS_CHECK(bias.shape.size() == 1, "bias has shape ", checks::shape(bias.shape), ": expected [O]");
  checks::in_range(K, 0, fitted ? 16 : 15, "K", "time steps; 0 gives graded output");
  checks::in_range(limit, 1, 32767, "limit", "of graded output");
  std::vector<reference::Group> args;
  std::vector<int64_t> output;
  for (const auto& [x, w, m, ints] : groups) {
    const Geometry g = checks::geometry(ints, "geometry");
    FS_CHECK(x.shape.size() == 4, "x has shape ", checks::shape(x.shape),
             ": expected [N, H, W, I]");
    const int64_t N = x.shape[0], H = x.shape[1], W = x.shape[2], I = x.shape[3], O = bias.size();
    FS_CHECK(I % g.groups == 0 && O % g.groups == 0, "geometry has ", g.groups, " groups: ", I,
             " input and ", O, " output channels cannot be divided by them");
    check_sizes(w, {O, I / g.groups, g.kernel_h, g.kernel_w}, "weight");
    check_sizes(m, {O}, "m");
    check_codes(x, "x");
    check_codes(w, "weight");
    const Size size = checks::output_of(H, W, g, "x of shape " + checks::shape(x.shape));
    const std::vector<int64_t> shape = {N, size.h, size.w, O};
    FS_CHECK(output.empty() || shape == output, "groups give outputs of different shapes, ",
             checks::shape(output), " and ", checks::shape(shape));
    output = shape;
    args.push_back({x.data, w.data, m.data, H, W, I, g.kernel_h, g.kernel_w, g.stride_h, g.stride_w,
                    g.pad_top, g.pad_bottom, g.pad_left, g.pad_right, g.dilation_h, g.dilation_w,
                    g.groups, g.pad_code});
  }
  check_fits(output, "the output would have");
  if (residual) check_sizes(*residual, output, "residual");
  if (top) check_sizes(*top, bias.shape, "top");
  const int64_t N = output[0], OH = output[1], OW = output[2], O = output[3];
  reference::Tables tables{};
  if (table) {
    FS_CHECK(table->shape.size() == 3 && table->shape[2] > 0, "table has shape ",
             checks::shape(table->shape), ": expected [1 or O, 2, S]");
    tables = {table->data, table->shape[0], table->shape[2]};
    check_sizes(*table, {table->shape[0] == 1 ? 1 : O, 2, tables.segments}, "table");
  }
  reference::Fits fits{};
  if (fitted) {
    FS_CHECK(fitted->shape.size() == 2 && fitted->shape[1] > 0, "fitted has shape ",
             checks::shape(fitted->shape), ": expected [3, steps]");
    check_sizes(*fitted, {3, fitted->shape[1]}, "fitted");
    fits = {fitted->data, fitted->shape[1], zero};
  }
  OracleOutput out{output, std::vector<int32_t>(static_cast<size_t>(N * OH * OW * O)),
                   std::vector<int64_t>(static_cast<size_t>(N))};
  reference::conv(args.data(), static_cast<int>(args.size()), bias.data,
                  residual ? residual->data : nullptr, r, K, limit, top ? top->data : nullptr, N,
                  OH, OW, O, out.y.data(), out.counts.data(), nullptr, table ? &tables : nullptr,
                  fitted ? &fits : nullptr);
  return out;
}

OracleOutput oracle_gate(const Array<int32_t>& a, const Array<int32_t>& b, int32_t zero_a,
                         int32_t zero_b, const Array<float>& m, const Array<float>& bias, int32_t K,
                         int32_t limit) {
  FS_CHECK(a.shape.size() == 4, "a has shape ", checks::shape(a.shape), ": expected [N, H, W, C]");
  FS_CHECK(b.shape.size() == 4, "b has shape ", checks::shape(b.shape), ": expected [N, H, W, C]");
  const int64_t N = a.shape[0], H = a.shape[1], W = a.shape[2], C = a.shape[3];
  const bool one_pixel = b.shape[1] == 1 && b.shape[2] == 1;
  const std::vector<int64_t> expected = {N, one_pixel ? 1 : H, one_pixel ? 1 : W,
                                         b.shape[3] == 1 ? 1 : C};
  check_sizes(b, expected, "b");
  check_sizes(m, {C}, "m");
  check_sizes(bias, {C}, "bias");
  check_codes(a, "a");
  check_codes(b, "b");
  for (int64_t c = 0; c < C; ++c)
    FS_CHECK(std::isfinite(m.data[c]) && std::isfinite(bias.data[c]), "m and bias of channel ", c,
             " are ", m.data[c], " and ", bias.data[c], ": expected finite numbers");
  checks::in_range(zero_a, -32768, 32767, "zero_a", "a code");
  checks::in_range(zero_b, -32768, 32767, "zero_b", "a code");
  checks::in_range(K, 0, 15, "K", "time steps; 0 gives graded output");
  checks::in_range(limit, 1, 32767, "limit", "of graded output");
  OracleOutput out{a.shape, std::vector<int32_t>(static_cast<size_t>(a.size())),
                   std::vector<int64_t>(static_cast<size_t>(N))};
  reference::gate(a.data, b.data, b.shape[1], b.shape[2], b.shape[3], zero_a, zero_b, m.data,
                  bias.data, K, limit, N, H, W, C, out.y.data(), out.counts.data());
  return out;
}

}  // namespace fskernel
