/*
 * A kernel of its own (multiboot, 32 bits) that starts all CPUs and tries what memory may do between them: litmus tests
 * of the order of loads and stores (SDM 3A, 9.2), cross-modifying code (9.1.3), locked operations (9.1.2). Prints a
 * line a test: its name, how often it was tried and how often it came out as it must not. Then port 0xf4 gets 0.
 */
typedef unsigned int u32;
typedef unsigned long long u64;

#define SLOTS 4096
/* How long a CPU waits for another at a slot: those that wait for a host's core may not come. */
#define PATIENCE 200
#define LINE 16 /* words of a cache line */
#ifndef ROUNDS
#define ROUNDS 12
#endif

static inline void out8(unsigned short port, unsigned char value) { __asm__ volatile("outb %0,%1" : : "a"(value), "Nd"(port)); }
static void put(const char *text) { while (*text) out8(0x3f8, *text++); }
static void number(u32 value) {
  char digits[12];
  int n = 11;
  digits[n] = 0;
  do digits[--n] = '0' + value % 10; while ((value /= 10) != 0);
  put(digits + n);
}

static volatile u32 x[SLOTS * LINE], y[SLOTS * LINE];
static volatile u32 seen[4][2][SLOTS];
/* Who has come to which slot in which round. */
static volatile u32 there[4][SLOTS * LINE];
static volatile u32 arrived[2], released[2], awake, phase;
static u32 cpus;

static inline u32 add(volatile u32 *at, u32 value) {
  __asm__ volatile("lock xaddl %0,%1" : "+r"(value), "+m"(*at) : : "memory");
  return value;
}
static inline void relax(void) { __asm__ volatile("pause" : : : "memory"); }

/* `count` CPUs meet; those who take part in a test have a place of their own. */
static void meet_at(u32 place, u32 count) {
  u32 mine = released[place];
  if (add(&arrived[place], 1) + 1 == count) {
    arrived[place] = 0;
    released[place] = mine + 1;
  } else
    while (released[place] == mine) relax();
}
static void meet(u32 count) { meet_at(0, count); }
static void meet_all(void) { meet_at(1, cpus); }

static inline void wait_a_little(u32 n) { for (volatile u32 k = 0; k < n; k++); }

#define STORE(to) __asm__ volatile("movl $1,%0" : "=m"(to) : : "memory")
#define LOAD(value, from) __asm__ volatile("movl %1,%0" : "=r"(value) : "m"(from) : "memory")
#define FENCE() __asm__ volatile("mfence" : : : "memory")
#define LOCKED() __asm__ volatile("lock orl $0,(%%esp)" : : : "memory", "cc")
#define EXCHANGE(to) do { u32 one = 1; __asm__ volatile("xchgl %0,%1" : "+r"(one), "+m"(to) : : "memory"); } while (0)

enum { SB, SB_MFENCE, SB_LOCK, SB_XCHG, MP, LB, CORR, R_MFENCE, WRC, IRIW, TESTS };
static const char *const names[TESTS] = {"SB", "SB+mfence", "SB+lock", "SB+xchg", "MP", "LB", "CoRR", "R+mfence", "WRC", "IRIW"};
static const u32 needs[TESTS] = {2, 2, 2, 2, 2, 2, 2, 2, 3, 4};

/* What CPU `me` does with one slot. */
#define EACH(body)                                                                              \
  for (u32 n = 0; n < SLOTS; n++) {                                                             \
    u32 at = n * LINE, a = 0, b = 0;                                                            \
    there[me][at] = round;                                                                      \
    for (u32 k = 0; k < PATIENCE && there[other][at] != round; k++);                            \
    body;                                                                                       \
    seen[me][0][n] = a;                                                                         \
    seen[me][1][n] = b;                                                                         \
  }
