/* A byte goes to another process and back through two pipes, as often as asked: system calls and task switches. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
  int turns = count > 1 ? atoi(words[1]) : 10000, there[2], back[2], sum = 0;
  unsigned char byte = 1;
  if (pipe(there) != 0 || pipe(back) != 0) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &byte, 1) == 1) {
      byte = byte * 5 + 3;
      if (write(back[1], &byte, 1) != 1) return 1;
    }
    return 0;
  }
  for (int i = 0; i < turns; i++) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) return 1;
    sum = (sum + byte) % 65521;
  }
  close(there[1]);
  int status;
  waitpid(child, &status, 0);
  printf("%d %d\n", sum, status);
  return 0;
}
