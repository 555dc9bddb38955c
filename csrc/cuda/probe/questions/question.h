// The questions: what we assume, and how a machine's answer is judged. What is expected is put
// together from the definition of a thing (a product of two matrices, a convolution's pixels), what
// may have happened instead from named hypotheses, so that a row says which of them a card follows.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../machine.h"

namespace fskernel::probe {

enum class Holds { kYes, kNo, kNotRun };
constexpr const char* kHoldsNames[] = {"yes", "no", "not run"};

struct Answer {
  Holds holds;
  std::string seen, detail;
};

struct Question {
  std::string name;  // subject/what
  std::string assumed;
  int arch;    // the least that knows the instructions: 80, 90
  bool model;  // whether the host model has an answer
  std::function<Answer(Machine&)> ask;
  // Where no answer is one: a fault that is expected.
  std::function<Answer(const std::string& why)> failed = nullptr;
};

std::vector<Question> questions();  // all of them, a subject in a file of its own:
std::vector<Question> product_questions();
std::vector<Question> copy_questions();
std::vector<Question> rate_questions();

// One thing that was asked: what came, and what each hypothesis would have given; the first is
// ours.
struct Hypothesis {
  std::string name;
  Bytes bytes;
};
struct Case {
  std::string label;
  Bytes seen;
  std::vector<Hypothesis> hypotheses;
};
Answer judge(const std::vector<Case>& cases);

std::string number(double v, const char* format = "%.0f");
std::string number(int v);

}  // namespace fskernel::probe