static void act(u32 test, u32 me, u32 round) {
  u32 other = (me + 1) % needs[test];
  switch (test) {
    case SB: if (me) EACH(STORE(y[at]); LOAD(a, x[at])) else EACH(STORE(x[at]); LOAD(a, y[at])) break;
    case SB_MFENCE: if (me) EACH(STORE(y[at]); FENCE(); LOAD(a, x[at])) else EACH(STORE(x[at]); FENCE(); LOAD(a, y[at])) break;
    case SB_LOCK: if (me) EACH(STORE(y[at]); LOCKED(); LOAD(a, x[at])) else EACH(STORE(x[at]); LOCKED(); LOAD(a, y[at])) break;
    case SB_XCHG: if (me) EACH(EXCHANGE(y[at]); LOAD(a, x[at])) else EACH(EXCHANGE(x[at]); LOAD(a, y[at])) break;
    case MP: if (me) EACH(LOAD(a, y[at]); LOAD(b, x[at])) else EACH(STORE(x[at]); STORE(y[at])) break;
    case LB: if (me) EACH(LOAD(a, y[at]); STORE(x[at])) else EACH(LOAD(a, x[at]); STORE(y[at])) break;
    case CORR: if (me) EACH(LOAD(a, x[at]); LOAD(b, x[at])) else EACH(STORE(x[at])) break;
    /* Both write y: if the second wrote it last, it also sees what the first wrote before. */
    case R_MFENCE:
      if (me) EACH(__asm__ volatile("movl $2,%0" : "=m"(y[at]) : : "memory"); FENCE(); LOAD(a, x[at]))
      else EACH(STORE(x[at]); STORE(y[at]))
      break;
    case WRC:
      if (me == 0) EACH(STORE(x[at]))
      else if (me == 1) EACH(LOAD(a, x[at]); if (a) STORE(y[at]))
      else EACH(LOAD(a, y[at]); LOAD(b, x[at]))
      break;
    case IRIW:
      if (me == 0) EACH(STORE(x[at]))
      else if (me == 1) EACH(STORE(y[at]))
      else if (me == 2) EACH(LOAD(a, x[at]); LOAD(b, y[at]))
      else EACH(LOAD(a, y[at]); LOAD(b, x[at]))
      break;
  }
}

/* Whether a slot came out as it must not; of SB, as it may. */
static int relaxed(u32 test, u32 n) {
  u32 a0 = seen[0][0][n], a1 = seen[1][0][n], b1 = seen[1][1][n];
  switch (test) {
    case SB: case SB_MFENCE: case SB_LOCK: case SB_XCHG: return a0 == 0 && a1 == 0;
    case MP: return a1 == 1 && b1 == 0;
    case LB: return a0 == 1 && a1 == 1;
    case CORR: return a1 == 1 && b1 == 0;
    case R_MFENCE: return a1 == 0 && y[n * LINE] == 2;
    case WRC: return seen[2][0][n] == 1 && seen[2][1][n] == 0;
    case IRIW: return seen[2][0][n] == 1 && seen[2][1][n] == 0 && seen[3][0][n] == 1 && seen[3][1][n] == 0;
  }
  return 0;
}

static void litmus(u32 test, u32 me) {
  u32 bad = 0, count = needs[test];
  if (cpus < count || me >= count) return;
  for (u32 round = 0; round < ROUNDS; round++) {
    if (me == 0) for (u32 n = 0; n < SLOTS; n++) x[n * LINE] = y[n * LINE] = 0;
    meet(count);
    /* Who begins first differs from round to round. */
    wait_a_little((round * 7 + me * 13) % 32);
    act(test, me, test * ROUNDS + round + 1);
    meet(count);
    if (me == 0) for (u32 n = 0; n < SLOTS; n++) bad += relaxed(test, n);
  }
  if (me == 0) {
    put(names[test]);
    put(" tried ");
    number(ROUNDS * SLOTS);
    put(" relaxed ");
    number(bad);
    put("\n");
  }
}

/* `mov eax, imm32; ret`, with the number at an aligned address. */
static unsigned char code[4096] __attribute__((aligned(4096)));
static volatile u32 turn, stop;
#define PATCHES 3000

static void cross_modify(u32 me) {
  u32 (*function)(void) = (u32(*)(void))(code + 3);
  volatile u32 *value = (volatile u32 *)(code + 4);
  u32 bad = 0;
  if (me >= 2 || cpus < 2) return;
  if (me == 0) {
    code[3] = 0xb8;
    code[8] = 0xc3;
    *value = 0;
    turn = 0;
  }
  meet(2);
  if (me == 0) {
    for (u32 n = 1; n <= PATCHES; n++) {
      *value = n;
      turn = n;
      while (turn != 0) relax();
    }
  } else {
    for (u32 n = 1; n <= PATCHES; n++) {
      while (turn != n) relax();
      u32 a = 0, c = 0;
      __asm__ volatile("cpuid" : "+a"(a), "+c"(c) : : "ebx", "edx", "memory");
      if (function() != n) bad++;
      turn = 0;
    }
    put("cross-modified tried ");
    number(PATCHES);
    put(" wrong ");
    number(bad);
    put("\n");
  }
  meet(2);
  /* Without a word between them: what runs is some number that was there, and never an older one again. */
  bad = 0;
  if (me == 0) {
    *value = 0;
    stop = 0;
  }
  meet(2);
  if (me == 0) {
    for (u32 n = 1; n <= PATCHES; n++) {
      *value = n;
      wait_a_little(20);
    }
    stop = 1;
  } else {
    u32 last = 0, calls = 0;
    while (!stop) {
      u32 now = function();
      if (now < last || now > PATCHES) bad++;
      last = now;
      calls++;
    }
    u32 a = 0, c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "+c"(c) : : "ebx", "edx", "memory");
    if (function() != PATCHES) bad++;
    put("patched under way wrong ");
    number(bad);
    put("\n");
  }
  meet(2);
}

