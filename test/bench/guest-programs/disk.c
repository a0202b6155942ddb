/*
 * disk DEVICE MIB SECONDS: writes and reads so many MiB in order, in requests of 1 MiB past the page cache, then reads and
 * writes 4 KiB at random places with 32 requests under way (Linux AIO), for so many seconds each. Prints MiB/s and operations
 * a second.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 32, SMALL = 4096, LARGE = 1 << 20 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double sequential(int fd, char *buffer, long mib, int writing) {
  double start = now();
  for (long n = 0; n < mib; n++) {
    ssize_t got = writing ? pwrite(fd, buffer, LARGE, n * LARGE) : pread(fd, buffer, LARGE, n * LARGE);
    if (got != LARGE) die("sequential");
  }
  if (writing && fsync(fd) != 0) die("fsync");
  return mib / (now() - start);
}

static double at_random(int fd, char *buffer, long mib, double seconds, int writing) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, DEPTH, &context) != 0) die("io_setup");
  struct iocb blocks[DEPTH];
  unsigned seed = 1;
  long done = 0;
  double start = now();
  int under_way = 0;
  struct io_event events[DEPTH];
  for (int i = 0; i < DEPTH; i++) events[i].obj = (unsigned long)&blocks[i];
  int ready = DEPTH;
  for (;;) {
    int more = now() - start < seconds;
    struct iocb *list[DEPTH];
    int count = 0;
    for (int i = 0; more && i < ready; i++) {
      struct iocb *block = (struct iocb *)(unsigned long)events[i].obj;
      long slot = block - blocks;
      seed = seed * 1664525 + 1013904223;
      memset(block, 0, sizeof *block);
      block->aio_lio_opcode = writing ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
      block->aio_fildes = fd;
      block->aio_buf = (unsigned long)(buffer + slot * SMALL);
      block->aio_nbytes = SMALL;
      block->aio_offset = (long long)((seed >> 4) % (mib * (LARGE / SMALL))) * SMALL;
      list[count++] = block;
    }
    if (count > 0 && syscall(SYS_io_submit, context, count, list) != count) die("io_submit");
    under_way += count;
    if (under_way == 0) break;
    ready = syscall(SYS_io_getevents, context, 1, DEPTH, events, NULL);
    if (ready < 1) die("io_getevents");
    for (int i = 0; i < ready; i++)
      if (events[i].res != SMALL) die("a request");
    under_way -= ready;
    done += ready;
  }
  double taken = now() - start;
  if (writing && fsync(fd) != 0) die("fsync");
  syscall(SYS_io_destroy, context);
  return done / taken;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  long mib = atol(argv[2]);
  double seconds = atof(argv[3]);
  char *buffer;
  if (posix_memalign((void **)&buffer, LARGE, LARGE) != 0) die("memory");
  for (int i = 0; i < LARGE; i++) buffer[i] = i * 31 + (i >> 12);
  int fd = open(argv[1], O_RDWR | O_DIRECT);
  if (fd < 0) die(argv[1]);
  sequential(fd, buffer, mib, 1); /* all of it has storage from here on */
  printf("BENCH write %.1f\n", sequential(fd, buffer, mib, 1));
  printf("BENCH read %.1f\n", sequential(fd, buffer, mib, 0));
  printf("BENCH randread %.0f\n", at_random(fd, buffer, mib, seconds, 0));
  printf("BENCH randwrite %.0f\n", at_random(fd, buffer, mib, seconds, 1));
  return 0;
}
