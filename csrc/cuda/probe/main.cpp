// The probe: asks a card what our kernels and their emulator assume of it; docs/probe.md.
//
// The card is asked in a child process, so that a fault costs one answer: the child says which
// question it begins and what came out; when it dies or is late, the next child goes on behind.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <sstream>

#include "golden.h"
#include "model_machine.h"
#include "questions/question.h"

namespace fskernel::probe {

std::string quoted(const std::string& text) {
  std::string to = "\"";
  for (const char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\')
      to += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20)
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c), to += escaped;
    else
      to += c;
  }
  return to + '"';
}

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Options {
  std::vector<std::string> only;
  std::string out;
  double seconds = 60, each = 10;
  bool list = false, emulated = false, here = false;
};

const char kUsage[] =
    "usage: probe [--list] [--only NAME]... [--out FOLDER] [--seconds S] [--each S] [--emulated]\n"
    "             [--here]\n"
    "  --list      the questions and what is assumed\n"
    "  --only      questions that begin so, may be repeated\n"
    "  --out       a folder for probe.json and golden/*.bin\n"
    "  --seconds   for all together, 60\n"
    "  --each      for a question, 10\n"
    "  --emulated  asks the host model instead of a card\n"
    "  --here      asks in this process: for debuggers; a fault ends it\n"
    "exit: 0 all were answered, whatever the answers; 1 some could not be; 2 wrong usage\n";

[[noreturn]] void wrong_usage(const std::string& why) {
  std::cerr << "probe: " << why << "\n" << kUsage;
  std::exit(2);
}

double seconds_of(const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double v = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || !(v > 0) || v > 86400)
    wrong_usage(option + ": " + text + " is no number of seconds");
  return v;
}

Options parsed(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] {
      if (i + 1 == argc) wrong_usage(word + " wants a value");
      return std::string(argv[++i]);
    };
    if (word == "--help") {
      std::cout << kUsage;
      std::exit(0);
    } else if (word == "--list") {
      o.list = true;
    } else if (word == "--emulated") {
      o.emulated = true;
    } else if (word == "--here") {
      o.here = true;
    } else if (word == "--only") {
      o.only.push_back(value());
    } else if (word == "--out") {
      o.out = value();
    } else if (word == "--seconds") {
      o.seconds = seconds_of(word, value());
    } else if (word == "--each") {
      o.each = seconds_of(word, value());
    } else {
      wrong_usage("unknown option " + word);
    }
  }
  return o;
}

// Whole or not at all.
void write_file(const std::string& path, const std::string& content) {
  const std::string part = path + ".part";
  std::FILE* file = std::fopen(part.c_str(), "wb");
  const bool written =
      file && std::fwrite(content.data(), 1, content.size(), file) == content.size();
  if (!file || (std::fclose(file) != 0) || !written || std::rename(part.c_str(), path.c_str()))
    throw std::runtime_error(path + ": " + std::strerror(errno));
}
void make_folder(const std::string& path) {
  for (size_t at = 1; at <= path.size(); ++at)
    if (at == path.size() || path[at] == '/')
      if (mkdir(path.substr(0, at).c_str(), 0777) && errno != EEXIST)
        wrong_usage("--out: " + path + ": " + std::strerror(errno));
}

// ---- the table

// Words of a text in lines of at most `width` columns.
std::vector<std::string> wrapped(const std::string& text, size_t width) {
  std::vector<std::string> lines(1);
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width) lines.push_back("");
    while (word.size() > width) {
      lines.back() = word.substr(0, width), lines.push_back("");
      word.erase(0, width);
    }
    lines.back() += (lines.back().empty() ? "" : " ") + word;
  }
  return lines;
}
constexpr size_t kWidths[] = {28, 27, 28, 7};  // and three between two: 99

