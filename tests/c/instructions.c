/* What tests/instructions.rs counts: `measured` is what the program does for its commands, whichever way they go. */
#include "common.h"

enum { WINDOW = 256, WARM = 4 };
#define KEY "instructions"
#define VALUE "0123456789012345678901234567890123456789012345678901234567890123"

static vigie_client *client;
static vigie_queue *queue;
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

static void measured(void (*way)(int), int commands) { way(commands); }

int main(int argc, char **argv) {
  vigie_error *error = NULL;
  CHECK(argc == 3);
  void (*way)(int) = strcmp(argv[1], "exec") == 0 ? exec : submit;
  vigie_sentinel *sentinel = open_sentinel();
  vigie_batch *list = vigie_batch_new();
  client = open_primary(sentinel);
  for (int i = 0; i < WINDOW; i++) vigie_batch_add(list, VIGIE_CMD("GET", KEY));
  batch = vigie_batch_data(list, &batch_len);
  GIVES(VIGIE_OK, vigie_queue_create(WINDOW, &queue, &error));
  vigie_reply_free(RUN(client, "SET", KEY, VALUE));
  way(WARM * WINDOW);
  measured(way, atoi(argv[2]));
  vigie_queue_free(queue);
  vigie_batch_free(list);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
