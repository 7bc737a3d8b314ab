/* What several shards cost, beside the same work by hand, in one run with the same servers.
 * ./shards SECONDS ROUNDS PORT PORT PORT PORT
 *
 * GET and SET (9 to 1) of 64 bytes from 64 threads: one client over four shards, beside four clients whose keys the program knows. MGET
 * of 100 keys over the four: one call, beside four MGETs that are written to four plain sockets at the same time. And what it takes to
 * find a key's shard. The rounds are interleaved; medians and ratios are printed.
 *
 * The MGETs are measured twice: alone, and right after the 64 threads, when the machine is warm. Where the scheduler has put the four
 * servers changes both sides by a third, so one run says little: scripts/bench-shards takes the median of several, each with new servers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <vigie.h>

enum { SHARDS = 4, THREADS = 64, KEYS = 4096, SIZE = 64, MANY = 100, MOST = 99, CALLS = 2000 };

static vigie_client *by_hand[SHARDS], *sharded;
static char keys[KEYS][16];
static int shard_of[KEYS];
static char value[SIZE];
static atomic_int stop;
static int ports[SHARDS], sockets[SHARDS];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check(vigie_status status, vigie_error **err, const char *what) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s: %s\n", what, vigie_error_message(*err));
  exit(1);
}

static void one(vigie_client *client, const char *key, int writes) {
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  const char *argv[] = {writes ? "SET" : "GET", key, value};
  const size_t lens[] = {3, strlen(key), SIZE};
  check(vigie_cmd_exec(client, writes ? 3 : 2, argv, lens, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err), &err, argv[0]);
  vigie_reply_free(reply);
}

struct work {
  int shards;
  unsigned seed;
  long done;
};

static void *work(void *arg) {
  struct work *w = arg;
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
    unsigned r = w->seed = w->seed * 1103515245u + 12345u;
    int k = (int)(r >> 8) % KEYS;
    one(w->shards ? sharded : by_hand[shard_of[k]], keys[k], (r >> 24) % 10 == 0);
    w->done++;
  }
  return NULL;
}

static double rate(int shards, double seconds) {
  static struct work all[THREADS];
  pthread_t threads[THREADS];
  long done = 0;
  double begun = now();
  atomic_store(&stop, 0);
  for (int i = 0; i < THREADS; i++) {
    all[i] = (struct work){shards, (unsigned)i * 7919u + 1u, 0};
    pthread_create(&threads[i], NULL, work, &all[i]);
  }
  usleep((unsigned)(seconds * 1e6));
  atomic_store(&stop, 1);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    done += all[i].done;
  }
  return (double)done / (now() - begun);
}

static int compare(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static double median(double *all, int count) {
  qsort(all, (size_t)count, sizeof *all, compare);
  return all[count / 2];
}

static int dial(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) exit(1);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

/* The MGET of 100 keys: microseconds of one, on average over CALLS of them. */
static double mget_by_shards(void) {
  const char *argv[MANY + 1] = {"MGET"};
  size_t lens[MANY + 1] = {4};
  double begun;
  for (int i = 0; i < MANY; i++) {
    argv[i + 1] = keys[i];
    lens[i + 1] = strlen(keys[i]);
  }
  begun = now();
  for (int n = 0; n < CALLS; n++) {
    vigie_reply *reply = NULL;
    vigie_error *err = NULL;
    check(vigie_cmd_exec(sharded, MANY + 1, argv, lens, VIGIE_CALL_ON_PRIMARY, VIGIE_TIMEOUT_DEFAULT, &reply, &err), &err, "MGET");
    if (vigie_reply_count(reply, VIGIE_ROOT) != MANY) exit(1);
    vigie_reply_free(reply);
  }
  return (now() - begun) / CALLS * 1e6;
}

