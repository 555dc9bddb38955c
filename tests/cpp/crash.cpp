#include "crash.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>

// The sanitisers, where they are linked in, end with the signal that is handled here.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace fskernel::testing {
namespace {

char current[2000];
size_t length = 0;

// Only what a signal handler may call.
void die(int signal) {
  const char head[] = "FAILED: crashed (signal   )\n  ";
  char line[sizeof head];
  std::copy(head, head + sizeof head, line);
  line[24] = static_cast<char>('0' + signal / 10);
  line[25] = static_cast<char>('0' + signal % 10);
  ssize_t done = write(STDOUT_FILENO, line, sizeof head - 1);
  done += write(STDOUT_FILENO, current, length);
  _exit(done > 0 ? 1 : 2);
}

}  // namespace

void report_crashes() {
  struct sigaction action = {};
  action.sa_handler = &die;
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE})
    sigaction(signal, &action, nullptr);
}

void doing(const std::string& line) {
  length = std::min(line.size(), sizeof current - 1);
  std::copy_n(line.data(), length, current);
  current[length++] = '\n';
}

}  // namespace fskernel::testing
