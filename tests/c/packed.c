/* Packed drains against a server: each reply as the pointer form carries it, errors, large texts, events that do not fit, an event of
 * a watch, and a loop on the descriptor that loses nothing. */
#include "common.h"

#include <poll.h>
#include <stdint.h>
#include <unistd.h>

enum { BATCH = 128, COMMANDS = 160 * BATCH, LARGE = 1 << 20 };

static vigie_error *error = NULL;
static vigie_client *client;

static vigie_queue *make(size_t capacity) {
  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(capacity, &queue, &error));
  return queue;
}

static void submit(vigie_queue *queue, vigie_batch *batch, uint32_t flags, uint64_t token) {
  size_t len = 0;
  const void *list = vigie_batch_data(batch, &len);
  GIVES(VIGIE_OK, vigie_cmds_submit(client, list, len, flags, VIGIE_TIMEOUT_DEFAULT, queue, token, &error));
}

static const vigie_node *nodes_of(const vigie_packed_event *event) { return &event->root; }

static const char *data_of(const vigie_packed_event *event) { return (const char *)(nodes_of(event) + event->node_count); }

static const vigie_packed_event *next_of(const vigie_packed_event *event) {
  return (const vigie_packed_event *)((const char *)event + event->size);
}

/* The text behind a key of the MAP of a failed call. */
static const char *told(const vigie_packed_event *event, const char *key) {
  const vigie_node *child = nodes_of(event) + event->root.value;
  CHECK(event->root.type == VIGIE_TYPE_MAP);
  for (uint32_t i = 0; i < event->root.count; i += 2)
    if (strcmp(data_of(event) + child[i].value, key) == 0) return data_of(event) + child[i + 1].value;
  CHECK(!"the key is there");
  return NULL;
}

static void same(const vigie_event *event, const vigie_packed_event *packed) {
  CHECK(packed->kind == event->kind && packed->token == event->token && packed->status == event->status);
  if (event->error != NULL) {
    CHECK(packed->error_flags == vigie_error_flags(event->error));
    CHECK(strcmp(told(packed, "message"), vigie_error_message(event->error)) == 0);
    CHECK(strcmp(told(packed, "server_code"), vigie_error_server_code(event->error)) == 0);
    CHECK(strcmp(told(packed, "endpoint"), vigie_error_endpoint(event->error)) == 0);
    return;
  }
  CHECK(packed->error_flags == 0 && packed->node_count == event->node_count && packed->data_len == event->data_len);
  CHECK(memcmp(nodes_of(packed), event->nodes, event->node_count * sizeof(vigie_node)) == 0);
  CHECK(memcmp(data_of(packed), event->data, event->data_len) == 0);
}

/* The same commands twice, drained in either form. */
static void every_reply_is_the_same_in_either_form(void) {
  enum { COUNT = 8 };
  vigie_queue *pointers = make(COUNT), *records = make(COUNT);
  vigie_batch *batch = vigie_batch_new();
  vigie_event events[COUNT];
  static uint64_t buffer[(2 * LARGE) / 8]; /* aligned, so that records can be read where they are */
  const vigie_packed_event *record = (const vigie_packed_event *)buffer;
  char *large = malloc(LARGE + 1);
  int32_t taken = 0;
  size_t used = 0;
  CHECK(large != NULL);
  memset(large, 'x', LARGE);
  large[LARGE] = '\0';
  vigie_reply_free(RUN(client, "SET", "packed:large", large));
  vigie_batch_add(batch, VIGIE_CMD("SET", "packed:k", "v"));
  vigie_batch_add(batch, VIGIE_CMD("INCR", "packed:k"));
  vigie_batch_add(batch, VIGIE_CMD("STRLEN", "packed:k"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "packed:none"));
  vigie_batch_add(batch, VIGIE_CMD("EVAL", "return {1, {'two', {}, false, {err = 'ERR three'}}, 'four', {{{5}}}}", "0"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "packed:large"));
  vigie_batch_add(batch, VIGIE_CMD("EVAL", "return {}", "0"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "packed:k"));
  submit(pointers, batch, VIGIE_CALL_EACH, UINT64_MAX - 1);
  submit(records, batch, VIGIE_CALL_EACH, UINT64_MAX - 1);
  while (taken < COUNT) {
    int32_t count = vigie_queue_drain(pointers, VIGIE_TIMEOUT_DEFAULT, events + taken, (uint32_t)(COUNT - taken));
    CHECK(count > 0);
    taken += count;
  }
  CHECK(events[1].status == VIGIE_ERR_SERVER && events[5].data_len == LARGE + 1);
  for (taken = 0; taken < COUNT;) {
    int32_t count = vigie_queue_drain_packed(records, VIGIE_TIMEOUT_DEFAULT, buffer, sizeof buffer, &used);
    CHECK(count > 0 && used <= sizeof buffer);
    record = (const vigie_packed_event *)buffer;
    for (int32_t i = 0; i < count; i++, record = next_of(record)) same(&events[taken++], record);
    CHECK((const char *)record == (const char *)buffer + used);
  }
  vigie_events_clear(events, COUNT);
  vigie_batch_free(batch);
  vigie_queue_free(pointers);
  vigie_queue_free(records);
  free(large);
}

