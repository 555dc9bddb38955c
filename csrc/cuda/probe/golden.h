// Golden files: what was asked and what was answered, so that an emulator can be asked the same. A
// file is one line of JSON, then bytes: {"machine": ..., "calls": [{"kind": ..., scalar fields, and
// {"at": ..., "bytes": ..., "type": ...} for each array, "answer" among them}]}; "at" counts from
// behind the line.
#pragma once

#include <map>
#include <string>

#include "machine.h"

namespace fskernel::probe {

// Text as a JSON string.
std::string quoted(const std::string& text);

// Passes questions on and writes down what it passes.
class Recorder : public Machine {
 public:
  explicit Recorder(Machine& machine) : machine_(machine) {}

  Facts facts() override { return machine_.facts(); }
  Bytes ask(const Fragments& q) override { return noted(q); }
  Bytes ask(const Transposed& q) override { return noted(q); }
  Bytes ask(const Product& q) override { return noted(q); }
  Bytes ask(const Im2col& q) override { return noted(q); }
  Bytes ask(const Box& q) override { return noted(q); }
  Bytes ask(const StoreBox& q) override { return noted(q); }
  Bytes ask(const Bulk& q) override { return noted(q); }
  Bytes ask(const Remote& q) override { return noted(q); }
  Speed ask(const Rate& q) override { return machine_.ask(q); }

  bool empty() const { return calls_.empty(); }
  // The file's content.
  std::string text() {
    return "{\"machine\": " + quoted(machine_.facts().name) + ", \"calls\": [" + calls_ + "]}\n" +
           blob_;
  }

 private:
  template <class Q>
  Bytes noted(const Q& q) {
    Bytes answer = machine_.ask(q);
    std::string call = "{\"kind\": " + quoted(Q::kName);
    q.fields([&](const char* name, const auto& value) { add(call, name, value); });
    add(call, "answer", answer);
    calls_ += (calls_.empty() ? "" : ", ") + call + "}";
    return answer;
  }
  template <class T>
    requires std::is_integral_v<T>
  static void add(std::string& call, const char* name, T value) {
    call += ", " + quoted(name) + ": " + std::to_string(value);
  }
  template <class T>
  void add(std::string& call, const char* name, const std::vector<T>& value) {
    const std::string bytes(reinterpret_cast<const char*>(value.data()), value.size() * sizeof(T));
    auto [found, fresh] = at_.try_emplace(bytes, blob_.size());
    if (fresh) blob_ += bytes;
    call += ", " + quoted(name) + ": {\"at\": " + std::to_string(found->second) +
            ", \"bytes\": " + std::to_string(bytes.size()) + ", \"type\": \"" +
            (sizeof(T) == 1        ? "uint8"
             : std::is_signed_v<T> ? "int32"
                                   : "uint32") +
            "\"}";
  }

  Machine& machine_;
  std::string calls_, blob_;
  std::map<std::string, size_t> at_;
};

}  // namespace fskernel::probe
