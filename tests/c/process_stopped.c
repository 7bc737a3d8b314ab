/* A process that is stopped for a while (SIGSTOP by the runner), with calls in flight that are answered meanwhile: it looks at its sockets before
 * it judges. The runner is told on stdout when to stop it, and tells on stdin when it goes on. */
#include "common.h"

#include <pthread.h>
#include <unistd.h>

/* Calls whose own time is over after the stop, and calls that have time left. */
enum { SHORT = 1, LONG = 6, SHORT_MS = 3000, LONG_MS = 60000 };

static vigie_client *client;
static vigie_status ended[SHORT + LONG];

static void *write_one(void *at) {
  size_t number = (size_t)(intptr_t)at;
  char key[32];
  vigie_error *error = NULL;
  snprintf(key, sizeof key, "stopped:%zu", number);
  ended[number] = vigie_cmd_exec(client, VIGIE_CMD("SET", key, "v"), 0, number < SHORT ? SHORT_MS : LONG_MS, NULL, &error);
  if (ended[number] != VIGIE_OK) fprintf(stderr, "call %zu: %s\n", number, vigie_error_message(error));
  vigie_error_free(error);
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

int main(void) {
  const uint32_t kinds = VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_FENCE | VIGIE_EVENT_DEGRADED | VIGIE_EVENT_SENTINEL;
  pthread_t threads[SHORT + LONG], blocking;
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
  client = open_primary(sentinel);
  vigie_reply_free(RUN(client, "DEL", "stopped:list"));
  const char *submitted = "*3\r\n$3\r\nSET\r\n$17\r\nstopped:submitted\r\n$1\r\nv\r\n";
  GIVES(VIGIE_OK, vigie_cmds_submit(client, submitted, strlen(submitted), VIGIE_CALL_EACH, LONG_MS, calls, 1, &error));
  CHECK(vigie_queue_drain(calls, LONG_MS, &event, 1) == 1 && event.status == VIGIE_OK);
  vigie_events_clear(&event, 1);
  CHECK(pthread_create(&blocking, NULL, block, NULL) == 0);
  tell("open");
  await_runner();

  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, kinds, told, 0, &error));
  GIVES(VIGIE_OK, vigie_cmds_submit(client, submitted, strlen(submitted), VIGIE_CALL_EACH, LONG_MS, calls, 2, &error));
  for (size_t i = 0; i < SHORT + LONG; i++) {
    CHECK(pthread_create(&threads[i], NULL, write_one, (void *)(intptr_t)i) == 0);
    /* The first one reads for all: the others come when its command has arrived. */
    if (i + 1 == SHORT) {
      tell("calling");
      await_runner();
    }
  }
  tell("all calling");
  await_runner();

  for (size_t i = 0; i < SHORT + LONG; i++) CHECK(pthread_join(threads[i], NULL) == 0 && ended[i] == VIGIE_OK);
  CHECK(pthread_join(blocking, NULL) == 0);
  CHECK(vigie_queue_drain(calls, LONG_MS, &event, 1) == 1 && event.status == VIGIE_OK);
  vigie_events_clear(&event, 1);
  /* What would be judged wrongly is judged within two rounds of PINGs. */
  int count = vigie_queue_drain(told, 4000, &event, 1);
  if (count > 0) fprintf(stderr, "an event of kind %u\n", (unsigned)event.kind);
  CHECK(count == 0);
  vigie_reply_free(RUN(client, "GET", "stopped:0"));
  tell("done");
  await_runner();
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_queue_free(calls);
  vigie_queue_free(told);
  vigie_config_free(config);
  return finish();
}
