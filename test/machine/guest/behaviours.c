/*
 * What a kernel and its processor show to programs: signals and the state they carry, single step and breakpoints by
 * ptrace, segments of an LDT, traps and faults with their codes, contexts. Each line is a fact that is the same on any
 * x86-64 Linux; addresses are told from a label. The same program on the host says what is right.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef unsigned long ulong;
#define CODE(...) __asm__ volatile(__VA_ARGS__)

static sigjmp_buf back;
static char *base;         /* what addresses are told from */
static ulong skip;         /* bytes that the handler goes on after; 0: it jumps back */
static volatile int count; /* times a handler ran */

static void on(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
  sigaction(signal, &action, 0);
}

static const char *place(ulong at) {
  static char text[32];
  long from = (long)(at - (ulong)base);
  if (from >= -4096 && from < 1 << 16) snprintf(text, sizeof text, "base%+ld", from);
  else if (at == 0) return "0";
  else return "elsewhere";
  return text;
}

/* Tells all of a fault. */
static void tell(int signal, siginfo_t *info, void *context) {
  /* Alignment checks go on in a handler. */
  CODE("pushf; andl $~0x40000,(%%rsp); popf" ::: "memory", "cc");
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  printf("  %s code %d addr %s", strsignal(signal), info->si_code, signal == SIGTRAP ? "-" : place((ulong)info->si_addr));
  printf(" rip %s trap %lld err %llx cr2 %s\n", place(r[REG_RIP]), r[REG_TRAPNO], r[REG_ERR],
         r[REG_TRAPNO] == 14 ? place(r[REG_CR2]) : "-");
  count++;
  if (skip) r[REG_RIP] += skip;
  else siglongjmp(back, 1);
}

static void all_faults(void) {
  for (const int *s = (const int[]){SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP, 0}; *s; s++) on(*s, tell, SA_NODEFER);
}

#define TRY(name, ...)              \
  do {                              \
    printf("%s\n", name);           \
    fflush(stdout);                 \
    count = 0;                      \
    if (!sigsetjmp(back, 1)) {      \
      __VA_ARGS__;                  \
      if (!count) printf("  no fault\n"); \
    }                               \
  } while (0)

/* --- faults ------------------------------------------------------------------------------------------------------ */

