/* How much stack the calls take: each runs on a thread whose stack was painted before. What the thread itself takes is measured too. */
#include "common.h"

#include <pthread.h>
#include <stdint.h>

enum { STACK = 512 * 1024, PAINT = 0xA5 };

static vigie_config *config;
static vigie_sentinel *sentinel;
static vigie_client *client, *replica, *session;
static vigie_queue *queue;
static char large[100000];

static vigie_status run(vigie_client *on, size_t argc, const char *const *argv, const size_t *argvlen, uint32_t flags) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  vigie_status status = vigie_cmd_exec(on, argc, argv, argvlen, flags, 20000, &reply, &error);
  if (reply != NULL) {
    vigie_reply *json = NULL;
    CHECK(vigie_reply_json(reply, &json, &error) == VIGIE_OK);
    vigie_reply_free(json);
  }
  vigie_reply_free(reply);
  vigie_error_free(error);
  return status;
}

static void nothing(void) {}
static void create(void) {
  vigie_error *error = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_create(config, 20000, &sentinel, &error));
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, service(), NULL, &client, &error));
  GIVES(VIGIE_OK, vigie_split_for(sentinel, service(), NULL, &replica, &error));
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &session, &error));
  GIVES(VIGIE_OK, vigie_queue_create(100, &queue, &error));
}
static void first(void) { CHECK(run(client, VIGIE_CMD("SET", "stack", "v"), 0) == VIGIE_OK); }
static void get(void) { CHECK(run(client, VIGIE_CMD("GET", "stack"), 0) == VIGIE_OK); }
static void read_elsewhere(void) { CHECK(run(replica, VIGIE_CMD("GET", "stack"), 0) == VIGIE_OK); }
static void set_large(void) { CHECK(run(client, VIGIE_CMD("SET", "stack:large", large), 0) == VIGIE_OK); }
static void get_large(void) { CHECK(run(client, VIGIE_CMD("GET", "stack:large"), 0) == VIGIE_OK); }
static void wrong(void) { CHECK(run(client, VIGIE_CMD("NONSENSE"), 0) == VIGIE_ERR_SERVER); }
static void block(void) { CHECK(run(client, VIGIE_CMD("BLPOP", "stack:none", "0.01"), 0) == VIGIE_OK); }
static void watch(void) { CHECK(run(session, VIGIE_CMD("WATCH", "stack"), 0) == VIGIE_OK); }
static void wait_for_replicas(void) { CHECK(run(client, VIGIE_CMD("SET", "stack", "w"), VIGIE_CALL_REPLICAS(1)) == VIGIE_OK); }
static void script(void) { CHECK(run(client, VIGIE_CMD("EVAL", "return {1,{2,{3}}}", "0"), 0) == VIGIE_OK); }
static void submit(void) {
  vigie_error *error = NULL;
  vigie_event event;
  vigie_batch *batch = vigie_batch_new();
  vigie_batch_add(batch, VIGIE_CMD("GET", "stack"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "stack"));
  GIVES(VIGIE_OK, vigie_batch_exec(client, batch, 0, 20000, NULL, &error));
  GIVES(VIGIE_OK, vigie_batch_submit(client, batch, 0, 20000, queue, 1, &error));
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1);
  vigie_events_clear(&event, 1);
  vigie_batch_free(batch);
}
static void ask(void) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_refresh(sentinel, service(), 20000, &reply, &error));
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_client_stats(client, &reply, &error));
  vigie_reply_free(reply);
}
static void end(void) {
  vigie_error *error = NULL;
  vigie_client_free(session);
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 20000, &error));
  vigie_client_free(replica);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_queue_free(queue);
}

static void *call(void *body) {
  (*(void (**)(void))body)();
  return NULL;
}

/* The bytes of a thread's stack that were written. */
static size_t stack_of(void (*body)(void)) {
  static unsigned char stack[STACK] __attribute__((aligned(4096)));
  pthread_attr_t attributes;
  pthread_t thread;
  size_t clean = 0;
  memset(stack, PAINT, sizeof stack);
  CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, sizeof stack) == 0);
  CHECK(pthread_create(&thread, &attributes, call, &body) == 0 && pthread_join(thread, NULL) == 0);
  pthread_attr_destroy(&attributes);
  while (clean < sizeof stack && stack[clean] == PAINT) clean++;
  return sizeof stack - clean;
}

int main(void) {
  const size_t most = (size_t)environment_number("VIGIE_TEST_STACK", 12 * 1024);
  const struct {
    const char *name;
    void (*body)(void);
  } calls[] = {
      {"create", create}, {"the first call", first}, {"GET", get}, {"a read on a replica", read_elsewhere}, {"SET of 100 KB", set_large},
      {"GET of 100 KB", get_large}, {"an error", wrong}, {"BLPOP", block}, {"WATCH in a session", watch},
      {"a durable write", wait_for_replicas}, {"EVAL", script}, {"submit and drain", submit}, {"refresh and statistics", ask}, {"close", end},
  };
  int failed = 0;
  config = config_of_deployment();
  memset(large, 'x', sizeof large - 1);
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    size_t without = stack_of(nothing), with = stack_of(calls[i].body);
    printf("%6zu bytes: %s\n", with - without, calls[i].name);
    failed |= with - without >= most;
  }
  vigie_config_free(config);
  CHECK(vigie_threads_join(20000) == VIGIE_OK);
  return failed;
}
