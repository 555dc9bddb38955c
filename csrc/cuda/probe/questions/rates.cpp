// How fast a card is.
#include "question.h"

namespace fskernel::probe {
namespace {

// A rate holds where it is within 15 % of what was assumed, or of the nearer end of a range.
Answer within(double seen, double low, double high, std::string text, std::string detail) {
  const bool yes = seen >= 0.85 * low && seen <= 1.15 * high;
  return {yes ? Holds::kYes : Holds::kNo, std::move(text), std::move(detail)};
}
Answer off_hopper(const Facts& facts, std::string text) {
  return {Holds::kNotRun, std::move(text), "nothing is assumed of " + facts.name};
}
std::string spent(const Speed& s) {
  return number(1e3 * s.seconds, "%.1f") + " ms, " + number(s.sms) + " SMs" +
         (s.hertz > 0 ? ", clock " + number(1e-9 * s.hertz, "%.3f") + " GHz" : "");
}

constexpr double kDataSheet = 989.5e12;  // int8 multiply-accumulates/s, H100 SXM: 132 SMs

Answer tensor_rate(Machine& machine, Work work, int n, double share) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{work, n});
  const double rate = s.units / s.seconds, clocks = s.units / s.sms / s.clocks;
  const double assumed = share * kDataSheet * s.sms / 132;
  const std::string text = number(1e-12 * rate) + " T/s; " + number(clocks) + " a clock";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(rate, assumed, assumed, text,
                spent(s) + "; " + number(100 * rate / assumed) + " % of the assumed rate");
}
Answer bytes_a_clock(Machine& machine, Work work, double low, double high) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{work});
  const double rate = s.units / s.sms / s.clocks;
  const std::string text =
      number(rate, "%.1f") + " B a clock; " + number(1e-12 * s.units / s.seconds, "%.2f") + " TB/s";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(rate, low, high, text, spent(s));
}
Answer multicast_rate(Machine& machine) {
  const Facts facts = machine.facts();
  const Speed one = machine.ask(Rate{Work::kL2Copies}), two = machine.ask(Rate{Work::kL2Multicast});
  const double alone = one.units / one.sms / one.clocks, both = two.units / two.sms / two.clocks;
  const std::string text =
      number(both / alone, "%.2f") + " times; " + number(both, "%.1f") + " B a clock arrive";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(both / alone, 2, 2, text,
                number(alone, "%.1f") + " bytes a clock without; " + spent(two));
}
Answer copy_rate(Machine& machine) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{Work::kMemoryCopy});
  const double rate = s.units / s.seconds;
  const std::string text = number(1e-12 * rate, "%.2f") + " TB/s";
  const bool h200 = facts.name.find("H200") != std::string::npos;
  if (!h200 && facts.name.find("H100") == std::string::npos) return off_hopper(facts, text);
  const double assumed = h200 ? 4.3e12 : 3.0e12;
  return within(rate, assumed, assumed, text, spent(s));
}
Answer clock_rate(Machine& machine, Work work, int n, double assumed) {
  const Facts facts = machine.facts();
  const Speed s = machine.ask(Rate{work, n, 0.5});
  const std::string text = number(1e-9 * s.hertz, "%.3f") + " GHz";
  if (facts.arch != 90) return off_hopper(facts, text);
  return within(s.hertz, assumed, assumed, text,
                spent(s) + "; the driver names " + number(1e-6 * facts.clock_khz, "%.3f") + " GHz");
}

}  // namespace

std::vector<Question> rate_questions() {
  std::vector<Question> all;
  const auto rate = [&](std::string name, std::string assumed, int arch, auto ask) {
    all.push_back({"rate/" + std::move(name), std::move(assumed), arch, false, ask});
  };
  for (const int n : {64, 128, 192, 208, 224, 240, 256})
    rate("wgmma-int8,n=" + std::to_string(n), "792 T/s, 0.80 of peak", 90,
         [=](Machine& m) { return tensor_rate(m, Work::kProducts, n, 0.80); });
  rate("wgmma-fp16,n=256", "396 T/s, 0.80 of peak", 90,
       [](Machine& m) { return tensor_rate(m, Work::kHalfProducts, 256, 0.40); });
  rate("mma.sync-int8", "613 T/s, 0.62 of peak", 80,
       [](Machine& m) { return tensor_rate(m, Work::kWarpProducts, 0, 0.62); });
  rate("l2-loads", "24 to 35 B a clock and SM", 80,
       [](Machine& m) { return bytes_a_clock(m, Work::kL2Loads, 24, 35); });
  rate("l2-copies", "24 to 35 B a clock and SM", 90,
       [](Machine& m) { return bytes_a_clock(m, Work::kL2Copies, 24, 35); });
  rate("l2-multicast", "2 times l2-copies", 90, multicast_rate);
  rate("shared-loads", "128 B a clock and SM", 80,
       [](Machine& m) { return bytes_a_clock(m, Work::kSharedLoads, 128, 128); });
  rate("memory-copy", "3.0 TB/s, H200 4.3 TB/s", 80, copy_rate);
  rate("clock,light", "1.755 GHz", 80,
       [](Machine& m) { return clock_rate(m, Work::kSharedLoads, 0, 1.755e9); });
  rate("clock,tensor", "1.46 GHz, 0.80 of 1.83", 90,
       [](Machine& m) { return clock_rate(m, Work::kProducts, 256, 1.464e9); });
  return all;
}

}  // namespace fskernel::probe