void print_row(const std::vector<std::string>& cells) {
  std::vector<std::vector<std::string>> columns;
  size_t height = 0;
  for (size_t i = 0; i < cells.size(); ++i) {
    columns.push_back(wrapped(cells[i], kWidths[i]));
    height = std::max(height, columns.back().size());
  }
  for (size_t y = 0; y < height; ++y) {
    std::string line;
    for (size_t i = 0; i < columns.size(); ++i) {
      std::string cell = y < columns[i].size() ? columns[i][y] : "";
      cell.resize(kWidths[i], ' ');
      line += (i ? " | " : "") + cell;
    }
    std::cout << line.substr(0, line.find_last_not_of(' ') + 1) << "\n";
  }
}
void print_rule() {
  std::string line;
  for (size_t i = 0; i < 4; ++i) line += (i ? "-+-" : "") + std::string(kWidths[i], '-');
  std::cout << line << "\n";
}
void print_indented(const std::string& text) {
  for (const std::string& line : wrapped(text, 92)) std::cout << "      " << line << "\n";
}

// ---- rows as they arrive

class Session {
 public:
  Session(const Options& options, const std::vector<Question>& asked)
      : options_(options), asked_(asked) {
    std::time_t now = std::time(nullptr);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    date_ = text;
    if (!options.out.empty()) make_folder(options.out + "/golden");
  }

  void device(const std::string& json, const std::string& line) {
    if (device_ == json) return;
    device_ = json;
    std::cout << line << "\n\n";
    print_row({"question", "assumed", "seen", "holds"});
    print_rule();
  }
  void row(size_t i, const Answer& a) {
    const Question& q = asked_[i];
    ++count_[static_cast<int>(a.holds)];
    const std::string holds = kHoldsNames[static_cast<int>(a.holds)];
    rows_ += std::string(rows_.empty() ? "" : ",") + "\n  {\"name\": " + quoted(q.name) +
             ", \"assumed\": " + quoted(q.assumed) + ", \"seen\": " + quoted(a.seen) +
             ", \"holds\": " + quoted(holds) + ", \"detail\": " + quoted(a.detail) + "}";
    print_row({q.name, q.assumed, a.seen, holds});
    if (a.holds == Holds::kNo && !a.detail.empty()) print_indented(a.detail);
    std::cout.flush();
    save();
  }
  void save() const {
    if (options_.out.empty()) return;
    write_file(options_.out + "/probe.json",
               "{\n \"program\": \"fskernel probe\",\n \"date\": " + quoted(date_) +
                   ",\n \"device\": " + (device_.empty() ? "null" : device_) + ",\n \"seconds\": " +
                   std::to_string(since(begin_)) + ",\n \"rows\": [" + rows_ + "\n ]\n}\n");
  }
  int count(Holds h) const { return count_[static_cast<int>(h)]; }
  double left() const { return options_.seconds - since(begin_); }
  double spent() const { return since(begin_); }

 private:
  const Options& options_;
  const std::vector<Question>& asked_;
  const Clock::time_point begin_ = Clock::now();
  std::string date_, device_, rows_;
  int count_[3] = {};
};

