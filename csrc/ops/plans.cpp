// The operators that run a native plan, and the plans there are.
#include "plans.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "../cpu/dispatch.h"
#include "checks.h"
#include "on_cpu.h"

namespace fskernel {
namespace {

using checks::new_output;
using checks::ScalarType;
using torch::stable::Tensor;

class Plans {
 public:
  void add(int64_t id, std::shared_ptr<const Plan> plan) {
    const std::lock_guard<std::mutex> lock(mutex_);
    plans_[id].push_back(std::move(plan));
  }
  void drop(int64_t id, const Plan* plan) {
    std::shared_ptr<const Plan> last;  // destroyed behind the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = plans_.find(id);
    if (found == plans_.end()) return;
    auto& equal = found->second;
    const auto at = std::find_if(equal.begin(), equal.end(),
                                 [&](const auto& one) { return one.get() == plan; });
    if (at == equal.end()) return;
    last = std::move(*at);
    equal.erase(at);
    if (equal.empty()) plans_.erase(found);
  }
  std::shared_ptr<const Plan> at(int64_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = plans_.find(id);
    FS_CHECK(found != plans_.end(), "plan is ", id, ": there is no such plan in this process; ",
             "after net.pack() or a changed weight, compile or export the network again; before ",
             "an exported program runs, load the network that it was exported from");
    const auto& equal = found->second;
    for (const auto& plan : equal)
      if (&plan->kernels() == &current_kernels()) return plan;
    return equal.back();
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, std::vector<std::shared_ptr<const Plan>>> plans_;
};

Plans& plans() {
  static Plans all;
  return all;
}

}  // namespace

void add_plan(int64_t id, std::shared_ptr<Plan> plan) {
  plan->settle();
  plans().add(id, std::move(plan));
}
void drop_plan(int64_t id, const Plan& plan) { plans().drop(id, &plan); }
std::shared_ptr<const Plan> plan_at(int64_t id) { return plans().at(id); }

namespace {

struct PlanResult {
  Tensor logits, counts;
};

PlanResult run_plan(const Tensor& x, int64_t id, int64_t plane_bits, bool count, double* seconds) {
  FS_CHECK(x.is_cpu(), "x is not on the CPU: call .cpu() on it");
  FS_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 4, "x is ",
           checks::type_name(x.scalar_type()), " of shape ", checks::shape(x),
           ": expected float32 [N, C, H, W]");
  check_fits(checks::sizes(x), "x has");
  checks::plane_bits(plane_bits);
  const std::shared_ptr<const Plan> plan = plan_at(id);
  FS_CHECK(x.size(1) == plan->channels(), "x has shape ", checks::shape(x), ": the network reads ",
           plan->channels(), " channels");
  const int64_t N = x.size(0);
  PlanResult out{new_output(x, {N, plan->classes()}, ScalarType::Float),
                 new_output(x, {N, count ? plan->layers() : 0}, ScalarType::Long)};
  plan->run({static_cast<const float*>(x.const_data_ptr()), N, x.size(2), x.size(3), x.stride(0),
             x.stride(1), x.stride(2), x.stride(3), static_cast<int32_t>(plane_bits),
             static_cast<float*>(out.logits.mutable_data_ptr()),
             count ? static_cast<int64_t*>(out.counts.mutable_data_ptr()) : nullptr, seconds},
            executor());
  note_run(plan->kernels(), "conv/plan");
  return out;
}

std::tuple<Tensor, Tensor> run_plan_op(const Tensor& x, int64_t plan, int64_t plane_bits,
                                       bool count) {
  PlanResult out = run_plan(x, plan, plane_bits, count, nullptr);
  return {out.logits, out.counts};
}

Tensor time_plan_op(const Tensor& x, int64_t plan, int64_t plane_bits) {
  Tensor seconds =
      torch::stable::new_zeros(x, std::vector<int64_t>{plan_at(plan)->nodes()}, ScalarType::Double);
  run_plan(x, plan, plane_bits, false, static_cast<double*>(seconds.mutable_data_ptr()));
  return seconds;
}

STABLE_TORCH_LIBRARY_IMPL(fskernel, CPU, m) {
  m.impl("run_plan", OPERATOR(run_plan_op));
  m.impl("time_plan", OPERATOR(time_plan_op));
}

}  // namespace
}  // namespace fskernel