static void faults(void) {
  all_faults();
  char *pages = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(pages + 4096, 4096, PROT_READ);
  mprotect(pages + 8192, 4096, PROT_NONE);
  munmap(pages + 12288, 4096);
  base = pages;
  memset(pages, 0xc3, 4096);
  TRY("write to a page for reading", pages[4096 + 5] = 1);
  TRY("read of a page for nothing", (void)*(volatile char *)(pages + 8192 + 7));
  TRY("read of no page", (void)*(volatile char *)(pages + 12288));
  TRY("write across into a page for reading", *(volatile int *)(pages + 4094) = 1);
  TRY("the bytes before it", printf("  %x %x\n", (unsigned char)pages[4094], (unsigned char)pages[4095]); count = 1);
  TRY("code in a page for data", ((void (*)(void))pages)());
  mprotect(pages, 4096, PROT_READ | PROT_EXEC);
  TRY("code in a page for code", ((void (*)(void))pages)());
  TRY("write to it", pages[0] = 1);
  TRY("not canonical", *(volatile char *)0x800000000000 = 1);
  TRY("not canonical through the stack", CODE("push %rbp; movabs $0x800000000000,%rbp; mov (%rbp),%al; pop %rbp"));
  TRY("jump to where nothing is canonical", ((void (*)(void))0x900000000000)());
  TRY("the kernel's memory", (void)*(volatile char *)0xffffffff81000000);
  TRY("null", *(volatile int *)0 = 0);
  TRY("a privileged instruction", CODE("hlt"));
  TRY("a port", CODE("outb %al,$0x80"));
  TRY("cli", CODE("cli"));
  TRY("a control register", CODE("mov %%cr0,%%rax" ::: "rax"));
  TRY("an MSR", CODE("rdmsr" ::: "rax", "rdx"));
  TRY("an int of the kernel's", CODE("int $0xd"));
  TRY("a null data segment", CODE("xor %%eax,%%eax; mov %%ax,%%ds" ::: "rax"));
  TRY("a segment beyond the table", CODE("mov $0x7ff,%%eax; mov %%ax,%%ds" ::: "rax"));
  TRY("a kernel segment", CODE("mov $0x10,%%eax; mov %%ax,%%es" ::: "rax"));
  TRY("a code segment as stack", CODE("mov $0x33,%%eax; mov %%ax,%%ss" ::: "rax"));
  TRY("ud2", CODE("ud2"));
  TRY("a lock that may not be", CODE(".byte 0xf0, 0x90"));
  TRY("push es in 64-bit code", CODE(".byte 0x06"));
  TRY("division by zero", CODE("xor %%ecx,%%ecx; div %%ecx" ::: "rax", "rcx", "rdx"));
  TRY("division overflow", CODE("mov $1,%%edx; mov $1,%%ecx; div %%ecx" ::: "rax", "rcx", "rdx"));
  TRY("idiv of the smallest", CODE("mov $0x80000000,%%eax; cltd; mov $-1,%%ecx; idiv %%ecx" ::: "rax", "rcx", "rdx"));
  int file = open("/proc/self/exe", O_RDONLY);
  char name[] = "/tmp/behaviours-XXXXXX";
  int small = mkstemp(name);
  unlink(name);
  if (ftruncate(small, 100)) printf("no truncation\n");
  base = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, small, 0);
  TRY("beyond the end of a file", (void)*(volatile char *)(base + 4096));
  close(file);
  close(small);
  TRY("alignment check", {
    static char cells[16];
    base = cells;
    CODE("pushf; orl $0x40000,(%%rsp); popf; mov 1(%0),%%eax; pushf; andl $~0x40000,(%%rsp); popf" : : "r"(cells) : "rax", "memory");
  });
  CODE("pushf; andl $~0x40000,(%%rsp); popf" ::: "memory");
  TRY("alignment check, aligned", {
    long cells[2] = {0};
    CODE("pushf; orl $0x40000,(%%rsp); popf; mov 8(%0),%%rax; movups (%0),%%xmm0; pushf; andl $~0x40000,(%%rsp); popf" : : "r"(cells) : "rax", "xmm0", "memory");
  });
  TRY("movaps that is not aligned", {
    static char cells[64] __attribute__((aligned(16)));
    base = cells;
    CODE("movaps 1(%0),%%xmm0" : : "r"(cells) : "xmm0");
  });
}

/* --- floating point exceptions ----------------------------------------------------------------------------------- */

static void float_fault(int signal, siginfo_t *info, void *context) {
  ucontext_t *uc = context;
  struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
  printf("  %s code %d trap %lld fsw %04x fcw %04x mxcsr %08x\n", strsignal(signal), info->si_code,
         uc->uc_mcontext.gregs[REG_TRAPNO], fp->swd & 0xffff, fp->cwd & 0xffff, fp->mxcsr);
  count++;
  siglongjmp(back, 1);
}