std::string file_name(std::string name) {
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

// Asks one, never throws; `poisoned` says whether the process can ask on.
Answer attempt(const Question& q, Machine& machine, const std::string& out, bool* poisoned) {
  *poisoned = false;
  try {
    Recorder recorder(machine);
    Answer a = q.ask(recorder);
    if (!out.empty() && !recorder.empty())
      write_file(out + "/golden/" + file_name(q.name) + ".bin", recorder.text());
    return a;
  } catch (const NoAnswer& e) {
    *poisoned = e.poisoned;
    if (q.failed) return q.failed(e.what());
    return {Holds::kNotRun, std::string("not run: ") + e.what(), ""};
  } catch (const std::exception& e) {
    return {Holds::kNotRun, std::string("not run: ") + e.what(), ""};
  }
}

std::string facts_json(const Facts& f) {
  std::ostringstream s;
  s << "{\"name\": " << quoted(f.name) << ", \"arch\": " << f.arch << ", \"driver\": " << f.driver
    << ", \"runtime\": " << f.runtime << ", \"sms\": " << f.sms
    << ", \"clock_khz\": " << f.clock_khz << ", \"memory_clock_khz\": " << f.memory_clock_khz
    << ", \"l2_bytes\": " << f.l2_bytes << ", \"memory_bytes\": " << f.memory_bytes << "}";
  return s.str();
}
std::string facts_line(const Facts& f) {
  std::ostringstream s;
  s << f.name;
  if (f.driver)
    s << ", sm_" << f.arch << ", driver for CUDA " << f.driver / 1000 << "." << f.driver % 1000 / 10
      << ", " << f.sms << " multiprocessors, " << f.clock_khz / 1000 << " MHz at most";
  return s.str();
}
Answer needs(int arch) { return {Holds::kNotRun, "not run: needs sm_" + std::to_string(arch), ""}; }

// ---- the child and its parent, by lines of fields between tabs

std::string field(std::string text) {
  for (char& c : text)
    if (c == '\t' || c == '\n') c = ' ';
  return text;
}
void say(int to, const std::vector<std::string>& fields) {
  std::string line;
  for (const std::string& f : fields) line += (line.empty() ? "" : "\t") + field(f);
  line += '\n';
  for (size_t at = 0; at < line.size();) {
    const ssize_t n = write(to, line.data() + at, line.size() - at);
    if (n < 0 && errno != EINTR) _exit(3);  // nobody listens
    if (n > 0) at += static_cast<size_t>(n);
  }
}

[[noreturn]] void child(const std::vector<Question>& asked, size_t first, const Options& options,
                        int to) {
  std::unique_ptr<Machine> machine;
  Facts facts;
  try {
    machine = card();
    facts = machine->facts();
  } catch (const std::exception& e) {
    say(to, {"none", e.what()});
    _exit(0);
  }
  say(to, {"facts", facts_json(facts), facts_line(facts)});
  for (size_t i = first; i < asked.size(); ++i) {
    say(to, {"begin", std::to_string(i)});
    bool poisoned = false;
    const Answer a = asked[i].arch > facts.arch
                         ? needs(asked[i].arch)
                         : attempt(asked[i], *machine, options.out, &poisoned);
    say(to,
        {"answer", std::to_string(i), std::to_string(static_cast<int>(a.holds)), a.seen, a.detail});
    if (poisoned) _exit(0);
  }
  _exit(0);
}

// Ends a child; one that a driver does not let go is left behind.
std::string ended(pid_t pid, bool kill_it) {
  if (kill_it) kill(pid, SIGKILL);
  int status = 0;
  for (int i = 0; i < 300; ++i) {
    const pid_t done = waitpid(pid, &status, WNOHANG);
    if (done == pid) {
      if (WIFSIGNALED(status))
        return "signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) +
               ")";
      return "exit status " + std::to_string(WEXITSTATUS(status));
    }
    usleep(10000);
  }
  return "it could not be ended";
}

// One child from question `first` on. Returns the first question that has no row yet; asked.size()
// if all have. `none`: why there is no card.
size_t one_child(const std::vector<Question>& asked, size_t first, const Options& options,
                 Session& session, std::string* none) {
  int pipes[2];
  if (pipe(pipes)) throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
  std::cout.flush();
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    close(pipes[0]);
    child(asked, first, options, pipes[1]);
  }
  close(pipes[1]);
  size_t next = first;
  std::string buffer, late;
  Clock::time_point begin = Clock::now();
  double limit = 20;  // until the driver is up
  bool open = true;
  while (open) {
    const double left = std::min(limit - since(begin), session.left());
    if (left <= 0) {
      late = session.left() <= 0 ? "the time for all was over"
                                 : "no answer within " + std::to_string(int(limit)) + " s";
      break;
    }
    pollfd waiting{pipes[0], POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(1000 * left) + 1) <= 0) continue;
    char part[4096];
    const ssize_t n = read(pipes[0], part, sizeof part);
    open = n > 0 || (n < 0 && errno == EINTR);
    if (n > 0) buffer.append(part, static_cast<size_t>(n));
    for (size_t end; (end = buffer.find('\n')) != std::string::npos;) {
      std::vector<std::string> f;
      std::istringstream line(buffer.substr(0, end));
      for (std::string one; std::getline(line, one, '\t');) f.push_back(one);
      f.resize(5);
      buffer.erase(0, end + 1);
      begin = Clock::now();
      limit = options.each;
      if (f[0] == "none") *none = f[1];
      if (f[0] == "facts") session.device(f[1], f[2]);
      if (f[0] == "answer") {
        session.row(next, {static_cast<Holds>(std::stoi(f[2])), f[3], f[4]});
        ++next;
      }
    }
  }
  close(pipes[0]);
  const std::string how = ended(pid, !late.empty());
  if (next == asked.size() || !none->empty()) return next;
  if (late.empty() && how == "exit status 0") return next;  // poisoned, and its row is there
  const std::string why = late.empty() ? how : late;
  const Question& q = asked[next];
  session.row(next, q.failed && session.left() > 0 ? q.failed(why)
                                                   : Answer{Holds::kNotRun, "not run: " + why, ""});
  return next + 1;
}

