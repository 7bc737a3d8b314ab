/* A scan on an event loop: each page is a completion, and no thread waits for a server.
 * ./scan_loop redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [PATTERN] */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

enum { PAGE = 1 };

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_scan *scan = NULL;
  vigie_queue *queue = NULL;
  vigie_error *err = NULL;
  vigie_event event;
  unsigned long long keys = 0;
  uint32_t restarts = 0;
  int over = 0;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_queue_create(16, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_scan_for(client, VIGIE_CMD("SCAN", "0", "MATCH", argc > 2 ? argv[2] : "*"), 3, &scan, &err) != VIGIE_OK) die("scan", err);

  if (vigie_scan_submit(scan, VIGIE_TIMEOUT_DEFAULT, queue, PAGE, &err) != VIGIE_OK) die("page", err);
  while (!over) {
    struct pollfd ready = {vigie_queue_fd(queue), POLLIN, 0}; /* and whatever else the loop serves */
    if (poll(&ready, 1, -1) < 1) continue;
    while (vigie_queue_drain(queue, 0, &event, 1) == 1) {
      if (event.status != VIGIE_OK) die("page", event.error);
      if (vigie_scan_restarts(scan) != restarts) {
        restarts = vigie_scan_restarts(scan);
        keys = 0; /* what was counted may come again */
      }
      over = event.reply == NULL;
      keys += vigie_reply_count(event.reply, VIGIE_ROOT);
      vigie_events_clear(&event, 1);
      if (!over && vigie_scan_submit(scan, VIGIE_TIMEOUT_DEFAULT, queue, PAGE, &err) != VIGIE_OK) die("page", err);
    }
  }
  printf("%llu keys, begun anew %u times\n", keys, (unsigned)restarts);

  vigie_scan_free(scan);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
