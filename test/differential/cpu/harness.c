/*
 * Runs single instructions on the host's CPU; layouts are those of layout.ts.
 *
 * The signal handler is the whole loop: it notes the state that a case ended with, puts the next case's state into the
 * signal frame, and returns into that case's code. Around the code is INT3, so that a case always ends with a signal:
 * the instruction's own fault, or a breakpoint where it went. Code of 32-bit cases runs in the kernel's compatibility segment,
 * that of 16-bit cases in segments of a local descriptor table (LOCAL in layout.ts).
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE 0x400000UL
#define CODE_BYTES 0x40000UL
#define SLOT 72
#define SLOT_CODE 16
#define DATA 0x600000UL
#define DATA_BYTES 0x2000UL
#define READ_BYTES 0x1000UL
#define GET_FS 0x1003
#define SET_FS 0x1002
#define GET_GS 0x1004
#define SET_GS 0x1001

struct test_case {
  uint64_t gpr[16];
  uint32_t flags, mxcsr, kind, length;
  uint64_t fs, gs;
  uint64_t mm[8];
  uint8_t code[16];
  uint8_t pad[16];
  uint8_t xmm[256];
  uint8_t ymm[256];
};
struct outcome {
  uint64_t gpr[16];
  uint32_t flags, mxcsr, trap, error;
  uint64_t fs, gs;
  uint64_t mm[8];
  uint64_t rip, cr2;
  uint32_t first, end, hash, pad;
  uint8_t xmm[256];
  uint8_t bytes[64];
  uint8_t ymm[256];
  uint16_t selectors[8];
};

static struct test_case *cases;
static struct outcome *outcomes;
static uint32_t count, current;
static int running;
static uint64_t main_fs, main_gs;
static uint64_t main_registers[23];
static uint8_t main_fx[1088];

/* Where the frame holds an XSAVE image with AVX state: its header and the upper halves, which lie at 576 (SDM 1, 13.4). */
static uint64_t *xstate(uint8_t *fx) { return *(uint32_t *)(fx + 464) == 0x46505853 ? (uint64_t *)(fx + 512) : 0; }
static int has_avx(uint8_t *fx) { return xstate(fx) && (*(uint64_t *)(fx + 472) & 4); }
static uint8_t pattern[DATA_BYTES];

/* Encoding order to the order of gregs. */
static const int ORDER[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static long prctl_raw(long code, unsigned long value) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_arch_prctl), "D"(code), "S"(value) : "rcx", "r11", "memory");
  return result;
}

static void finish(struct outcome *o, ucontext_t *context, int number) {
  const greg_t *r = context->uc_mcontext.gregs;
  const uint8_t *fx = (const uint8_t *)context->uc_mcontext.fpregs;
  for (int n = 0; n < 16; n++) o->gpr[n] = r[ORDER[n]];
  o->rip = r[REG_RIP];
  o->flags = r[REG_EFL];
  o->trap = number == SIGVTALRM ? 255 : r[REG_TRAPNO];
  o->error = r[REG_ERR];
  o->cr2 = o->trap == 14 ? r[REG_CR2] : 0;
  memcpy(&o->mxcsr, fx + 24, 4);
  for (int n = 0; n < 8; n++) memcpy(&o->mm[n], fx + 32 + 16 * n, 8);
  memcpy(o->xmm, fx + 160, 256);
  if (has_avx((uint8_t *)fx) && (*xstate((uint8_t *)fx) & 4)) memcpy(o->ymm, fx + 576, 256);
  const uint64_t *now = (const uint64_t *)DATA, *was = (const uint64_t *)pattern;
  uint32_t low = 0, high = DATA_BYTES / 8;
  while (low < high && now[low] == was[low]) low++;
  if (low == high) {
    o->first = o->end = o->hash = 0;
    memset(o->bytes, 0, 64);
    return;
  }
  while (now[high - 1] == was[high - 1]) high--;
  o->first = low * 8;
  o->end = high * 8;
  uint32_t hash = 0;
  for (const uint8_t *p = (const uint8_t *)DATA + o->first; p < (const uint8_t *)DATA + o->end; p++) hash = hash * 31 + *p;
  o->hash = hash;
  for (uint32_t n = 0; n < 64; n++) o->bytes[n] = o->first + n < o->end ? ((uint8_t *)DATA)[o->first + n] : 0;
  memcpy((uint8_t *)DATA + o->first, pattern + o->first, o->end - o->first);
}

