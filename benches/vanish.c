/* vanish URI SERVICES ROUNDS COMMAND: what a host that vanishes costs a healthy service in the same process. The URI names the healthy
 * service; its Sentinels watch gone0, gone1, ... too, whose primaries are on one host. COMMAND makes that host vanish. Before and after
 * it, in each of ROUNDS: a discovery of the healthy service, a submitted SET there, and a submitted call that a timer of 20 ms ends.
 * A thread for each lost service calls all the time, and submits. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <vigie.h>

#define TIMER_MS 20

static const char set[] = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
static volatile int over;

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void rest(int ms) {
  struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
  nanosleep(&pause, NULL);
}

static void check(vigie_status status, vigie_error **error, const char *what) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s: %s\n", what, vigie_error_message(*error));
  exit(1);
}

static vigie_sentinel *handle(const char *uri) {
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = NULL;
  vigie_config *config = vigie_config_new();
  check(vigie_config_set(config, "uri", uri, &error), &error, "the URI");
  check(vigie_sentinel_create(config, 0, &sentinel, &error), &error, "the Sentinels");
  vigie_config_free(config);
  return sentinel;
}

static vigie_client *client_of(vigie_sentinel *sentinel, const char *service) {
  vigie_error *error = NULL;
  vigie_client *client = NULL;
  check(vigie_primary_for(sentinel, service, NULL, &client, &error), &error, "a client");
  return client;
}

static vigie_queue *queue_of(size_t capacity) {
  vigie_error *error = NULL;
  vigie_queue *queue = NULL;
  check(vigie_queue_create(capacity, &queue, &error), &error, "a queue");
  return queue;
}

/* Submits a SET, waits for its end; its status. An error is told where it must not be. */
static vigie_status submit(vigie_client *client, vigie_queue *queue, int64_t timeout_ms, int must) {
  vigie_error *error = NULL;
  vigie_event event;
  check(vigie_cmds_submit(client, set, sizeof set - 1, 0, timeout_ms, queue, 1, &error), &error, "a submit");
  if (vigie_queue_drain(queue, 60000, &event, 1) != 1) {
    fprintf(stderr, "a submitted SET does not end\n");
    exit(1);
  }
  vigie_status status = event.status;
  if (must) check(status, &event.error, "a submitted SET");
  vigie_events_clear(&event, 1);
  return status;
}

static void *call_lost(void *client) {
  vigie_queue *queue = queue_of(1);
  while (!over) {
    vigie_reply *reply = NULL;
    vigie_error *error = NULL;
    if (vigie_cmd_exec(client, VIGIE_CMD("PING"), 0, 500, &reply, &error) == VIGIE_OK) vigie_reply_free(reply);
    vigie_error_free(error);
    submit(client, queue, 500, 0);
    rest(1);
  }
  vigie_queue_free(queue);
  return NULL;
}

static int by_size(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static void tell(const char *when, const char *what, double *times, int rounds) {
  qsort(times, (size_t)rounds, sizeof *times, by_size);
  printf("%-7s %-22s median %8.2f ms, 95 %% %8.2f, last %8.2f\n", when, what, times[rounds / 2], times[rounds * 95 / 100],
         times[rounds - 1]);
  fflush(stdout);
}

static void measure(const char *when, vigie_sentinel *sentinel, vigie_client *healthy, vigie_client *silent, int rounds) {
  vigie_queue *queue = queue_of(16);
  double *times[3];
  for (int at = 0; at < 3; at++) times[at] = calloc((size_t)rounds, sizeof **times);
  for (int round = 0; round < rounds; round++) {
    vigie_error *error = NULL;
    vigie_reply *reply = NULL;
    double start = now_ms();
    check(vigie_sentinel_refresh(sentinel, "mymaster", 60000, &reply, &error), &error, "a discovery");
    times[0][round] = now_ms() - start;
    vigie_reply_free(reply);
    start = now_ms();
    submit(healthy, queue, 60000, 1);
    times[1][round] = now_ms() - start;
    start = now_ms();
    if (submit(silent, queue, TIMER_MS, 0) == VIGIE_OK) exit(1);
    times[2][round] = now_ms() - start - TIMER_MS;
    rest(20);
  }
  tell(when, "discovery", times[0], rounds);
  tell(when, "submitted SET", times[1], rounds);
  tell(when, "timer, late by", times[2], rounds);
  for (int at = 0; at < 3; at++) free(times[at]);
  vigie_queue_free(queue);
}

/* A listener that never accepts: calls through it wait until their time is over. */
static vigie_client *never_served(void) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof addr;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&addr, size) != 0 || listen(listener, 4096) != 0) exit(1);
  if (getsockname(listener, (struct sockaddr *)&addr, &size) != 0) exit(1);
  char uri[96];
  snprintf(uri, sizeof uri, "redis-sentinel://127.0.0.1:%d/silent?timeout.sentinel=600s", ntohs(addr.sin_port));
  return client_of(handle(uri), NULL);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int services = atoi(argv[2]), rounds = atoi(argv[3]);
  vigie_sentinel *sentinel = handle(argv[1]);
  vigie_client *healthy = client_of(sentinel, NULL), *silent = never_served();
  vigie_queue *queue = queue_of(1);
  for (int at = 0; at < services; at++) {
    char name[32];
    pthread_t thread;
    snprintf(name, sizeof name, "gone%d", at);
    vigie_client *lost = client_of(sentinel, name);
    submit(lost, queue, 10000, 1);
    if (pthread_create(&thread, NULL, call_lost, lost) != 0) return 1;
  }
  submit(healthy, queue, 10000, 1);
  measure("before", sentinel, healthy, silent, rounds);
  if (system(argv[4]) != 0) return 1;
  measure("after", sentinel, healthy, silent, rounds);
  over = 1;
  return 0; /* the system takes back what is left */
}
