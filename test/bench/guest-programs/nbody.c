/* Double-precision floating point of fixed work: bodies that attract each other, leapfrog steps. Prints the energy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BODIES 8

static double position[BODIES][3], velocity[BODIES][3], mass[BODIES];

static double energy(void) {
  double sum = 0;
  for (int i = 0; i < BODIES; i++) {
    double speed = 0;
    for (int k = 0; k < 3; k++) speed += velocity[i][k] * velocity[i][k];
    sum += 0.5 * mass[i] * speed;
    for (int j = i + 1; j < BODIES; j++) {
      double square = 0.01;
      for (int k = 0; k < 3; k++) square += (position[i][k] - position[j][k]) * (position[i][k] - position[j][k]);
      sum -= mass[i] * mass[j] / sqrt(square);
    }
  }
  return sum;
}

int main(int count, char **words) {
  int steps = count > 1 ? atoi(words[1]) : 100000;
  const double dt = 0.0005;
  for (int i = 0; i < BODIES; i++) {
    mass[i] = 1.0 / (i + 1);
    for (int k = 0; k < 3; k++) {
      position[i][k] = (i * 7 + k * 13) % 11 - 5.0;
      velocity[i][k] = ((i * 5 + k * 3) % 7 - 3.0) / 10;
    }
  }
  for (int step = 0; step < steps; step++) {
    for (int i = 0; i < BODIES; i++)
      for (int j = i + 1; j < BODIES; j++) {
        double d[3], square = 0.01;
        for (int k = 0; k < 3; k++) {
          d[k] = position[j][k] - position[i][k];
          square += d[k] * d[k];
        }
        double pull = dt / (square * sqrt(square));
        for (int k = 0; k < 3; k++) {
          velocity[i][k] += d[k] * mass[j] * pull;
          velocity[j][k] -= d[k] * mass[i] * pull;
        }
      }
    for (int i = 0; i < BODIES; i++)
      for (int k = 0; k < 3; k++) position[i][k] += velocity[i][k] * dt;
  }
  printf("%.9f\n", energy());
  return 0;
}
