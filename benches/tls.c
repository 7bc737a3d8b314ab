/* What TLS costs: vigie beside hiredis, each with TLS and without, in one run and against one server.
 * ./tls PORT TLS_PORT CA_FILE [MS [ROUNDS]]
 *
 * hiredis is its reader and its formatter, with OpenSSL around them as hiredis_ssl has it: receives of 16 KiB. Its plain connections are
 * its own. hiredis has a connection for each thread, vigie one handle for all. The rounds are interleaved, the first place in turn; ratios
 * are those of the medians. With BENCH_FIGURES set, they are also written to that file, for scripts/bench. */
#define _GNU_SOURCE
#include <hiredis/hiredis.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <vigie.h>

enum { KINDS = 4, CELLS = 2, MOST_ROUNDS = 99, MOST_THREADS = 64, CHUNK = 16 * 1024 };

/* The first two are vigie's; the odd ones have TLS. */
static const char *const names[KINDS] = {"vigie, plain", "vigie, TLS", "hiredis, plain", "hiredis, TLS"};
static const struct {
  const char *name, *key;
  size_t size;
  int threads;
} cells[CELLS] = {{"GET of 64 bytes, 64 threads", "small", 64, 64}, {"GET of 1 MiB, 1 thread", "large", 1 << 20, 1}};

static int ports[2];
static SSL_CTX *context;
static vigie_client *clients[2];
static atomic_int ready_count, stage;

typedef struct {
  int kind, cell;
  long count;
} job;

static void die(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* A connection of hiredis; `ssl` is NULL where it is plain. */
typedef struct {
  redisContext *c;
  SSL *ssl;
} wire;

static wire wire_open(int secured) {
  wire w = {redisConnect("127.0.0.1", ports[secured]), NULL};
  if (w.c == NULL || w.c->err) die("hiredis", "no connection");
  if (!secured) return w;
  w.ssl = SSL_new(context);
  if (SSL_set_fd(w.ssl, w.c->fd) != 1 || SSL_connect(w.ssl) != 1) die("OpenSSL", "no handshake");
  return w;
}

static redisReply *wire_get(wire *w, const char *key) {
  void *reply = NULL;
  if (w->ssl == NULL) return redisCommand(w->c, "GET %s", key);
  char *command, chunk[CHUNK];
  int length = redisFormatCommand(&command, "GET %s", key);
  if (SSL_write(w->ssl, command, length) != length) die("OpenSSL", "write");
  redisFreeCommand(command);
  while (redisReaderGetReply(w->c->reader, &reply) == REDIS_OK && reply == NULL) {
    int got = SSL_read(w->ssl, chunk, CHUNK);
    if (got <= 0 || redisReaderFeed(w->c->reader, chunk, (size_t)got) != REDIS_OK) die("OpenSSL", "read");
  }
  return reply;
}

static void wire_close(wire *w) {
  if (w->ssl != NULL) SSL_free(w->ssl);
  redisFree(w->c);
}

static void get_by_vigie(vigie_client *client, const char *key, size_t size) {
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  size_t length = 0;
  if (vigie_cmd_exec(client, VIGIE_CMD("GET", key), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK)
    die("vigie", vigie_error_message(err));
  if (vigie_reply_bytes(reply, VIGIE_ROOT, &length) == NULL || length != size) die("vigie", "another reply");
  vigie_reply_free(reply);
}

static void get_by_hiredis(wire *w, const char *key, size_t size) {
  redisReply *reply = wire_get(w, key);
  if (reply == NULL || reply->type != REDIS_REPLY_STRING || (size_t)reply->len != size) die("hiredis", "another reply");
  freeReplyObject(reply);
}

static void *work(void *arg) {
  job *j = arg;
  const char *key = cells[j->cell].key;
  size_t size = cells[j->cell].size;
  int secured = j->kind % 2, is_vigie = j->kind < 2;
  wire w = {NULL, NULL};
  if (!is_vigie) w = wire_open(secured);
  for (int i = 0; i < 2; i++) is_vigie ? get_by_vigie(clients[secured], key, size) : get_by_hiredis(&w, key, size);
  atomic_fetch_add(&ready_count, 1);
  struct timespec moment = {0, 200000};
  while (atomic_load(&stage) == 0) nanosleep(&moment, NULL);
  while (atomic_load_explicit(&stage, memory_order_relaxed) == 1) {
    is_vigie ? get_by_vigie(clients[secured], key, size) : get_by_hiredis(&w, key, size);
    j->count++;
  }
  if (!is_vigie) wire_close(&w);
  return NULL;
}

/* Operations a second, and processor time for each in microseconds. */
static void measure(int kind, int cell, double ms, double *speed, double *cost) {
  pthread_t threads[MOST_THREADS];
  static job jobs[MOST_THREADS];
  int count = cells[cell].threads;
  struct timespec moment = {0, 1000000};
  atomic_store(&ready_count, 0);
  atomic_store(&stage, 0);
  for (int i = 0; i < count; i++) {
    jobs[i] = (job){kind, cell, 0};
    if (pthread_create(&threads[i], NULL, work, &jobs[i]) != 0) die("thread", "none to be had");
  }
  while (atomic_load(&ready_count) < count) nanosleep(&moment, NULL);
  double began = now(), began_cpu = cpu();
  atomic_store(&stage, 1);
  while (now() - began < ms / 1000) nanosleep(&moment, NULL);
  atomic_store(&stage, 2);
  double wall = now() - began, used = cpu() - began_cpu;
  long done = 0;
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL), done += jobs[i].count;
  *speed = (double)done / wall;
  *cost = used * 1e6 / (double)(done > 0 ? done : 1);
}

static vigie_client *client_of(const char *uri) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_error *err = NULL;
  if (vigie_config_set(config, "uri", uri, &err) != VIGIE_OK || vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK ||
      vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK)
    die("vigie", vigie_error_message(err));
  vigie_config_free(config);
  vigie_sentinel_free(sentinel);
  return client;
}