int report(const Session& session, bool expected_gaps) {
  const int missing = session.count(Holds::kNotRun);
  std::cout << "\n"
            << session.count(Holds::kYes) << " hold, " << session.count(Holds::kNo) << " do not, "
            << missing << " were not run; " << static_cast<int>(session.spent() + 0.5) << " s\n";
  return missing && !expected_gaps ? 1 : 0;
}

int run(const Options& options) {
  std::vector<Question> asked = questions();
  for (const std::string& name : options.only)
    if (std::none_of(asked.begin(), asked.end(),
                     [&](const Question& q) { return q.name.starts_with(name); }))
      wrong_usage("--only " + name + ": no question begins so; --list names them");
  if (!options.only.empty())
    std::erase_if(asked, [&](const Question& q) {
      return std::none_of(options.only.begin(), options.only.end(),
                          [&](const std::string& name) { return q.name.starts_with(name); });
    });
  if (options.list) {
    for (const Question& q : asked)
      std::printf("%-28s  sm_%d  %-5s  %s\n", q.name.c_str(), q.arch, q.model ? "model" : "",
                  q.assumed.c_str());
    return 0;
  }
  Session session(options, asked);
  const auto list_rows = [&](size_t from, const std::string& why) {
    for (size_t i = from; i < asked.size(); ++i)
      session.row(i, {Holds::kNotRun, "not run: " + why, ""});
  };
  if (options.emulated || options.here) {
    std::unique_ptr<Machine> machine;
    try {
      if (options.emulated)
        machine = std::make_unique<ModelMachine>();
      else
        machine = card();
    } catch (const NoAnswer& e) {
      std::cout << "probe: " << e.what() << "; nothing was asked\n";
      list_rows(0, "no GPU");
      return report(session, false);
    }
    const Facts facts = machine->facts();
    session.device(facts_json(facts), facts_line(facts));
    bool poisoned = false, gaps = false;
    for (size_t i = 0; i < asked.size(); ++i) {
      if (poisoned || session.left() <= 0) {
        gaps = true;
        session.row(
            i, {Holds::kNotRun, poisoned ? "not run: a fault before" : "not run: no time", ""});
        continue;
      }
      const bool possible = asked[i].arch <= facts.arch && (!options.emulated || asked[i].model);
      const Answer a = options.emulated && !asked[i].model
                           ? Answer{Holds::kNotRun, "not run: no model of time", ""}
                       : possible ? attempt(asked[i], *machine, options.out, &poisoned)
                                  : needs(asked[i].arch);
      gaps = gaps || (a.holds == Holds::kNotRun && (possible || !options.emulated));
      session.row(i, a);
    }
    return report(session, !gaps);
  }
  std::string none;
  for (size_t next = 0; next < asked.size();) {
    if (session.left() <= 0) {
      list_rows(next, "the time for all was over");
      break;
    }
    next = one_child(asked, next, options, session, &none);
    if (none.empty()) continue;
    std::cout << "probe: " << none << "; --emulated asks the host model\n\n";
    print_row({"question", "assumed", "seen", "holds"});
    print_rule();
    list_rows(next, "no GPU");
    break;
  }
  return report(session, false);
}

}  // namespace
}  // namespace fskernel::probe

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  const fskernel::probe::Options options = fskernel::probe::parsed(argc, argv);
  try {
    return fskernel::probe::run(options);
  } catch (const std::exception& e) {
    std::cerr << "probe: " << e.what() << "\n";
    return 1;
  }
}