static unsigned char cells[3 * 4096] __attribute__((aligned(4096)));
#define ADDS 20000

static void locked(u32 me, u32 offset, const char *name) {
  volatile u32 *at = (volatile u32 *)(cells + offset);
  volatile u64 *wide = (volatile u64 *)(cells + offset + 4096);
  u32 two = cpus < 2 ? cpus : 2;
  if (me >= two) return;
  if (me == 0) {
    *at = 0;
    *wide = 0;
  }
  meet(two);
  for (u32 n = 0; n < ADDS; n++) {
    __asm__ volatile("lock incl %0" : "+m"(*at) : : "memory", "cc");
    add(at, 3);
    u64 old = *wide;
    u32 done = 0;
    while (!done) {
      u64 next = old + 0x100000001ull;
      __asm__ volatile("lock cmpxchg8b %1; sete %b2"
                       : "+A"(old), "+m"(*wide), "=q"(done)
                       : "b"((u32)next), "c"((u32)(next >> 32))
                       : "memory", "cc");
      done &= 1;
    }
  }
  meet(two);
  if (me == 0) {
    u32 wanted = two * ADDS;
    put("locked ");
    put(name);
    put(*at == wanted * 4 && *wide == wanted * 0x100000001ull ? " good\n" : " LOST\n");
  }
}

void run(u32 me) {
  for (u32 test = 0; test < TESTS; test++) {
    meet_all();
    litmus(test, me);
  }
  meet_all();
  cross_modify(me);
  meet_all();
  locked(me, 0, "aligned");
  locked(me, 1, "not aligned");
  locked(me, 62, "across lines");
  locked(me, 4094, "across pages");
  meet_all();
}

void ap(void) {
  u32 me = add(&awake, 1) + 1;
  while (phase == 0) relax();
  run(me);
  for (;;) __asm__ volatile("cli; hlt");
}

extern char trampoline[], trampoline_end[];
static volatile u32 *const apic = (volatile u32 *)0xfee00000;

void boot(void) {
  for (char *from = trampoline, *to = (char *)0x8000; from < trampoline_end;) *to++ = *from++;
  apic[0xf0 / 4] = 0x1ff;
  apic[0x300 / 4] = 0xc4500;
  wait_a_little(100000);
  apic[0x300 / 4] = 0xc4608;
  /* Those that come within a while count. */
  for (u32 n = 0, last = 0; n < 60; n++) {
    wait_a_little(300000);
    if (awake != last) n = 0;
    last = awake;
    if (awake + 1 == EXPECTED) break;
  }
  cpus = awake + 1;
  put("cpus ");
  number(cpus);
  put("\n");
  phase = 1;
  run(0);
  put("done\n");
  out8(0xf4, 0);
  for (;;) __asm__ volatile("cli; hlt");
}

__asm__(
    ".section .boot,\"ax\"\n"
    ".align 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n"
    "_start: movl $stacks_end, %esp\n"
    "  call boot\n"
    "1: hlt\n  jmp 1b\n"
    ".globl trampoline, trampoline_end\n"
    ".code16\n"
    "trampoline: cli\n"
    "  xorw %ax, %ax\n  movw %ax, %ds\n"
    "  lgdtl 0x8000 + table - trampoline\n"
    "  movl %cr0, %eax\n  orb $1, %al\n  movl %eax, %cr0\n"
    "  ljmpl $8, $enter\n"
    ".align 4\n"
    "table: .word 23\n  .long 0x8000 + gdt - trampoline\n"
    ".align 8\n"
    "gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
    "trampoline_end:\n"
    ".code32\n"
    "enter: movw $16, %ax\n  movw %ax, %ds\n  movw %ax, %es\n  movw %ax, %ss\n"
    "  movl $4096, %eax\n"
    "  lock xaddl %eax, next_stack\n"
    "  leal stacks(%eax), %esp\n"
    "  call ap\n"
    ".section .data\n"
    "next_stack: .long 4096\n"
    ".section .bss\n"
    ".align 4096\n"
    "stacks: .skip 65536\n"
    "stacks_end:\n"
    ".text\n");
