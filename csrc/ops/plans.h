// Plans by number, because an operator of torch takes numbers.
#pragma once

#include <cstdint>
#include <memory>

#include "../cpu/plan/plan.h"

namespace fskernel {

// The number is a fingerprint of the network, so that a graph that was exported or compiled finds
// this network again, in another process too, and never another one. Networks that are equal share
// it. A run holds its plan, so that it may be dropped meanwhile.
void add_plan(int64_t id, std::shared_ptr<Plan> plan);  // which settles here
void drop_plan(int64_t id, const Plan& plan);
// Of equal networks, the one that is packed for the instruction set in use. Throws
// std::invalid_argument where there is none.
std::shared_ptr<const Plan> plan_at(int64_t id);

}  // namespace fskernel