static void float_faults(void) {
  on(SIGFPE, float_fault, SA_NODEFER);
  static const struct { const char *name; unsigned short control; } x87[] = {
      {"x87 zero divide", 0x37b}, {"x87 invalid", 0x37e}, {"x87 inexact", 0x35f}, {"x87 overflow", 0x377}, {"x87 masked", 0x37f}};
  for (unsigned n = 0; n < sizeof x87 / sizeof *x87; n++)
    TRY(x87[n].name, {
      unsigned short control = x87[n].control;
      switch (n) {
        case 0: case 4: CODE("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(control)); break;
        case 1: CODE("fninit; fldcw %0; fldz; fldz; fdivrp; fwait" : : "m"(control)); break;
        case 2: CODE("fninit; fldcw %0; fld1; fldpi; fdivrp; fwait" : : "m"(control)); break;
        case 3: { double big = 1e308; long double out; CODE("fninit; fldcw %1; fldl %2; fld %%st(0); fscale; fscale; fscale; fstpt %0; fwait" : "=m"(out) : "m"(control), "m"(big)); } break;
      }
    });
  CODE("fninit");
  static const struct { const char *name; unsigned mxcsr; } sse[] = {
      {"SSE zero divide", 0x1d80}, {"SSE invalid", 0x1f00}, {"SSE denormal", 0x1e80}, {"SSE inexact", 0x0f80}, {"SSE masked", 0x1f80}};
  for (unsigned n = 0; n < sizeof sse / sizeof *sse; n++)
    TRY(sse[n].name, {
      unsigned mxcsr = sse[n].mxcsr;
      double one = 1, zero = 0, tiny = 5e-324, three = 3;
      CODE("ldmxcsr %0" : : "m"(mxcsr));
      switch (n) {
        case 0: case 4: CODE("movsd %0,%%xmm1; divsd %1,%%xmm1" : : "m"(one), "m"(zero) : "xmm1"); break;
        case 1: CODE("movsd %0,%%xmm1; divsd %0,%%xmm1" : : "m"(zero) : "xmm1"); break;
        case 2: CODE("movsd %0,%%xmm1; addsd %1,%%xmm1" : : "m"(one), "m"(tiny) : "xmm1"); break;
        case 3: CODE("movsd %0,%%xmm1; divsd %1,%%xmm1" : : "m"(one), "m"(three) : "xmm1"); break;
      }
    });
  unsigned mxcsr = 0x1f80;
  CODE("ldmxcsr %0" : : "m"(mxcsr));
}

/* --- state in signal frames -------------------------------------------------------------------------------------- */

static void clobber(int signal, siginfo_t *info, void *context) {
  (void)info;
  ucontext_t *uc = context;
  struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
  unsigned *words = (unsigned *)fp;
  uint64_t *header = (uint64_t *)((char *)fp + 512);
  unsigned *upper = (unsigned *)((char *)fp + 576);
  printf("  %s: magic %x, features %lx, xmm3 %08x, ymm3 upper %08x, st0 %04x, mxcsr %08x fcw %04x\n", strsignal(signal), words[464 / 4],
         (ulong)header[0] & 7, fp->_xmm[3].element[0], upper[3 * 4], fp->_st[0].exponent, fp->mxcsr, fp->cwd);
  CODE("vzeroall; fninit; fldpi; fldpi");
  unsigned mxcsr = 0x7f80;
  CODE("ldmxcsr %0" : : "m"(mxcsr));
  /* What is changed here is there afterwards. */
  fp->_xmm[5].element[1] = 0x5a5a5a5a;
  upper[6 * 4 + 2] = 0x66666666;
  uc->uc_mcontext.gregs[REG_R14] = 0x1414;
  uc->uc_mcontext.gregs[REG_EFL] ^= 1;
}

static void signal_state(void) {
  on(SIGUSR1, clobber, 0);
  unsigned before[8][8], after[8][8];
  for (int n = 0; n < 8; n++)
    for (int k = 0; k < 8; k++) before[n][k] = 0x01010101 * (n * 8 + k + 1);
  unsigned short control = 0x27f, got;
  unsigned mxcsr = 0x3f80, got_mxcsr;
  double top;
  ulong r14, flags;
  printf("signal and sigreturn\n");
  fflush(stdout);
  CODE(
      "fninit; fldcw %5; fld1; ldmxcsr %6\n"
      "vmovups (%7),%%ymm0; vmovups 32(%7),%%ymm1; vmovups 64(%7),%%ymm2; vmovups 96(%7),%%ymm3\n"
      "vmovups 128(%7),%%ymm4; vmovups 160(%7),%%ymm5; vmovups 192(%7),%%ymm6; vmovups 224(%7),%%ymm7\n"
      "mov %9,%%edi; mov %10,%%esi; mov %11,%%eax; stc; syscall\n"
      "pushf; pop %4; mov %%r14,%3\n"
      "vmovups %%ymm0,(%8); vmovups %%ymm1,32(%8); vmovups %%ymm2,64(%8); vmovups %%ymm3,96(%8)\n"
      "vmovups %%ymm4,128(%8); vmovups %%ymm5,160(%8); vmovups %%ymm6,192(%8); vmovups %%ymm7,224(%8)\n"
      "fnstcw %0; stmxcsr %1; fstpl %2\n"
      : "=m"(got), "=m"(got_mxcsr), "=m"(top), "=m"(r14), "=m"(flags)
      : "m"(control), "m"(mxcsr), "r"(before), "r"(after), "r"(getpid()), "i"(SIGUSR1), "i"(SYS_kill)
      : "rax", "rdi", "rsi", "rcx", "r11", "r14", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
  printf("  after: fcw %04x mxcsr %08x st0 %g r14 %lx carry %lu\n", got, got_mxcsr, top, r14, flags & 1);
  for (int n = 0; n < 8; n++)
    for (int k = 0; k < 8; k++)
      if (before[n][k] != after[n][k]) printf("  ymm%d word %d is %08x\n", n, k, after[n][k]);
  CODE("fninit; vzeroupper");
}

static void nested(int signal, siginfo_t *info, void *context) {
  (void)info;
  char here;
  stack_t *stack = &((ucontext_t *)context)->uc_stack;
  ulong at = (ulong)&here - (ulong)stack->ss_sp;
  printf("  %s at depth %d, on the other stack: %d\n", strsignal(signal), count, at < stack->ss_size);
  if (count++ < 3) raise(SIGUSR2);
}

static void stacks(void) {
  static char other[65536];
  stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
  sigaltstack(&stack, 0);
  on(SIGUSR2, nested, SA_ONSTACK | SA_NODEFER);
  count = 0;
  printf("another stack for signals\n");
  raise(SIGUSR2);
}

/* --- traps -------------------------------------------------------------------------------------------------------- */

extern char steps[], steps_end[];
/* With an argument: what some hypervisors cannot do, and a host may run on one. */
static int all;
static int trail[64], trails;
static void step(int signal, siginfo_t *info, void *context) {
  (void)signal;
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  if (trails < 64) trail[trails++] = r[REG_RIP] >= (ulong)steps && r[REG_RIP] <= (ulong)steps_end ? (int)(r[REG_RIP] - (ulong)steps) : -1;
  count = info->si_code;
}

static void traps(void) {
  on(SIGTRAP, step, 0);
  printf("TF set by popf: where traps come\n ");
  trails = 0;
  ulong flags;
  char from[8] = "abcdefg", to[8] = {0};
  CODE(
      "pushf; orl $0x100,(%%rsp); popf\n"
      ".globl steps, steps_end\n"
      "steps: nop\n"
      "mov $3,%%ecx; mov %1,%%rsi; mov %2,%%rdi; rep movsb\n"
      "mov %%ss,%%eax; mov %%ax,%%ss; nop\n"
      "pushf; pop %%rbx; mov $39,%%eax; syscall; nop\n"
      "call 1f; jmp 2f\n"
      "1: ret\n"
      "2: cpuid; pushf; andl $~0x100,(%%rsp); popf\n"
      "nop\n"
      "steps_end: mov %%rbx,%0\n"
      : "=m"(flags)
      : "r"(from), "r"(to)
      : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
  for (int n = 0; n < trails; n++) printf(" %d", trail[n]);
  printf("\n  code %d, the flag in its own image: %lu, moved %s\n", count, flags >> 8 & 1, to);
  all_faults();
  on(SIGTRAP, step, 0);
  trails = 0;
  CODE("int3; nop");
  printf("int3: %d, code %d\n", trails, count);
  if (all) {
    trails = 0;
    CODE(".byte 0xf1; nop");
    printf("icebp: %d, code %d\n", trails, count);
  }
  ulong ax;
  CODE("mov $20,%%eax; int $0x80; mov %%rax,%0" : "=r"(ax) : : "rax", "r8", "r9", "r10", "r11", "memory");
  printf("int 0x80 is getpid: %d\n", ax == (ulong)getpid());
  ulong rcx, r11, r10 = 0, after;
  CODE("mov $39,%%eax; mov $0x1010,%%r10; stc; syscall; lea 0(%%rip),%2; mov %%rcx,%0; mov %%r11,%1; mov %%r10,%3"
       : "=r"(rcx), "=r"(r11), "=r"(after), "=r"(r10) : : "rax", "rcx", "r11", "r10");
  printf("syscall: rcx behind it %d, r11 %03lx, r10 %lx\n", (int)(after - rcx), r11 & 0x201, r10);
  ulong rax;
  CODE("mov $-1,%%rax; syscall" : "=a"(rax) : : "rcx", "r11");
  printf("syscall that is none: %ld\n", (long)rax);
}

/* --- segments ------------------------------------------------------------------------------------------------------ */

/* 32-bit code, below 4 GiB, entered by a far call from 64-bit code and left by a far return. */
static unsigned char *low;
#define LOW_BYTES 65536
static void run32(const void *code, size_t bytes, unsigned selector) {
  memcpy(low, code, bytes);
  struct { unsigned offset; unsigned short selector; } __attribute__((packed)) target = {(unsigned)(ulong)low, (unsigned short)selector};
  void *stack = low + LOW_BYTES - 64;
  CODE(
      "mov %%rsp,%%r12; mov %1,%%rsp; mov %%ss,%%r13d; mov %%r13d,%%ds; mov %%r13d,%%es\n"
      "lcall *%0\n"
      "mov %%r12,%%rsp; mov %%r13d,%%ss"
      : : "m"(target), "r"(stack) : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "memory", "cc");
}
#define RUN32(...) do { static const unsigned char code[] = {__VA_ARGS__}; run32(code, sizeof code, 0x23); } while (0)

static int ldt(unsigned entry, ulong address, unsigned limit, int contents, int wide, int readonly, int pages, int absent) {
  struct user_desc d = {.entry_number = entry, .base_addr = (unsigned)address, .limit = limit, .seg_32bit = wide, .contents = contents,
                        .read_exec_only = readonly, .limit_in_pages = pages, .seg_not_present = absent, .useable = 1};
  return syscall(SYS_modify_ldt, 0x11, &d, sizeof d) ? errno : 0;
}
static unsigned read_gs(unsigned selector, unsigned offset) {
  unsigned value = 0;
  CODE("mov %%gs,%%r8d; mov %1,%%gs; mov %%gs:(%2),%0; mov %%r8d,%%gs" : "=&r"(value) : "r"(selector), "r"((ulong)offset) : "r8");
  return value;
}

static void segments(void) {
  all_faults();
  skip = 0;
  low = mmap((void *)0x10000000, LOW_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  base = (char *)low;
  for (int n = 0; n < 1024; n++) ((unsigned *)low)[1024 + n] = 0xc0de0000 + n;
  printf("modify_ldt: %d", ldt(0, (ulong)low + 4096, 255, 0, 1, 0, 0, 0));
  printf(" %d", ldt(1, (ulong)low + 4096, 0, 0, 1, 1, 1, 0));
  printf(" %d", ldt(2, (ulong)low, 4095, 1, 1, 0, 0, 0));
  printf(" %d", ldt(3, 0, 0xfffff, 2, 1, 0, 1, 0));
  printf(" %d", ldt(4, 0, 0xfffff, 0, 1, 0, 1, 1));
  printf(" %d", ldt(5, (ulong)low, 0xffff, 2, 0, 0, 0, 0));
  printf(" %d\n", ldt(8193, 0, 0, 0, 1, 0, 0, 0));
  TRY("gs of the LDT", printf("  %08x\n", read_gs(7, 8)); count = 1);
  TRY("beyond its limit counts in 32-bit code alone", printf("  %08x\n", read_gs(7, 300)); count = 1);
  TRY("a segment that is not there", read_gs(4 * 8 + 7, 0));
  TRY("an entry that is empty", read_gs(20 * 8 + 7, 0));
  TRY("a segment of pages", printf("  %08x\n", read_gs(15, 4)); count = 1);
  for (unsigned selector = 7; selector <= 5 * 8 + 7; selector += 8) {
    ulong rights = 0, limit = 0;
    unsigned char ok1, ok2, readable, writable;
    CODE("lar %4,%0; setz %1; lsl %4,%2; setz %3" : "=&r"(rights), "=&q"(ok1), "=&r"(limit), "=&q"(ok2) : "r"((ulong)selector) : "cc");
    CODE("verr %w2; setz %0; verw %w2; setz %1" : "=&q"(readable), "=&q"(writable) : "r"(selector) : "cc");
    printf("selector %02x: lar %d %lx lsl %d %lx verr %d verw %d\n", selector, ok1, ok1 ? rights & 0xf0ff00 : 0, ok2, ok2 ? limit : 0, readable, writable);
  }
  TRY("32-bit code: a segment's limit", {
    /* mov eax,7; mov gs,ax; mov eax,gs:[252]; mov ebx,gs:[253]; retf */
    RUN32(0xb8, 7, 0, 0, 0, 0x8e, 0xe8, 0x65, 0xa1, 252, 0, 0, 0, 0x65, 0x8b, 0x1d, 253, 0, 0, 0, 0xcb);
  });
  TRY("32-bit code: a segment for reading", RUN32(0xb8, 15, 0, 0, 0, 0x8e, 0xe8, 0x65, 0xa3, 0, 0, 0, 0, 0xcb));
  TRY("32-bit code: expand down, below", RUN32(0xb8, 23, 0, 0, 0, 0x8e, 0xe8, 0x65, 0xa1, 0xff, 0x0f, 0, 0, 0xcb));
  TRY("32-bit code: expand down, above", RUN32(0xb8, 23, 0, 0, 0, 0x8e, 0xe8, 0x65, 0xa1, 0, 0x10, 0, 0, 0xcb); count = 1);
  CODE("xor %%eax,%%eax; mov %%eax,%%gs" ::: "rax");
  TRY("32-bit code: into", RUN32(0xb8, 0xff, 0xff, 0xff, 0x7f, 0x40, 0xce, 0xcb));
  TRY("32-bit code: into without overflow", RUN32(0x31, 0xc0, 0xce, 0xcb); count = 1);
  TRY("32-bit code: bound", RUN32(0xb8, 5, 0, 0, 0, 0x62, 0x05, 0, 0x10, 0, 0x10, 0xcb));
  TRY("32-bit code: aam 0", RUN32(0xd4, 0, 0xcb));
  TRY("32-bit code: les of a kernel segment", RUN32(0xc4, 0x05, 0x10, 0x10, 0, 0x10, 0xcb));
  TRY("32-bit code: int 0x80", {
    RUN32(0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xa3, 0, 0x18, 0, 0x10, 0xcb);
    printf("  getpid %d\n", *(int *)(low + 0x1800) == getpid());
    count = 1;
  });
  TRY("32-bit code of the LDT", {
    /* mov eax,cs; mov [low+0x1804],eax; retf */
    static const unsigned char code[] = {0x8c, 0xc8, 0xa3, 4, 0x18, 0, 0x10, 0xcb};
    run32(code, sizeof code, 3 * 8 + 7);
    printf("  cs %x\n", *(int *)(low + 0x1804));
    count = 1;
  });
  TRY("32-bit code: inc, dec, daa, pusha", {
    /* mov eax,0x1f; inc eax; daa; pusha; popa; mov [..],eax; retf */
    RUN32(0xb8, 0x1f, 0, 0, 0, 0x40, 0x27, 0x60, 0x61, 0xa3, 8, 0x18, 0, 0x10, 0xcb);
    printf("  eax %x\n", *(int *)(low + 0x1808));
    count = 1;
  });
  TRY("fs and gs by arch_prctl and by instruction", {
    ulong gs = 0, kept = 0;
    syscall(SYS_arch_prctl, 0x1001, low + 4096);
    CODE("mov %%gs:8,%0" : "=r"(gs));
    syscall(SYS_arch_prctl, 0x1004, &kept);
    printf("  %08x %d\n", (unsigned)gs, kept == (ulong)low + 4096);
    CODE("rdgsbase %0" : "=r"(kept));
    printf("  %d\n", kept == (ulong)low + 4096);
    CODE("wrgsbase %0" : : "r"((ulong)low + 4096 + 64));
    CODE("mov %%gs:8,%0" : "=r"(gs));
    printf("  %08x\n", (unsigned)gs);
    sched_yield();
    CODE("rdgsbase %0" : "=r"(kept));
    printf("  %d\n", kept == (ulong)low + 4096 + 64);
    syscall(SYS_arch_prctl, 0x1001, 0);
    count = 1;
  });
}

/* --- ptrace ---------------------------------------------------------------------------------------------------------- */

extern char traced[], traced_int3[], traced_end[];
static volatile ulong watched[2];
static int traced_child(void) {
  for (const int *s = (const int[]){SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP, 0}; *s; s++) signal(*s, SIG_DFL);
  ptrace(PTRACE_TRACEME, 0, 0, 0);
  double pi = 3.25;
  raise(SIGSTOP);
  ulong out;
  CODE(
      "movsd %2,%%xmm9; vpcmpeqd %%ymm8,%%ymm8,%%ymm8; fld1; mov $0x1234,%%ebx\n"
      ".globl traced, traced_int3, traced_end\n"
      "traced: nop\n"
      "inc %%ebx; mov $2,%%ecx\n"
      "3: loop 3b\n"
      "mov $39,%%eax; syscall\n"
      "mov %%ss,%%eax; mov %%eax,%%ss; nop\n"
      "traced_int3: int3\n"
      "movq %%xmm9,%0; movq %3,%1; movq $7,%1; lock addq $1,%1\n"
      "traced_end: nop; nop; nop\n"
      : "=r"(out), "+m"(watched[0])
      : "m"(pi), "r"(5ul)
      : "rax", "rbx", "rcx", "rdx", "r11", "xmm8", "xmm9", "memory", "cc");
  CODE("vzeroupper; fninit");
  _exit(out == 0x4010000000000000 ? 33 : 34);
}

static void wait_stop(pid_t child, const char *what) {
  int status;
  waitpid(child, &status, 0);
  struct user_regs_struct r;
  siginfo_t info = {0};
  if (!WIFSTOPPED(status)) {
    printf("  %s: exit %d\n", what, WEXITSTATUS(status));
    return;
  }
  ptrace(PTRACE_GETREGS, child, 0, &r);
  ptrace(PTRACE_GETSIGINFO, child, 0, &info);
  long from = (long)(r.rip - (ulong)traced);
  if (from > 200 || from < -200) from = -1;
  ulong dr6 = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg[6]), 0);
  printf("  %s: signal %d code %d at %ld, flags %llx, dr6 %lx\n", what, WSTOPSIG(status), WSTOPSIG(status) == SIGSTOP ? 0 : info.si_code,
         from, r.eflags & 0x10100, dr6 & 15);
}
static void debug_register(pid_t child, int n, ulong value) {
  if (ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[n]), value)) printf("  dr%d: %s\n", n, strerror(errno));
}