static void what_does_not_fit_stays_and_tells_its_size(void) {
  vigie_queue *queue = make(3);
  vigie_batch *batch = vigie_batch_new();
  uint64_t small[32];
  const vigie_packed_event *first = (const vigie_packed_event *)small;
  vigie_packed_event *large;
  size_t used = 0, needed = 0;
  vigie_batch_add(batch, VIGIE_CMD("GET", "packed:k"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "packed:large"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "packed:k"));
  submit(queue, batch, VIGIE_CALL_EACH, 1);
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_DEFAULT, small, sizeof small, &used) == 1);
  CHECK(used == first->size && first->token == 1 && strcmp(data_of(first), "v") == 0);
  /* Blocks until the large one is there, and does not take it. */
  for (int i = 0; i < 2; i++) {
    CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_DEFAULT, small, sizeof small, &needed) == VIGIE_ERR_BUFFER_TOO_SMALL);
    CHECK(needed == (sizeof(vigie_packed_event) + LARGE + 1 + 7) / 8 * 8);
  }
  CHECK(poll(&(struct pollfd){vigie_queue_fd(queue), POLLIN, 0}, 1, 0) == 1);
  large = malloc(needed);
  CHECK(large != NULL && vigie_queue_drain_packed(queue, 0, large, needed - 1, NULL) == VIGIE_ERR_BUFFER_TOO_SMALL);
  CHECK(vigie_queue_drain_packed(queue, 0, large, needed, &used) == 1 && used == needed);
  CHECK(large->token == 2 && large->data_len == LARGE + 1 && strlen(data_of(large)) == LARGE);
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_DEFAULT, small, sizeof small, &used) == 1 && first->token == 3);
  CHECK(vigie_queue_drain_packed(queue, 0, small, sizeof small, &used) == 0 && used == 0);
  submit(queue, batch, VIGIE_CALL_EACH, 4); /* all room is back */
  free(large);
  vigie_batch_free(batch);
  vigie_queue_free(queue); /* with what came meanwhile */
}

/* Commands in a window through a poll() loop, with a buffer that is too small for most batches. */
static void a_loop_on_the_descriptor_loses_nothing(void) {
  vigie_queue *queue = make(2 * BATCH);
  vigie_batch *batch = vigie_batch_new();
  uint64_t buffer[BATCH * sizeof(vigie_packed_event) / 2 / 8], submitted = 0, seen = 0;
  int fd = vigie_queue_fd(queue);
  vigie_reply_free(RUN(client, "DEL", "packed:n"));
  for (int i = 0; i < BATCH; i++) vigie_batch_add(batch, VIGIE_CMD("INCR", "packed:n"));
  while (seen < COMMANDS) {
    for (; submitted < COMMANDS && submitted - seen <= BATCH; submitted += BATCH) submit(queue, batch, VIGIE_CALL_EACH, submitted);
    CHECK(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 20000) == 1);
    /* One drain a wake-up: what is left keeps the descriptor readable. */
    int32_t count = vigie_queue_drain_packed(queue, 0, buffer, sizeof buffer, NULL);
    const vigie_packed_event *event = (const vigie_packed_event *)buffer;
    CHECK(count >= 0);
    for (int32_t i = 0; i < count; i++, event = next_of(event)) {
      CHECK(event->status == VIGIE_OK && event->token == seen && event->root.value == seen + 1);
      seen++;
    }
  }
  CHECK(seen == submitted && !poll(&(struct pollfd){fd, POLLIN, 0}, 1, 0));
  vigie_batch_free(batch);
  vigie_queue_free(queue);
}

static void an_event_of_a_watch(vigie_sentinel *sentinel) {
  vigie_queue *queue = make(64);
  uint64_t buffer[128];
  const vigie_packed_event *event = (const vigie_packed_event *)buffer;
  int found = 0;
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_SENTINEL | VIGIE_EVENT_REPLICA, queue, 5, &error));
  client = open_primary(sentinel); /* starts the listening */
  vigie_reply_free(RUN(client, "SET", "packed:k", "v"));
  while (!found) {
    int32_t count = vigie_queue_drain_packed(queue, 20000, buffer, sizeof buffer, NULL);
    CHECK(count > 0);
    event = (const vigie_packed_event *)buffer;
    for (; count > 0; count--, event = next_of(event)) {
      CHECK(event->token == 5 && event->status == VIGIE_OK && told(event, "reason")[0] != '\0');
      found |= event->kind == VIGIE_EVENT_SENTINEL && told(event, "sentinel")[0] != '\0';
    }
  }
  vigie_queue_free(queue);
}

int main(void) {
  vigie_sentinel *sentinel = open_sentinel();
  an_event_of_a_watch(sentinel);
  every_reply_is_the_same_in_either_form();
  what_does_not_fit_stays_and_tells_its_size();
  a_loop_on_the_descriptor_loses_nothing();
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
