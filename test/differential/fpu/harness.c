/*
 * Executes single x87 instructions on this machine's processor, for the differential test beside it.
 *
 * Mode "run": records of 640 bytes from standard input to standard output.
 *   in:   0 FNSAVE image (108 bytes, 32-bit protected format) to start from; 112 length of the instruction;
 *         113 its bytes, memory operand at [rsi]; 120 EFLAGS; 128 memory operand (512 bytes)
 *   out:  0 FNSAVE image after it; 112 nonzero where it raised SIGFPE; 120 EFLAGS; 124 EAX; 128 memory operand
 * Mode "reference": records of 32 bytes: 0 function, 1 (unused), 4 first operand (10 bytes), 16 second operand.
 *   out:  16 bytes, the value as binary128, worked out with libquadmath.
 */
#define _GNU_SOURCE
#include <quadmath.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static unsigned char *code;
static volatile int faulted;
static int resume_at;

/* Goes on behind the instruction under test. FNSAVE does not wait, so the pending exception stays quiet. */
static void on_sigfpe(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)info;
  faulted = 1;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = (greg_t)(code + resume_at);
}

static int run(void) {
  static unsigned char memory[512] __attribute__((aligned(64)));
  static unsigned char image[128] __attribute__((aligned(64)));
  unsigned char record[640];
  struct sigaction action = {0};
  stack_t stack = {0};
  static unsigned char alternate[65536];
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  sigaltstack(&stack, 0);
  action.sa_sigaction = on_sigfpe;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGFPE, &action, 0);
  code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 1;
  /* frstor [rdi]; push rdx; popfq */
  static const unsigned char before[] = {0xdd, 0x27, 0x52, 0x9d};
  /* pushfq; pop rcx; fnsave [rdi]; mov [r8], rcx; mov [r8+8], rax; ret */
  static const unsigned char after[] = {0x9c, 0x59, 0xdd, 0x37, 0x49, 0x89, 0x08, 0x49, 0x89, 0x40, 0x08, 0xc3};
  while (fread(record, sizeof record, 1, stdin) == 1) {
    int length = record[112] & 7;
    uint64_t out[2];
    uint32_t flags;
    memcpy(code, before, sizeof before);
    memcpy(code + sizeof before, record + 113, length);
    resume_at = sizeof before + length;
    memcpy(code + resume_at, after, sizeof after);
    memcpy(image, record, 108);
    memcpy(memory, record + 128, 512);
    memcpy(&flags, record + 120, 4);
    faulted = 0;
    ((void (*)(void *, void *, uint64_t, uint64_t, uint64_t *))code)(image, memory, (flags & 0x8d5) | 0x202, 0, out);
    memcpy(record, image, 108);
    memcpy(record + 128, memory, 512);
    record[112] = faulted;
    memcpy(record + 120, out, 4);
    memcpy(record + 124, out + 1, 4);
    fwrite(record, sizeof record, 1, stdout);
  }
  return 0;
}

static __float128 load(const unsigned char *bytes) {
  long double value;
  memcpy(&value, bytes, 10);
  return value;
}

/* x reduced by the 66-bit pi; the quadrant in *quadrant. Exact: pi/2 has 66 bits, so the remainder has at most 67. */
static __float128 reduce(__float128 x, int *quadrant) {
  const __float128 half = 0x1.921fb54442d184698p+0Q;
  __float128 eight = fmodq(x, 4 * half);
  *quadrant = (int)lrintq(eight / half);
  return eight - *quadrant * half;
}

static __float128 evaluate(int function, __float128 a, __float128 b) {
  int q = 0;
  __float128 r = 0;
  if (function >= 4) r = reduce(a, &q);
  switch (function) {
    case 0: return expm1q(a * M_LN2q);
    case 1: return b * log2q(a);
    case 2: return b * (log1pq(a) / M_LN2q);
    case 3: return atan2q(b, a);
    case 4:
    case 5: {
      int k = (q + (function == 5)) & 3;
      __float128 value = k & 1 ? cosq(r) : sinq(r);
      return k & 2 ? -value : value;
    }
    default: return q & 1 ? -cosq(r) / sinq(r) : sinq(r) / cosq(r);
  }
}

static int reference(void) {
  unsigned char record[32];
  while (fread(record, sizeof record, 1, stdin) == 1) {
    __float128 value = evaluate(record[0], load(record + 4), load(record + 16));
    fwrite(&value, sizeof value, 1, stdout);
  }
  return 0;
}

int main(int argc, char **argv) {
  return argc > 1 && strcmp(argv[1], "reference") == 0 ? reference() : run();
}
