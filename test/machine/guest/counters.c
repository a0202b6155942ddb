/*
 * Performance counters as Linux uses them: prints facts that hold on any processor whose counters are exact. What is
 * measured lies between two ioctls of this process, so kernel work is told apart by privilege.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_counter(uint64_t config, int user, int kernel, uint64_t period) {
  struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE, .size = sizeof attr, .config = config, .disabled = 1};
  attr.exclude_user = !user;
  attr.exclude_kernel = !kernel;
  attr.exclude_hv = 1;
  attr.pinned = 1;
  if (period) {
    attr.sample_period = period;
    attr.wakeup_events = 1;
  }
  int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
  if (fd < 0) {
    printf("perf_event_open: %s\n", strerror(errno));
    exit(1);
  }
  return fd;
}

static uint64_t value(int fd) {
  uint64_t count = 0;
  if (read(fd, &count, sizeof count) != sizeof count) printf("not counted\n");
  return count;
}

static void loop(uint64_t times) {
  __asm__ volatile("1: dec %0; jnz 1b" : "+r"(times)::"cc");
}

static uint64_t measure(int fd, uint64_t times) {
  ioctl(fd, PERF_EVENT_IOC_RESET, 0);
  ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
  loop(times);
  ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
  return value(fd);
}

static volatile int signals;
static void on_signal(int signal) {
  (void)signal;
  signals++;
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  int instructions = open_counter(PERF_COUNT_HW_INSTRUCTIONS, 1, 0, 0);
  measure(instructions, 10);
  uint64_t few = measure(instructions, 10), many = measure(instructions, 10000010);
  /* An interrupt's return counts for the program on some processors. */
  printf("instructions of 10 million rounds: %s\n", many - few == 20000000 ? "exact" : "differ");
  if (many - few != 20000000) printf("  by %ld\n", (long)(many - few - 20000000));
  printf("the same again: %s\n", measure(instructions, 10) == few ? "yes" : "no");

  int kernel = open_counter(PERF_COUNT_HW_INSTRUCTIONS, 0, 1, 0);
  ioctl(kernel, PERF_EVENT_IOC_ENABLE, 0);
  for (int n = 0; n < 1000; n++) syscall(SYS_getppid);
  ioctl(kernel, PERF_EVENT_IOC_DISABLE, 0);
  uint64_t calls = value(kernel);
  printf("the kernel's part of 1000 calls: %s\n", calls > 20000 && calls < 5000000 ? "some" : "none or too much");

  int cycles = open_counter(PERF_COUNT_HW_CPU_CYCLES, 1, 1, 0);
  int reference = open_counter(PERF_COUNT_HW_REF_CPU_CYCLES, 1, 1, 0);
  ioctl(reference, PERF_EVENT_IOC_ENABLE, 0);
  uint64_t ticks = measure(cycles, 10000000);
  printf("cycles: %s, reference: %s\n", ticks > 100000 ? "counted" : "none", value(reference) > 100000 ? "counted" : "none");

  /* A signal each million instructions. */
  int sampled = open_counter(PERF_COUNT_HW_INSTRUCTIONS, 1, 0, 1000000);
  mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, sampled, 0);
  signal(SIGIO, on_signal);
  fcntl(sampled, F_SETFL, O_ASYNC | O_NONBLOCK);
  fcntl(sampled, F_SETOWN, getpid());
  ioctl(sampled, PERF_EVENT_IOC_ENABLE, 0);
  for (int n = 0; n < 200 && signals < 3; n++) loop(5000000);
  ioctl(sampled, PERF_EVENT_IOC_DISABLE, 0);
  printf("overflows: %s\n", signals >= 3 ? "signalled" : "none");
  printf("end\n");
  return 0;
}