void handle(int number, siginfo_t *info, void *at) {
  ucontext_t *context = at;
  greg_t *r = context->uc_mcontext.gregs;
  uint8_t *fx = (uint8_t *)context->uc_mcontext.fpregs;
  (void)info;
  if (!running) {
    if (number == SIGVTALRM) return;
    running = 1;
    memcpy(main_registers, r, sizeof main_registers);
    memcpy(main_fx, fx, has_avx(fx) ? 832 : 512);
  } else {
    struct outcome *o = &outcomes[current++];
    __asm__ volatile("mov %%es,%0\n mov %%ds,%1\n mov %%fs,%2\n mov %%gs,%3"
                     : "=m"(o->selectors[0]), "=m"(o->selectors[3]), "=m"(o->selectors[4]), "=m"(o->selectors[5]));
    o->selectors[1] = r[REG_CSGSFS];
    o->selectors[2] = (uint64_t)r[REG_CSGSFS] >> 48;
    prctl_raw(GET_FS, (unsigned long)&o->fs);
    prctl_raw(GET_GS, (unsigned long)&o->gs);
    prctl_raw(SET_FS, main_fs);
    finish(o, context, number);
  }
  /* The header of the XSAVE area: x87, SSE and AVX are not in their initial state. */
  if (xstate(fx)) *xstate(fx) |= has_avx(fx) ? 7 : 3;
  if (current == count) {
    running = 0;
    memcpy(r, main_registers, sizeof main_registers);
    memcpy(fx, main_fx, 464);
    if (has_avx(fx)) memcpy(fx + 576, main_fx + 576, 256);
    context->uc_flags |= 6;
    prctl_raw(SET_GS, main_gs);
    return;
  }
  const struct test_case *c = &cases[current];
  for (int n = 0; n < 16; n++) r[ORDER[n]] = c->gpr[n];
  r[REG_RIP] = (c->kind == 2 ? 0 : CODE) + (uint64_t)current * SLOT + SLOT_CODE;
  r[REG_EFL] = c->flags | 0x202;
  r[REG_CSGSFS] = c->kind == 2 ? (0x1fLL << 48) | 0x07 : (0x2bLL << 48) | (c->kind == 1 ? 0x23 : 0x33);
  __asm__ volatile("mov %0,%%ds\n mov %1,%%es" ::"r"(c->kind == 2 ? 0x0f : 0x2b), "r"(c->kind == 2 ? 0x17 : 0x2b));
  context->uc_flags |= 6;
  memset(fx, 0, 24);
  *(uint16_t *)fx = 0x37f;
  fx[4] = 0xff;
  memcpy(fx + 24, &c->mxcsr, 4);
  for (int n = 0; n < 8; n++) {
    memcpy(fx + 32 + 16 * n, &c->mm[n], 8);
    *(uint16_t *)(fx + 40 + 16 * n) = 0xffff;
  }
  memcpy(fx + 160, c->xmm, 256);
  if (has_avx(fx)) memcpy(fx + 576, c->ymm, 256);
  prctl_raw(SET_GS, c->gs);
  prctl_raw(SET_FS, c->fs);
}

/* POPF may have set AC, NT and ID, which handlers and the cases after would see. */
__asm__(".globl entry\nentry:\n pushfq\n andq $~0x244000,(%rsp)\n popfq\n jmp handle\n");
void entry(int, siginfo_t *, void *);

static void get(void *to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) exit(3);
}

/* A descriptor of the local table. `contents`: 0 data, 1 data that expands down, 2 code, 3 conforming code. */
static void describe(unsigned number, unsigned long base, unsigned limit, unsigned contents, int wide, int less, int missing) {
  struct user_desc d = {.entry_number = number,
                        .base_addr = base,
                        .limit = limit,
                        .contents = contents,
                        .seg_32bit = wide,
                        .limit_in_pages = wide,
                        .read_exec_only = less,
                        .seg_not_present = missing};
  if (syscall(SYS_modify_ldt, 0x11, &d, sizeof d) != 0) exit(7);
}

static void map(unsigned long at, size_t bytes, int protection) {
  if (mmap((void *)at, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)at) exit(4);
}

int main(void) {
  map(CODE, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(DATA, DATA_BYTES + READ_BYTES, PROT_READ | PROT_WRITE);
  static uint8_t stack[1 << 18] __attribute__((aligned(64)));
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, 0);
  struct sigaction action = {.sa_sigaction = entry, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigfillset(&action.sa_mask);
  const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGVTALRM, SIGSYS};
  for (unsigned n = 0; n < sizeof signals / sizeof *signals; n++) sigaction(signals[n], &action, 0);
  __asm__ volatile("mov %0,%%ds\n mov %0,%%es" ::"r"(0x2b));
  prctl_raw(GET_FS, (unsigned long)&main_fs);
  prctl_raw(GET_GS, (unsigned long)&main_gs);

  describe(0, CODE, 0xffff, 2, 0, 0, 0);
  describe(1, DATA - 0x8000, 0xffff, 0, 0, 0, 0);
  describe(2, DATA - 0x8000, 0xa7ff, 0, 0, 0, 0);
  describe(3, DATA - 0x8000, 0x7fff, 1, 0, 0, 0);
  describe(4, 0, 0xfffff, 0, 1, 1, 0);
  describe(5, 0, 0xfffff, 2, 1, 1, 0);
  describe(6, 0, 0x5ff, 1, 1, 0, 0);
  describe(7, 0, 0xfffff, 0, 1, 0, 1);
  describe(8, 0, 0xfffff, 3, 1, 0, 1);

  uint32_t header[2];
  get(header, sizeof header);
  count = header[0];
  if (count * SLOT > CODE_BYTES) exit(5);
  get(pattern, DATA_BYTES);
  memcpy((void *)DATA, pattern, DATA_BYTES);
  get((void *)(DATA + DATA_BYTES), READ_BYTES);
  mprotect((void *)(DATA + DATA_BYTES), READ_BYTES, PROT_READ);
  cases = malloc(count * sizeof *cases + 1);
  outcomes = calloc(count + 1, sizeof *outcomes);
  get(cases, count * sizeof *cases);
  memset((void *)CODE, 0xcc, CODE_BYTES);
  for (uint32_t n = 0; n < count; n++)
    memcpy((void *)(CODE + (uint64_t)n * SLOT + SLOT_CODE), cases[n].code, cases[n].length & 15);
  if (count != 0) {
    /* Of the processor's time: a busy host, or one that stops us, makes no difference. */
    struct itimerval limit = {.it_value.tv_sec = 20};
    setitimer(ITIMER_VIRTUAL, &limit, 0);
    __asm__ volatile("int3" ::: "memory");
  }
  return fwrite(outcomes, sizeof *outcomes, count, stdout) == count ? 0 : 6;
}