static void prepare(const char *ca) {
  char uri[512];
  snprintf(uri, sizeof uri, "redis://127.0.0.1:%d", ports[0]);
  clients[0] = client_of(uri);
  snprintf(uri, sizeof uri, "rediss://127.0.0.1:%d?tls.ca=%s", ports[1], ca);
  clients[1] = client_of(uri);
  context = SSL_CTX_new(TLS_client_method());
  if (context == NULL || SSL_CTX_load_verify_locations(context, ca, NULL) != 1) die("OpenSSL", "no certificates");
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  wire w = wire_open(1);
  printf("%s, %s\n", SSL_get_version(w.ssl), SSL_get_cipher(w.ssl));
  wire_close(&w);
  w = wire_open(0);
  for (int cell = 0; cell < CELLS; cell++) {
    char *value = calloc(1, cells[cell].size);
    freeReplyObject(redisCommand(w.c, "SET %s %b", cells[cell].key, value, cells[cell].size));
    free(value);
  }
  wire_close(&w);
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_size);
  return values[count / 2];
}

static void tell(int cell, double speeds[KINDS][MOST_ROUNDS], double costs[KINDS][MOST_ROUNDS], int rounds) {
  double speed[KINDS], cost[KINDS];
  printf("%s\n", cells[cell].name);
  for (int kind = 0; kind < KINDS; kind++) {
    speed[kind] = median(speeds[kind], rounds), cost[kind] = median(costs[kind], rounds);
    printf("  %-16s %10.0f ops/s %10.2f us CPU\n", names[kind], speed[kind], cost[kind]);
  }
  double by_speed = speed[1] / speed[0] / (speed[3] / speed[2]);
  printf("  (vigie TLS / plain) / (hiredis TLS / plain): ops/s %.2f; CPU added by TLS, vigie to hiredis: %.2f\n", by_speed,
         (cost[1] - cost[0]) / (cost[3] - cost[2]));
  const char *file = getenv("BENCH_FIGURES");
  FILE *out = file != NULL ? fopen(file, "a") : NULL;
  if (out == NULL) return;
  fprintf(out, "%s: (vigie with TLS to plain) to (hiredis with TLS to plain)\t%.3f\t>= 0.95\n", cells[cell].name, by_speed);
  fclose(out);
}

int main(int argc, char **argv) {
  if (argc < 4) die("usage", "tls PORT TLS_PORT CA_FILE [MS [ROUNDS]]");
  double ms = argc > 4 ? atof(argv[4]) : 1000;
  int rounds = argc > 5 ? atoi(argv[5]) : 5;
  if (rounds < 1 || rounds > MOST_ROUNDS) die("usage", "1 to 99 rounds");
  ports[0] = atoi(argv[1]), ports[1] = atoi(argv[2]);
  prepare(argv[3]);
  static double speeds[CELLS][KINDS][MOST_ROUNDS], costs[CELLS][KINDS][MOST_ROUNDS];
  for (int round = 0; round < rounds; round++) {
    for (int cell = 0; cell < CELLS; cell++) {
      for (int i = 0; i < KINDS; i++) {
        int kind = (i + round) % KINDS;
        measure(kind, cell, ms, &speeds[cell][kind][round], &costs[cell][kind][round]);
      }
    }
  }
  for (int cell = 0; cell < CELLS; cell++) tell(cell, speeds[cell], costs[cell], rounds);
  return 0;
}
