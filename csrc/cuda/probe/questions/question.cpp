#include "question.h"

#include <algorithm>
#include <cstdio>
#include <map>

namespace fskernel::probe {

std::string number(double v, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, v);
  return text;
}
std::string number(int v) { return std::to_string(v); }

Answer judge(const std::vector<Case>& cases) {
  std::map<std::string, int> fits;
  size_t bytes = 0;
  std::string detail;
  int wrong = 0;
  const int all = static_cast<int>(cases.size());
  for (const Case& one : cases) {
    bytes += one.seen.size();
    bool explained = false;
    for (const Hypothesis& h : one.hypotheses)
      if (one.seen == h.bytes) ++fits[h.name], explained = true;
    const Bytes& ours = one.hypotheses[0].bytes;
    if (one.seen == ours) continue;
    ++wrong;
    size_t differ = one.seen.size() == ours.size() ? 0 : 1, first = 0;
    for (size_t i = std::min(one.seen.size(), ours.size()); i-- > 0;)
      if (one.seen[i] != ours[i]) ++differ, first = i;
    if (detail.empty())
      detail = one.label + ": " + std::to_string(differ) + " of " + std::to_string(ours.size()) +
               " bytes differ, the first at " + std::to_string(first) +
               (explained ? "" : ", as no hypothesis has it");
  }
  if (!wrong)
    return {Holds::kYes, all == 1 ? "as assumed" : "as assumed, " + number(all) + " cases",
            std::to_string(bytes) + " bytes are equal"};
  std::string seen = "as assumed in " + std::to_string(all - wrong) + " of " + std::to_string(all);
  for (const auto& [name, n] : fits)
    if (n > all - wrong) seen = name + " in " + std::to_string(n) + " of " + std::to_string(all);
  return {Holds::kNo, seen, detail};
}

std::vector<Question> questions() {
  std::vector<Question> all = product_questions();
  for (const auto& more : {copy_questions(), rate_questions()})
    all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace fskernel::probe
