/* What a message costs its subscriber: vigie beside hiredis, in one run, with the same server and the same publisher.
 * ./pubsub PORT URI [MESSAGES] [ROUNDS]
 *
 * The subscriber is a process of its own, on one processor; its processor time is that of the process, library threads included. One
 * connection publishes MESSAGES of 64 bytes as fast as the server takes them. The rounds are interleaved, and the medians are printed. */
#define _GNU_SOURCE
#include <hiredis/hiredis.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vigie.h>

enum { SIZE = 64, BATCH = 500, ROOM = 1024, KINDS = 3, MOST_ROUNDS = 99, PACKED = 1 << 20 };

typedef struct {
  long count;
  double wall, cpu;
} figures;

static const char *const names[KINDS] = {"vigie, structs", "vigie, packed", "hiredis"};

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

static void die(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

/* Counts the messages of a connection of hiredis; READY is called once it is subscribed. */
static long with_hiredis(int port, long wanted, void (*ready)(int), int to) {
  redisContext *c = redisConnect("127.0.0.1", port);
  redisReply *reply = redisCommand(c, "SUBSCRIBE flood");
  if (c->err || reply == NULL) die("hiredis", c->errstr);
  freeReplyObject(reply);
  ready(to);
  long count = 0;
  while (count < wanted) {
    if (redisGetReply(c, (void **)&reply) != REDIS_OK) die("hiredis", c->errstr);
    count += reply->elements == 3 && reply->element[2]->len == SIZE;
    freeReplyObject(reply);
  }
  redisFree(c);
  return count;
}

static long with_vigie(const char *uri, int packed, long wanted, void (*ready)(int), int to) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_queue *queue = NULL;
  vigie_sub *sub = NULL;
  vigie_error *err = NULL;
  static vigie_event events[ROOM];
  static char buf[PACKED];
  long count = 0;
  if (vigie_config_set(config, "uri", uri, &err) != VIGIE_OK || vigie_config_set(config, "sub.max_messages", "1000000000", &err) != VIGIE_OK ||
      vigie_config_set(config, "sub.max_bytes", "1000000000000", &err) != VIGIE_OK ||
      vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK || vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK ||
      vigie_queue_create(16, &queue, &err) != VIGIE_OK || vigie_sub_for(client, queue, 1, NULL, &sub, &err) != VIGIE_OK ||
      vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "flood"), 5000, &err) != VIGIE_OK)
    die("vigie", vigie_error_message(err));
  int32_t n = vigie_queue_drain(queue, 0, events, ROOM);
  vigie_events_clear(events, n > 0 ? (size_t)n : 0);
  ready(to);
  while (count < wanted) {
    if (packed) {
      size_t used = 0;
      n = vigie_queue_drain_packed(queue, 10000, buf, sizeof buf, &used);
      if (n <= 0) die("vigie", "no message came");
      for (size_t at = 0; at < used;) {
        const vigie_packed_event *event = (const vigie_packed_event *)(const void *)(buf + at);
        if (event->kind != VIGIE_EVENT_MESSAGE || event->status != VIGIE_OK) die("vigie", "another event");
        count += (&event->root)[3].len == SIZE;
        at += event->size;
      }
    } else {
      n = vigie_queue_drain(queue, 10000, events, ROOM);
      if (n <= 0) die("vigie", "no message came");
      for (int32_t i = 0; i < n; i++) {
        if (events[i].kind != VIGIE_EVENT_MESSAGE || events[i].status != VIGIE_OK) die("vigie", "another event");
        count += events[i].nodes[3].len == SIZE;
      }
      vigie_events_clear(events, (size_t)n);
    }
  }
  vigie_sub_free(sub);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return count;
}

static double began_wall, began_cpu;

static void ready(int to) {
  began_wall = now();
  began_cpu = cpu();
  if (write(to, "r", 1) != 1) die("pipe", "write");
}

/* Publishes so many messages, in batches: the server's answers are read before the next batch. */
static void publish(int port, long wanted) {
  static char text[SIZE + 1];
  memset(text, 'x', SIZE);
  redisContext *c = redisConnect("127.0.0.1", port);
  if (c == NULL || c->err) die("publisher", "connect");
  for (long sent = 0; sent < wanted; sent += BATCH) {
    for (int i = 0; i < BATCH; i++) redisAppendCommand(c, "PUBLISH flood %b", text, (size_t)SIZE);
    for (int i = 0; i < BATCH; i++) {
      redisReply *reply = NULL;
      if (redisGetReply(c, (void **)&reply) != REDIS_OK || reply->integer != 1) die("publisher", "not one receiver");
      freeReplyObject(reply);
    }
  }
  redisFree(c);
}

static figures round_of(int kind, int port, const char *uri, long wanted) {
  int out[2], in[2];
  if (pipe(out) != 0 || pipe(in) != 0) die("pipe", "no descriptor");
  pid_t child = fork();
  if (child == 0) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof one, &one);
    long count = kind == 2 ? with_hiredis(port, wanted, ready, out[1]) : with_vigie(uri, kind == 1, wanted, ready, out[1]);
    figures f = {count, now() - began_wall, cpu() - began_cpu};
    _exit(write(in[1], &f, sizeof f) != sizeof f);
  }
  char byte;
  if (read(out[0], &byte, 1) != 1) die("subscriber", "it ended");
  publish(port, wanted);
  figures f;
  if (read(in[0], &f, sizeof f) != sizeof f) die("subscriber", "it ended");
  waitpid(child, NULL, 0);
  close(out[0]), close(out[1]), close(in[0]), close(in[1]);
  return f;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc < 3) die("usage", "pubsub PORT URI [MESSAGES] [ROUNDS]");
  int port = atoi(argv[1]), rounds = argc > 4 ? atoi(argv[4]) : 5;
  long wanted = argc > 3 ? atol(argv[3]) : 500000;
  static double cpus[KINDS][MOST_ROUNDS], walls[KINDS][MOST_ROUNDS];
  redisContext *c = redisConnect("127.0.0.1", port);
  freeReplyObject(redisCommand(c, "CONFIG SET client-output-buffer-limit %s", "pubsub 0 0 0"));
  redisFree(c);
  if (rounds < 1 || rounds > MOST_ROUNDS) die("usage", "1 to 99 rounds");
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < KINDS; i++) {
      int kind = (i + round) % KINDS;
      figures f = round_of(kind, port, argv[2], wanted);
      cpus[kind][round] = (double)f.count / f.cpu;
      walls[kind][round] = (double)f.count / f.wall;
    }
  }
  printf("%ld messages of %d bytes, %d rounds, the subscriber on one processor\n", wanted, SIZE, rounds);
  printf("%-16s %18s %24s\n", "", "messages/s", "messages/s of its CPU");
  for (int kind = 0; kind < KINDS; kind++) {
    qsort(cpus[kind], (size_t)rounds, sizeof(double), by_size);
    qsort(walls[kind], (size_t)rounds, sizeof(double), by_size);
    printf("%-16s %18.0f %24.0f\n", names[kind], walls[kind][rounds / 2], cpus[kind][rounds / 2]);
  }
  return 0;
}
