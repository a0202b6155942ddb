/*
 * 32-bit programs: system calls by INT 80H and by the way that the kernel offers (SYSENTER or SYSCALL), signals and
 * their frames, thread segments, fork, faults. No C library; what is printed is the same on any x86 Linux.
 */
typedef unsigned int u32;

static u32 vsyscall;

static int call80(int n, u32 a, u32 b, u32 c, u32 d) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
  return result;
}
static int call(int n, u32 a, u32 b, u32 c, u32 d) {
  int result;
  __asm__ volatile("call *%1" : "=a"(result) : "m"(vsyscall), "a"(n), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
  return result;
}
static u32 length(const char *text) {
  u32 n = 0;
  while (text[n]) n++;
  return n;
}
static void put(const char *text) { call(4, 1, (u32)text, length(text), 0); }
static void hex(u32 value) {
  char digits[9];
  for (int n = 0; n < 8; n++) digits[n] = "0123456789abcdef"[value >> (28 - 4 * n) & 15];
  digits[8] = 0;
  put(digits);
}
static void say(const char *what, u32 value) {
  put(what);
  put(" ");
  hex(value);
  put("\n");
}

struct action { void *handler; u32 flags; void *restorer; u32 mask[2]; };
struct segment { u32 entry, base, limit, bits; };
static u32 jump[6];
static u32 thread[4] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};

/* A frame of sigaction without SA_SIGINFO: struct sigcontext_32 behind the number. */
static void handler(int signal, u32 gs_, u32 fs_, u32 es_, u32 ds_, u32 edi, u32 esi, u32 ebp, u32 esp, u32 ebx, u32 edx, u32 ecx,
                    u32 eax, u32 trap, u32 error, u32 eip, u32 cs, u32 flags, u32 sp, u32 ss, u32 *fp) {
  (void)gs_, (void)fs_, (void)es_, (void)ds_, (void)edi, (void)esi, (void)ebp, (void)esp, (void)ebx, (void)edx, (void)ecx, (void)eax, (void)eip, (void)flags, (void)sp;
  say("signal", signal);
  if (signal != 10) {
    say("  trap", trap);
    say("  error", error);
    say("  cs", cs & 3);
    say("  ss", ss & 3);
    __builtin_longjmp((void **)jump, 1);
  }
  say("  fpu control", fp ? fp[0] & 0xffff : 0);
  __asm__ volatile("fninit; xorps %%xmm2,%%xmm2" ::: "xmm2");
}

#define TRY(name, text)                              \
  do {                                               \
    put(name "\n");                                  \
    if (!__builtin_setjmp((void **)jump)) {          \
      __asm__ volatile(text ::: "eax", "edx", "memory", "cc"); \
      put("  no fault\n");                           \
    }                                                \
  } while (0)

void start(u32 *stack) {
  u32 argc = stack[0];
  u32 *at = stack + argc + 2;
  while (*at++);
  for (; at[0] != 0; at += 2)
    if (at[0] == 32) vsyscall = at[1];
  put("32-bit program\n");
  say("offered", vsyscall != 0);
  say("getpid both ways", call(20, 0, 0, 0, 0) == call80(20, 0, 0, 0, 0));
  say("none such", call(9999, 0, 0, 0, 0));
  int same = 0;
  for (int n = 0; n < 20000; n++) same += call(20, 0, 0, 0, 0) == call80(20, 0, 0, 0, 0);
  say("as often", same);

  for (const int *s = (const int[]){4, 5, 7, 8, 10, 11, 0}; *s; s++) {
    struct action a = {(void *)handler, 0x40000000, 0, {0, 0}};
    call(174, *s, (u32)&a, 0, 8);
  }
  unsigned short control = 0x27f, after;
  float in[4] __attribute__((aligned(16))) = {1.5f, 2.5f, 3.5f, 4.5f}, out[4] __attribute__((aligned(16)));
  __asm__ volatile("fninit; fldcw %0; movaps %1,%%xmm2" : : "m"(control), "m"(in[0]) : "xmm2");
  call80(37, call80(20, 0, 0, 0, 0), 10, 0, 0);
  __asm__ volatile("fnstcw %0; movaps %%xmm2,%1; fninit" : "=m"(after), "=m"(out[0]));
  say("fpu control after", after);
  say("xmm2 after", out[0] == 1.5f && out[3] == 4.5f);

  struct segment s = {(u32)-1, (u32)thread, 15, 0x51};
  say("set_thread_area", call(243, (u32)&s, 0, 0, 0));
  u32 value = s.entry * 8 + 3, got;
  __asm__ volatile("mov %w1,%%gs; mov %%gs:8,%0" : "=r"(got) : "r"(value));
  say("thread word", got);
  TRY("beyond the segment", "mov %%gs:16,%%eax");
  TRY("ud2", "ud2");
  TRY("int3", "int3");
  TRY("into", "movl $0x7fffffff,%%eax; incl %%eax; into");
  TRY("divide", "xorl %%edx,%%edx; divl %%edx");
  TRY("null", "movl %%eax,0");
  TRY("kernel", "movl 0xffff0000,%%eax");
  TRY("hlt", "hlt");
  TRY("sldt of nothing", "movl $0x7ff,%%eax; mov %%ax,%%ds");
  __asm__ volatile("mov %%ss,%%eax; mov %%eax,%%ds; mov %%eax,%%es" ::: "eax");
  TRY("far return to the kernel", "pushl $0x10; pushl $0; lret");
  int child = call(2, 0, 0, 0, 0);
  if (child == 0) call(1, thread[0] == 0x11111111 ? 33 : 34, 0, 0, 0);
  u32 status = 0;
  call(7, child, (u32)&status, 0, 0);
  say("child", status);
  put("end\n");
  call(1, 0, 0, 0, 0);
}
__asm__(".globl _start\n_start: movl %esp,%eax; andl $-16,%esp; subl $12,%esp; pushl %eax; call start; hlt");
