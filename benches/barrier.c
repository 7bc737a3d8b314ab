/* What one block and one wake of a thread cost on this machine, with no network at all: the bound of every blocking call that another
 * thread ends. N threads meet at a barrier again and again; the last one wakes the others with one system call.
 * cc -O2 -Wall -Wextra benches/barrier.c -lpthread -o build/barrier && build/barrier 64 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024 };

static int threads;
static long rounds;
static atomic_uint generation, arrived;

static void *run(void *unused) {
  (void)unused;
  for (long round = 0; round < rounds; round++) {
    unsigned mine = atomic_load(&generation);
    if (atomic_fetch_add(&arrived, 1) + 1 == (unsigned)threads) {
      atomic_store(&arrived, 0);
      atomic_fetch_add(&generation, 1);
      syscall(SYS_futex, &generation, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    } else {
      while (atomic_load(&generation) == mine) syscall(SYS_futex, &generation, FUTEX_WAIT_PRIVATE, mine, NULL, NULL, 0);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t thread[MOST];
  struct timespec from, to;
  struct rusage used;
  threads = argc > 1 ? atoi(argv[1]) : 64;
  if (threads < 2 || threads > MOST) return 2;
  rounds = 1000000 / threads;
  clock_gettime(CLOCK_MONOTONIC, &from);
  for (int i = 0; i < threads; i++)
    if (pthread_create(&thread[i], NULL, run, NULL) != 0) return 1;
  for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
  clock_gettime(CLOCK_MONOTONIC, &to);
  getrusage(RUSAGE_SELF, &used);
  double wall = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
  double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  double waits = (double)rounds * threads;
  printf("%d threads: %.0f waits a second, %.2f us of CPU each\n", threads, waits / wall, cpu / waits * 1e6);
  return 0;
}