static void tracing(void) {
  printf("ptrace\n");
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) traced_child();
  wait_stop(child, "stopped");
  debug_register(child, 0, (ulong)traced);
  debug_register(child, 7, 1);
  ptrace(PTRACE_CONT, child, 0, 0);
  wait_stop(child, "breakpoint");
  struct user_regs_struct r;
  ptrace(PTRACE_GETREGS, child, 0, &r);
  printf("  rbx %llx cs %llx ss %llx\n", r.rbx, r.cs, r.ss);
  struct user_fpregs_struct fp;
  ptrace(PTRACE_GETFPREGS, child, 0, &fp);
  printf("  xmm9 %08x %08x st0 exponent %04x fsw %04x ftw %02x\n", fp.xmm_space[9 * 4], fp.xmm_space[9 * 4 + 1], fp.st_space[2] & 0xffff, fp.swd, fp.ftw);
  fp.xmm_space[9 * 4 + 1] = 0x40100000; /* 4.0 */
  ptrace(PTRACE_SETFPREGS, child, 0, &fp);
  static unsigned char area[8192];
  struct iovec vector = {area, sizeof area};
  ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &vector);
  printf("  xstate features %lx, ymm8 upper %08x\n", *(ulong *)(area + 512) & 7, *(unsigned *)(area + 576 + 8 * 16));
  for (int n = 0; n < 9; n++) {
    ptrace(PTRACE_SINGLESTEP, child, 0, 0);
    wait_stop(child, "step");
  }
  debug_register(child, 7, 0);
  ptrace(PTRACE_CONT, child, 0, 0);
  wait_stop(child, "int3");
  debug_register(child, 1, (ulong)&watched[0]);
  debug_register(child, 7, 4 | 0x00900000); /* DR1: writes of 8 bytes */
  for (int n = 0; n < 3; n++) {
    ptrace(PTRACE_CONT, child, 0, 0);
    wait_stop(child, "written");
    printf("  it holds %ld\n", ptrace(PTRACE_PEEKDATA, child, &watched[0], 0));
  }
  debug_register(child, 7, 0);
  ptrace(PTRACE_CONT, child, 0, 0);
  wait_stop(child, "end");
  child = fork();
  if (child == 0) traced_child();
  wait_stop(child, "stopped");
  debug_register(child, 2, (ulong)traced_end);
  debug_register(child, 7, 0x10);
  int calls = 0, status;
  for (;;) {
    ptrace(PTRACE_SYSCALL, child, 0, 0);
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
    ptrace(PTRACE_GETREGS, child, 0, &r);
    if (r.rip == (ulong)traced_end) break;
    calls++;
  }
  printf("  stops until the second breakpoint: %d\n", calls);
  ptrace(PTRACE_KILL, child, 0, 0);
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
}