static double mget_by_hand(void) {
  static char requests[SHARDS][MANY * 32], answer[MANY * (SIZE + 16)];
  size_t lens[SHARDS];
  int counts[SHARDS] = {0};
  double begun;
  for (int i = 0; i < MANY; i++) counts[shard_of[i]]++;
  for (int s = 0; s < SHARDS; s++) {
    int at = sprintf(requests[s], "*%d\r\n$4\r\nMGET\r\n", counts[s] + 1);
    for (int i = 0; i < MANY; i++)
      if (shard_of[i] == s) at += sprintf(requests[s] + at, "$%zu\r\n%s\r\n", strlen(keys[i]), keys[i]);
    lens[s] = (size_t)at;
  }
  begun = now();
  for (int n = 0; n < CALLS; n++) {
    for (int s = 0; s < SHARDS; s++)
      if (write(sockets[s], requests[s], lens[s]) != (ssize_t)lens[s]) exit(1);
    for (int s = 0; s < SHARDS; s++) {
      char head[16];
      size_t wanted = (size_t)sprintf(head, "*%d\r\n", counts[s]) + (size_t)counts[s] * (5 + SIZE + 2), got = 0;
      while (got < wanted) {
        ssize_t more = read(sockets[s], answer + got, sizeof answer - got);
        if (more <= 0) exit(1);
        got += (size_t)more;
      }
    }
  }
  return (now() - begun) / CALLS * 1e6;
}

static double find_shard(void) {
  enum { FINDS = 2000000 };
  double begun = now();
  long sum = 0;
  for (int n = 0; n < FINDS; n++) sum += vigie_client_shard_of(sharded, keys[n % KEYS], 8);
  if (sum < 0) exit(1);
  return (now() - begun) / FINDS * 1e9;
}

int main(int argc, char **argv) {
  double seconds, hand[MOST], shards[MOST], plain[2][MOST], mget[2][MOST], find[MOST];
  char texts[SHARDS][96];
  const char *all[SHARDS];
  vigie_error *err = NULL;
  int rounds;
  if (argc != 3 + SHARDS || (rounds = atoi(argv[2])) < 1 || rounds > MOST) return 2;
  seconds = atof(argv[1]);
  memset(value, 'v', SIZE);
  for (int s = 0; s < SHARDS; s++) {
    vigie_config *config = vigie_config_new();
    vigie_sentinel *sentinel = NULL;
    char uri[64];
    ports[s] = atoi(argv[3 + s]);
    sockets[s] = dial(ports[s]);
    snprintf(uri, sizeof uri, "redis://127.0.0.1:%d", ports[s]);
    snprintf(texts[s], sizeof texts[s], "node_%d=%s", s + 1, uri);
    all[s] = texts[s];
    check(vigie_config_set(config, "uri", uri, &err), &err, "uri");
    check(vigie_sentinel_create(config, 0, &sentinel, &err), &err, "create");
    check(vigie_primary_for(sentinel, NULL, NULL, &by_hand[s], &err), &err, "primary");
  }
  check(vigie_shards_for(NULL, all, SHARDS, NULL, &sharded, &err), &err, "shards");
  for (int k = 0; k < KEYS; k++) {
    snprintf(keys[k], sizeof keys[k], "key:%04d", k);
    shard_of[k] = vigie_client_shard_of(sharded, keys[k], strlen(keys[k]));
    one(sharded, keys[k], 1);
  }
  for (int r = 0; r < rounds; r++) {
    plain[0][r] = mget_by_hand();
    mget[0][r] = mget_by_shards();
    find[r] = find_shard();
  }
  for (int r = 0; r < rounds; r++) {
    hand[r] = rate(0, seconds);
    shards[r] = rate(1, seconds);
    plain[1][r] = mget_by_hand();
    mget[1][r] = mget_by_shards();
  }
  printf("%d rounds of %.1f s, %d threads, medians\n", rounds, seconds, THREADS);
  double h = median(hand, rounds), s = median(shards, rounds);
  printf("GET and SET, 4 clients by hand: %8.0f calls/s\n", h);
  printf("GET and SET, over 4 shards:     %8.0f calls/s   ratio %.3f (at least 0.9)\n", s, s / h);
  for (int loaded = 0; loaded < 2; loaded++) {
    const char *when = loaded ? "after load" : "alone";
    double p = median(plain[loaded], rounds), m = median(mget[loaded], rounds);
    printf("MGET of 100 by hand, %-10s  %8.1f us\n", when, p);
    printf("MGET of 100 by vigie, %-10s %8.1f us        ratio %.2f (at most 1.2)\n", when, m, m / p);
  }
  printf("vigie_client_shard_of:          %8.1f ns        (under 50)\n", median(find, rounds));
  return 0;
}
