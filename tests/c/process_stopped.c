/* A process that is stopped for a while (SIGSTOP by the runner), with calls in flight that are answered meanwhile: it looks at its sockets before
 * it judges. The runner is told on stdout when to stop it, and tells on stdin when it goes on. */
#include "common.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

/* One call that reads for all, and many whose own time is over after the stop. */
enum { FOLLOW = 32, SHORT_MS = 5000, LONG_MS = 60000 };

static vigie_client *client;
static vigie_status ended[1 + FOLLOW];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static size_t waiting, calling;
static int go;

/* Called with the lock. */
static void announce(size_t *count) {
  *count += 1;
  CHECK(pthread_cond_broadcast(&changed) == 0);
}

/* Until all who follow are there. */
static void await_all(const size_t *count) {
  CHECK(pthread_mutex_lock(&lock) == 0);
  while (*count < FOLLOW) CHECK(pthread_cond_wait(&changed, &lock) == 0);
  CHECK(pthread_mutex_unlock(&lock) == 0);
}

static void write_one(size_t number, int64_t timeout_ms) {
  char key[32];
  vigie_error *error = NULL;
  snprintf(key, sizeof key, "stopped:%zu", number);
  ended[number] = vigie_cmd_exec(client, VIGIE_CMD("SET", key, "v"), 0, timeout_ms, NULL, &error);
  if (ended[number] != VIGIE_OK) fprintf(stderr, "call %zu: %s\n", number, vigie_error_message(error));
  vigie_error_free(error);
}

static void *lead(void *none) {
  (void)none;
  write_one(0, LONG_MS);
  return NULL;
}

static void *follow(void *at) {
  CHECK(pthread_mutex_lock(&lock) == 0);
  announce(&waiting);
  while (!go) CHECK(pthread_cond_wait(&changed, &lock) == 0);
  announce(&calling);
  CHECK(pthread_mutex_unlock(&lock) == 0);
  write_one((size_t)(intptr_t)at, SHORT_MS);
  return NULL;
}

static void *block(void *none) {
  (void)none;
  vigie_reply *reply = RUN(client, "BLPOP", "stopped:list", "0");
  CHECK(text_is(reply, vigie_reply_child(reply, VIGIE_ROOT, 1), "pushed"));
  vigie_reply_free(reply);
  return NULL;
}

static void tell(const char *line) {
  puts(line);
  CHECK(fflush(stdout) == 0);
}

static void await_runner(void) {
  char line[16];
  CHECK(fgets(line, sizeof line, stdin) != NULL);
}

/* Until each Sentinel is listened to; what is told after that is told of the stop. */
static void await_listening(vigie_queue *told) {
  size_t missing = 1;
  for (const char *at = environment("VIGIE_TEST_SENTINELS"); *at != '\0'; at++) missing += *at == ',';
  while (missing > 0) {
    vigie_event event;
    CHECK(vigie_queue_drain(told, LONG_MS, &event, 1) == 1);
    uint32_t up = vigie_reply_find(event.reply, VIGIE_ROOT, "up", 2);
    missing -= event.kind == VIGIE_EVENT_SENTINEL && vigie_reply_int(event.reply, up, 0) == 1;
    vigie_events_clear(&event, 1);
  }
}

/* Calls that wait for replies on the shared connection. */
static int64_t in_flight(void) {
  vigie_reply *stats = NULL;
  vigie_error *error = NULL;
  GIVES(VIGIE_OK, vigie_client_stats(client, &stats, &error));
  uint32_t pools = vigie_reply_find(stats, VIGIE_ROOT, "pools", 5);
  uint32_t count = vigie_reply_find(stats, vigie_reply_child(stats, pools, 0), "in_flight", 9);
  int64_t all = vigie_reply_int(stats, count, 0);
  vigie_reply_free(stats);
  return all;
}

/* What would be judged wrongly is judged within two rounds of PINGs. */
static void expect_no_event(vigie_queue *told) {
  vigie_event event;
  int count = vigie_queue_drain(told, 4000, &event, 1);
  if (count > 0) fprintf(stderr, "an event of kind %u\n", (unsigned)event.kind);
  CHECK(count == 0);
}

