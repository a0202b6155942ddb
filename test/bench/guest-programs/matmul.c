/* Double-precision matrix products of fixed size by the plain triple loop. Prints a checksum. */
#include <stdio.h>
#include <stdlib.h>

#define SIZE 200

static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];

int main(int count, char **words) {
  int rounds = count > 1 ? atoi(words[1]) : 10;
  for (int i = 0; i < SIZE; i++)
    for (int j = 0; j < SIZE; j++) {
      a[i][j] = (i * 7 + j * 3) % 17 / 7.0 - 1.1;
      b[i][j] = (i * 5 + j * 11) % 13 / 3.0 - 1.9;
    }
  double sum = 0;
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < SIZE; i++)
      for (int j = 0; j < SIZE; j++) {
        double dot = 0;
        for (int k = 0; k < SIZE; k++) dot += a[i][k] * b[k][j];
        c[i][j] = dot;
      }
    for (int i = 0; i < SIZE; i++)
      for (int j = 0; j < SIZE; j++) sum += c[i][j] * (i + 1) / (j + 1);
    /* The next product is of other numbers. */
    a[round % SIZE][0] += sum * 1e-9;
  }
  printf("%.6f\n", sum);
  return 0;
}