/* --- contexts ---------------------------------------------------------------------------------------------------------- */

static ucontext_t first, second;
static void other(int a, int b) {
  printf("  in the other context: %d %d\n", a, b);
  unsigned mxcsr = 0x5f80;
  CODE("ldmxcsr %0" : : "m"(mxcsr));
  swapcontext(&second, &first);
  CODE("stmxcsr %0" : "=m"(mxcsr));
  printf("  and again, mxcsr %x\n", mxcsr);
}
static void contexts(void) {
  static char stack[65536];
  printf("contexts\n");
  getcontext(&second);
  second.uc_stack.ss_sp = stack;
  second.uc_stack.ss_size = sizeof stack;
  second.uc_link = &first;
  makecontext(&second, (void (*)(void))other, 2, 17, -4);
  unsigned mxcsr;
  swapcontext(&first, &second);
  CODE("stmxcsr %0" : "=m"(mxcsr));
  printf("  back, mxcsr %x\n", mxcsr);
  swapcontext(&first, &second);
  printf("  back for good\n");
  volatile int times = 0;
  getcontext(&first);
  if (times++ < 3) setcontext(&first);
  printf("  setcontext came back %d times\n", times - 1);
}

/* A frame whose segments are changed by its handler. */
static void bad_frame(int signal, siginfo_t *info, void *context) {
  (void)signal; (void)info;
  ucontext_t *uc = context;
  if (count == 0) uc->uc_mcontext.gregs[REG_CSGSFS] = (uc->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffull) | 0x7fb;
  else if (count == 1) uc->uc_mcontext.gregs[REG_RIP] = 0x900000000000;
  else uc->uc_mcontext.gregs[REG_EFL] |= 0x3000 | 0x4000 | 0x20000 | 0x100000;
}
static void frames(void) {
  all_faults();
  on(SIGUSR1, bad_frame, 0);
  for (int n = 0; n < 3; n++) {
    printf("a frame that is bad in way %d\n", n);
    fflush(stdout);
    if (!sigsetjmp(back, 1)) {
      count = n;
      raise(SIGUSR1);
      ulong flags;
      CODE("pushf; pop %0" : "=r"(flags));
      printf("  went on with flags %lx\n", flags & 0x137000);
    }
  }
}

