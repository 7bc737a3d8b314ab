/* The log: a program that writes through failovers, and whose log says afterwards what happened.
 * ./log redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [FAILOVERS] [text|json]
 *
 * It ends after so many changes of the primary (1 if none are given). The lines go to stdout; a service would give the descriptor of
 * its log file, or 2. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static void set(vigie_config *config, const char *key, const char *value) {
  vigie_error *err = NULL;
  if (vigie_config_set(config, key, value, &err) != VIGIE_OK) die(key, err);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_queue *queue = NULL;
  vigie_error *err = NULL;
  vigie_event event;
  int left = argc > 2 ? atoi(argv[2]) : 1;

  set(config, "uri", argc > 1 ? argv[1] : "");
  set(config, "log.level", "info");
  set(config, "log.fd", "1");
  set(config, "log.format", argc > 3 ? argv[3] : "text");
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_queue_create(64, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_sentinel_watch(sentinel, VIGIE_EVENT_TOPOLOGY, queue, 1, &err) != VIGIE_OK) die("watch", err);
  while (left > 0) {
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    if (vigie_cmd_exec(client, VIGIE_CMD("INCR", "log:writes"), 0, 10000, NULL, &err) != VIGIE_OK) {
      vigie_error_free(err); /* an asynchronous copy is no promise: the write may be lost in a failover */
      err = NULL;
    }
    for (; vigie_queue_drain(queue, 0, &event, 1) > 0; vigie_events_clear(&event, 1)) left--;
    nanosleep(&pause, NULL);
  }
  /* Lets the last lines go out; nothing is written to the descriptor afterwards. */
  if (vigie_sentinel_close(sentinel, 1000, &err) != VIGIE_OK) die("close", err);
  vigie_client_free(client);
  vigie_queue_free(queue);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
