/* Submit: commands run without a thread that waits for each of them; their completions come in batches.
 * ./submit redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster
 *
 * Here one thread submits and drains in turn. An event loop polls vigie_queue_fd() instead, and drains with timeout 0
 * until a drain returns fewer events than it has room for. */
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

enum { WINDOW = 256, TOTAL = 10000 };

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_queue *queue = NULL;
  vigie_error *err = NULL;
  static vigie_event events[WINDOW];
  uint64_t submitted = 0, done = 0, failed = 0;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  /* The queue's capacity is the window: what is outstanding and what is not drained yet. */
  if (vigie_queue_create(WINDOW, &queue, &err) != VIGIE_OK) die("queue", err);

  vigie_batch *batch = vigie_batch_new();
  while (done < TOTAL) {
    uint64_t room = WINDOW - (submitted - done), left = TOTAL - submitted;
    vigie_batch_clear(batch);
    for (uint64_t i = 0; i < room && i < left; i++) vigie_batch_add(batch, VIGIE_CMD("INCR", "submit:n"));
    if (room > 0 && left > 0) {
      /* Each command is a call of its own: the one at place i completes with token submitted + i. */
      if (vigie_batch_submit(client, batch, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue, submitted, &err) != VIGIE_OK)
        die("submit", err);
      submitted += room < left ? room : left;
    }
    int32_t count = vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, WINDOW);
    for (int32_t i = 0; i < count; i++) {
      if (events[i].status != VIGIE_OK) {
        /* vigie_error_flags() says whether it may have run. */
        fprintf(stderr, "call %llu: %s\n", (unsigned long long)events[i].token, vigie_error_message(events[i].error));
        failed++;
      }
    }
    vigie_events_clear(events, count > 0 ? (size_t)count : 0);
    done += count > 0 ? (uint64_t)count : 0;
  }
  printf("%llu calls, %llu failed\n", (unsigned long long)done, (unsigned long long)failed);

  vigie_batch_free(batch);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return failed > 0;
}