/* Vector state of two processes on one CPU. */
static void switching(void) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  sched_setaffinity(0, sizeof one, &one);
  int bad = 0, status;
  pid_t child = fork();
  unsigned char mine = child == 0 ? 0x11 : 0xee;
  __m256i pattern = _mm256_set1_epi8((char)mine), got;
  for (int n = 0; n < 300; n++) {
    long double deep = mine;
    CODE("vmovdqu %2,%%ymm14; fldt %3; mov $24,%%eax; syscall; vmovdqu %%ymm14,%0; fstpt %1"
         : "=m"(got), "=m"(deep) : "m"(pattern), "m"(deep) : "rax", "rcx", "r11", "xmm14", "memory");
    if (memcmp(&got, &pattern, 32) || deep != mine) bad++;
  }
  if (child == 0) _exit(bad);
  waitpid(child, &status, 0);
  printf("vector state over 300 switches: wrong %d and %d\n", bad, WEXITSTATUS(status));
}

/* Code that a program writes for itself. */
static void written_code(void) {
  unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int wrong = 0;
  code[0] = 0xb8;
  code[5] = 0xc3;
  for (int n = 0; n < 2000; n++) {
    memcpy(code + 1, &n, 4);
    if (((int (*)(void))code)() != n) wrong++;
  }
  /* It changes the instruction right behind: inc dword [rip+1]; mov eax,imm32; ret */
  static const unsigned char self[] = {0xff, 0x05, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3};
  memcpy(code, self, sizeof self);
  for (int n = 1; n < 500; n++)
    if (((int (*)(void))code)() != n) wrong++;
  printf("code written as it runs: wrong %d\n", wrong);
}

int main(int argc, char **argv) {
  (void)argv;
  all = argc > 1;
  setvbuf(stdout, 0, _IOLBF, 0);
  faults();
  float_faults();
  signal_state();
  stacks();
  traps();
  segments();
  tracing();
  contexts();
  frames();
  switching();
  written_code();
  printf("end\n");
  return 0;
}
