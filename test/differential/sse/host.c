/*
 * Runs instructions on the host's CPU. Reads cases from standard input and writes an outcome for each; the layouts are
 * those of host.ts. The code runs between a load and a store of all registers (but RSP), with state at low addresses so
 * that no register is needed to reach it. A signal ends a case; what MXCSR was then is part of the outcome.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct registers {
  uint8_t fx[512];
  uint64_t gpr[16];
  uint64_t flags;
  uint64_t pad[7];
};
struct test_case {
  struct registers in;
  uint8_t memory[256];
  uint8_t code[16];
  uint32_t length;
  uint32_t pad[11];
};
struct outcome {
  struct registers out;
  uint8_t memory[256];
  uint32_t signal;
  uint32_t mxcsr;
  uint32_t pad[14];
};
struct area {
  struct registers in, out;
  uint64_t rsp;
};

#define AREA 0x20000
#define CODE 0x28000
#define GUEST 0x30000

static struct area *const area = (struct area *)AREA;
static sigjmp_buf back;
static volatile uint32_t seen_signal, seen_mxcsr;

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)info;
  seen_signal = (uint32_t)number;
  seen_mxcsr = ((ucontext_t *)context)->uc_mcontext.fpregs->mxcsr;
  siglongjmp(back, 1);
}

static uint8_t *put;
static void emit(const char *bytes, size_t count) {
  memcpy(put, bytes, count);
  put += count;
}
static void address(const void *where) {
  uint32_t at = (uint32_t)(uintptr_t)where;
  memcpy(put, &at, 4);
  put += 4;
}
/* MOV of general register n from (8B) or to (89) an absolute address. */
static void move(uint8_t opcode, int n, const void *where) {
  char bytes[] = {(char)(0x48 | (n >> 3) << 2), (char)opcode, (char)((n & 7) << 3 | 4), 0x25};
  emit(bytes, 4);
  address(where);
}

static void build(const uint8_t *code, uint32_t length) {
  put = (uint8_t *)CODE;
  emit("\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10);
  move(0x89, 4, &area->rsp);
  emit("\x48\x0f\xae\x0c\x25", 5); /* fxrstor64 */
  address(area->in.fx);
  emit("\xff\x34\x25", 3); /* push; popfq */
  address(&area->in.flags);
  emit("\x9d", 1);
  for (int n = 0; n < 16; n++)
    if (n != 4) move(0x8b, n, &area->in.gpr[n]);
  emit((const char *)code, length);
  for (int n = 0; n < 16; n++)
    if (n != 4) move(0x89, n, &area->out.gpr[n]);
  move(0x8b, 4, &area->rsp);
  emit("\x9c\x8f\x04\x25", 4); /* pushfq; pop */
  address(&area->out.flags);
  emit("\x48\x0f\xae\x04\x25", 5); /* fxsave64 */
  address(area->out.fx);
  emit("\xfc\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3", 12);
}

int main(void) {
  const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (mmap((void *)AREA, 0x20000, all, flags, -1, 0) == MAP_FAILED) return 2;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  const int numbers[] = {SIGILL, SIGSEGV, SIGFPE, SIGBUS, SIGTRAP};
  for (int n = 0; n < 5; n++) sigaction(numbers[n], &action, 0);
  static struct test_case c;
  static struct outcome o;
  while (fread(&c, sizeof c, 1, stdin) == 1) {
    memset(&o, 0, sizeof o);
    area->in = c.in;
    memcpy((void *)GUEST, c.memory, sizeof c.memory);
    build(c.code, c.length > 15 ? 15 : c.length);
    seen_signal = 0;
    if (sigsetjmp(back, 1) == 0) ((void (*)(void))CODE)();
    uint32_t usual = 0x1f80;
    __asm__ volatile("fninit; ldmxcsr %0; cld" ::"m"(usual));
    o.out = area->out;
    o.signal = seen_signal;
    o.mxcsr = seen_mxcsr;
    memcpy(o.memory, (void *)GUEST, sizeof o.memory);
    if (fwrite(&o, sizeof o, 1, stdout) != 1) return 3;
  }
  return 0;
}