static int end(vigie_sentinel *sentinel, vigie_queue *calls, vigie_queue *told, vigie_config *config) {
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_queue_free(calls);
  vigie_queue_free(told);
  vigie_config_free(config);
  return finish();
}

int main(void) {
  const uint32_t kinds = VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_FENCE | VIGIE_EVENT_DEGRADED | VIGIE_EVENT_SENTINEL;
  pthread_t followers[FOLLOW], leader, blocking;
  vigie_error *error = NULL;
  vigie_event event;
  vigie_queue *calls = NULL, *told = NULL;
  vigie_sentinel *sentinel = NULL;
  vigie_config *config = config_of_deployment();
  GIVES(VIGIE_OK, vigie_config_set(config, "client.name", "stopped", &error));
  /* A poll would ask over connections of its own. */
  GIVES(VIGIE_OK, vigie_config_set(config, "monitor.interval", "600000", &error));
  /* One lane: it carries what is overdue and what is not. */
  GIVES(VIGIE_OK, vigie_config_set(config, "lane.max", "1", &error));
  GIVES(VIGIE_OK, vigie_sentinel_create(config, LONG_MS, &sentinel, &error));
  GIVES(VIGIE_OK, vigie_queue_create(16, &calls, &error));
  GIVES(VIGIE_OK, vigie_queue_create(256, &told, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, kinds, told, 0, &error));
  client = open_primary(sentinel);
  vigie_reply_free(RUN(client, "DEL", "stopped:list"));
  if (environment_number("VIGIE_TEST_IDLE", 0)) {
    await_listening(told);
    tell("open");
    await_runner();
    expect_no_event(told);
    return end(sentinel, calls, told, config);
  }
  const char *submitted = "*3\r\n$3\r\nSET\r\n$17\r\nstopped:submitted\r\n$1\r\nv\r\n";
  GIVES(VIGIE_OK, vigie_cmds_submit(client, submitted, strlen(submitted), VIGIE_CALL_EACH, LONG_MS, calls, 1, &error));
  CHECK(vigie_queue_drain(calls, LONG_MS, &event, 1) == 1 && event.status == VIGIE_OK);
  vigie_events_clear(&event, 1);
  /* After a stop threads go on in the order in which they were begun: those that judge before the one that reads. */
  for (size_t i = 0; i < FOLLOW; i++) CHECK(pthread_create(&followers[i], NULL, follow, (void *)(intptr_t)(i + 1)) == 0);
  await_all(&waiting);
  await_listening(told);
  CHECK(pthread_create(&blocking, NULL, block, NULL) == 0);
  tell("open");
  await_runner();

  GIVES(VIGIE_OK, vigie_cmds_submit(client, submitted, strlen(submitted), VIGIE_CALL_EACH, LONG_MS, calls, 2, &error));
  CHECK(pthread_create(&leader, NULL, lead, NULL) == 0);
  tell("calling");
  await_runner();
  CHECK(pthread_mutex_lock(&lock) == 0);
  go = 1;
  CHECK(pthread_cond_broadcast(&changed) == 0 && pthread_mutex_unlock(&lock) == 0);
  await_all(&calling);
  /* What was not sent before the stop could not be answered meanwhile. */
  while (in_flight() < FOLLOW + 1) sched_yield();
  tell("all calling");
  await_runner();

  CHECK(pthread_join(leader, NULL) == 0 && ended[0] == VIGIE_OK);
  for (size_t i = 0; i < FOLLOW; i++) CHECK(pthread_join(followers[i], NULL) == 0 && ended[i + 1] == VIGIE_OK);
  CHECK(pthread_join(blocking, NULL) == 0);
  CHECK(vigie_queue_drain(calls, LONG_MS, &event, 1) == 1 && event.status == VIGIE_OK);
  vigie_events_clear(&event, 1);
  expect_no_event(told);
  vigie_reply_free(RUN(client, "GET", "stopped:0"));
  tell("done");
  await_runner();
  return end(sentinel, calls, told, config);
}
