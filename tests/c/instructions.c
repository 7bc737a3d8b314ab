/* What tests/instructions.rs counts: `measured` is what the program does for its commands, whichever way they go. */
#include "common.h"
#include <pthread.h>

enum { WINDOW = 256, WARM = 4 };
#define KEY "instructions"
#define CHANNEL "news"
#define VALUE "0123456789012345678901234567890123456789012345678901234567890123"

static vigie_client *client;
static vigie_queue *queue;
static vigie_sub *sub;
static const void *batch;
static size_t batch_len;

/* One call after the other. */
static void exec(int commands) {
  for (int i = 0; i < commands; i++) {
    vigie_error *error = NULL;
    vigie_reply *reply = NULL;
    size_t len = 0;
    vigie_status got = vigie_cmd_exec(client, VIGIE_CMD("GET", KEY), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error);
    CHECK(got == VIGIE_OK && vigie_reply_bytes(reply, VIGIE_ROOT, &len) != NULL && len == sizeof VALUE - 1);
    vigie_reply_free(reply);
  }
}

/* Writes that a replica has before they count as done. */
static void durable(int commands) {
  for (int i = 0; i < commands; i++) {
    vigie_error *error = NULL;
    vigie_reply *reply = NULL;
    vigie_status got =
        vigie_cmd_exec(client, VIGIE_CMD("SET", KEY, VALUE), VIGIE_CALL_REPLICAS(1), VIGIE_TIMEOUT_DEFAULT, &reply, &error);
    CHECK(got == VIGIE_OK);
    vigie_reply_free(reply);
  }
}

/* A write and a read as one transaction. */
static void atomic(int commands) {
  vigie_batch *list = vigie_batch_new();
  size_t len = 0;
  vigie_batch_add(list, VIGIE_CMD("SET", KEY, VALUE));
  vigie_batch_add(list, VIGIE_CMD("GET", KEY));
  const void *data = vigie_batch_data(list, &len);
  for (int i = 0; i < commands; i++) {
    vigie_error *error = NULL;
    vigie_reply *reply = NULL;
    CHECK(vigie_cmds_exec(client, data, len, VIGIE_CALL_ATOMIC, VIGIE_TIMEOUT_DEFAULT, &reply, &error) == VIGIE_OK);
    vigie_reply_free(reply);
  }
  vigie_batch_free(list);
}

/* A window of commands in one call, and their completions taken as they come. */
static void submit(int commands) {
  static vigie_event events[WINDOW];
  for (int i = 0; i < commands; i += WINDOW) {
    vigie_error *error = NULL;
    CHECK(vigie_cmds_submit(client, batch, batch_len, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue, 0, &error) == VIGIE_OK);
    for (int seen = 0; seen < WINDOW;) {
      int32_t count = vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, WINDOW);
      CHECK(count > 0);
      for (int32_t at = 0; at < count; at++) {
        CHECK(events[at].status == VIGIE_OK && events[at].nodes->len == sizeof VALUE - 1);
      }
      vigie_events_clear(events, (size_t)count);
      seen += count;
    }
  }
}

/* Messages of a subscription, which come while they are taken. */
static void messages(int commands) {
  static vigie_event events[WINDOW];
  static int seen; /* Those that came with the last ones of before count for what follows. */
  while (seen < commands) {
    int32_t count = vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, WINDOW);
    CHECK(count > 0);
    for (int32_t at = 0; at < count; at++) seen += events[at].kind == VIGIE_EVENT_MESSAGE;
    vigie_events_clear(events, (size_t)count);
  }
  seen -= commands;
}

/* The other side of `messages`, on a thread of its own, which is not counted. */
static void *publish(void *arg) {
  vigie_batch *list = vigie_batch_new();
  size_t len = 0;
  for (int i = 0; i < WINDOW; i++) vigie_batch_add(list, VIGIE_CMD("PUBLISH", CHANNEL, VALUE));
  const void *data = vigie_batch_data(list, &len);
  for (int left = *(int *)arg; left > 0; left -= WINDOW) {
    vigie_error *error = NULL;
    vigie_reply *reply = NULL;
    CHECK(vigie_cmds_exec(client, data, len, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error) == VIGIE_OK);
    vigie_reply_free(reply);
  }
  vigie_batch_free(list);
  return NULL;
}

static vigie_client *primary(vigie_sentinel *sentinel) { return open_primary(sentinel); }

static vigie_client *split(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_client *opened = NULL;
  GIVES(VIGIE_OK, vigie_split_for(sentinel, service(), NULL, &opened, &error));
  return opened;
}

static vigie_client *replica(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_client *opened = NULL;
  GIVES(VIGIE_OK, vigie_replica_for(sentinel, service(), NULL, &opened, &error));
  return opened;
}

static vigie_client *shards(vigie_sentinel *sentinel) {
  char texts[2][128];
  const char *const all[] = {texts[0], texts[1]};
  vigie_error *error = NULL;
  vigie_client *opened = NULL;
  snprintf(texts[0], sizeof texts[0], "node_1=sentinel:%s", service());
  snprintf(texts[1], sizeof texts[1], "node_2=sentinel:%s", environment("VIGIE_TEST_OTHER_SERVICE"));
  GIVES(VIGIE_OK, vigie_shards_for(sentinel, all, 2, NULL, &opened, &error));
  return opened;
}

static void measured(void (*way)(int), int commands) { way(commands); }

static const struct kind {
  const char *name;
  vigie_client *(*open)(vigie_sentinel *);
  void (*way)(int);
} KINDS[] = {
    {"exec", primary, exec},   {"submit", primary, submit}, {"split", split, exec},       {"replica", replica, exec},
    {"tls", primary, exec},    {"shard", shards, exec},     {"atomic", primary, atomic},  {"durable", primary, durable},
    {"message", primary, messages},
};

static const struct kind *kind_of(const char *name) {
  for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
    if (strcmp(KINDS[i].name, name) == 0) return &KINDS[i];
  return NULL;
}

int main(int argc, char **argv) {
  vigie_error *error = NULL;
  const struct kind *kind = argc == 3 ? kind_of(argv[1]) : NULL;
  CHECK(kind != NULL);
  int commands = atoi(argv[2]), with_warm = commands + WARM * WINDOW;
  vigie_sentinel *sentinel = open_sentinel();
  vigie_batch *list = vigie_batch_new();
  pthread_t publisher;
  client = kind->open(sentinel);
  for (int i = 0; i < WINDOW; i++) vigie_batch_add(list, VIGIE_CMD("GET", KEY));
  batch = vigie_batch_data(list, &batch_len);
  GIVES(VIGIE_OK, vigie_queue_create(WINDOW, &queue, &error));
  /* What only reads from replicas finds the value there: its deployment has it already. */
  if (kind->open != replica) vigie_reply_free(RUN(client, "SET", KEY, VALUE));
  if (kind->way == messages) {
    GIVES(VIGIE_OK, vigie_sub_for(client, queue, 1, NULL, &sub, &error));
    GIVES(VIGIE_OK, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", CHANNEL), VIGIE_TIMEOUT_DEFAULT, &error));
    CHECK(pthread_create(&publisher, NULL, publish, &with_warm) == 0);
  }
  kind->way(WARM * WINDOW);
  measured(kind->way, commands);
  if (sub != NULL) CHECK(pthread_join(publisher, NULL) == 0);
  vigie_sub_free(sub);
  vigie_queue_free(queue);
  vigie_batch_free(list);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
