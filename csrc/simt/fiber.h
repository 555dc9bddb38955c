// A fiber: a function with a stack of its own that can be left in the middle and resumed. On x86-64
// a switch saves the registers that a call preserves and the stack pointer, nothing else (some 10
// ns against 200 of swapcontext, which also asks the kernel for the signal mask); elsewhere
// ucontext. AddressSanitizer is told about every switch.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#if !defined(__x86_64__) || defined(FSKERNEL_SIMT_UCONTEXT)
#define FSKERNEL_SIMT_UCONTEXT 1
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define FSKERNEL_SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FSKERNEL_SIMT_ASAN 1
#endif
#endif
#ifdef FSKERNEL_SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace fskernel::simt {

#ifdef FSKERNEL_SIMT_UCONTEXT
using Context = ucontext_t;
inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#else
struct Context {
  void* stack;
};
extern "C" void fskernel_simt_switch(void** from, void* to);
asm(R"(
.text
.weak fskernel_simt_switch
.type fskernel_simt_switch, @function
fskernel_simt_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size fskernel_simt_switch, .-fskernel_simt_switch
)");
inline void switch_context(Context& from, Context& to) {
  fskernel_simt_switch(&from.stack, to.stack);
}
inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // where entry would return to; it never does
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the six registers that the switch pops
  context.stack = top;
}
#endif

class Fiber {
 public:
  static constexpr size_t kStack = 256 * 1024;

  Fiber() = default;
  Fiber(Fiber&& other) noexcept { *this = std::move(other); }
  Fiber& operator=(Fiber&& other) noexcept {
    std::swap(stack_, other.stack_);
    return *this;
  }
  ~Fiber() {
    if (stack_) munmap(stack_ - kGuard, kStack + kGuard);
  }

  // The next resume() calls entry, which must end in leave_for_good().
  void start(void (*entry)()) {
    if (!stack_) {
      void* pages = mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (pages == MAP_FAILED || mprotect(pages, kGuard, PROT_NONE)) std::abort();
      stack_ = static_cast<char*>(pages) + kGuard;
    }
#ifdef FSKERNEL_SIMT_ASAN
    // A launch that ended in a fault left the stack as it was.
    __asan_unpoison_memory_region(stack_, kStack);
    fake_stack_ = nullptr;
#endif
    make_context(context_, stack_, kStack, entry);
  }

  // From the main program: runs the fiber until it leaves.
  void resume() {
#ifdef FSKERNEL_SIMT_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_, kStack);
#endif
    switch_context(main_, context_);
#ifdef FSKERNEL_SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // From the fiber: back to the main program.
  void leave() { leave(false); }
  void leave_for_good() { leave(true); }
  // First thing that the entry function does.
  static void entered() {
#ifdef FSKERNEL_SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &main_stack_, &main_bytes_);
#endif
  }

 private:
  static constexpr size_t kGuard = 4096;

  void leave([[maybe_unused]] bool for_good) {
#ifdef FSKERNEL_SIMT_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, main_stack_, main_bytes_);
#endif
    switch_context(context_, main_);
#ifdef FSKERNEL_SIMT_ASAN
    __sanitizer_finish_switch_fiber(fake_stack_, &main_stack_, &main_bytes_);
#endif
  }

  Context context_{};
  char* stack_ = nullptr;
  inline static Context main_{};
#ifdef FSKERNEL_SIMT_ASAN
  void* fake_stack_ = nullptr;
  inline static const void* main_stack_ = nullptr;
  inline static size_t main_bytes_ = 0;
#endif
};

}  // namespace fskernel::simt
