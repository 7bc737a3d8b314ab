/* Events: a poll() loop that is told of failovers, of held back writes, and of Sentinels that come and go.
 * ./events redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [FAILOVERS]
 *
 * It ends after so many changes of the primary (1 if none are given). The descriptor fits into any event loop. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { ROOM = 16, CAPACITY = 1024 };

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* The node of a field of an event's MAP. */
static uint32_t field(const vigie_reply *reply, const char *key) {
  return vigie_reply_find(reply, VIGIE_ROOT, key, strlen(key));
}

static const char *text(const vigie_reply *reply, const char *key) {
  const char *value = vigie_reply_bytes(reply, field(reply, key), NULL);
  return value != NULL ? value : "-";
}

/* Prints an event; 1 if the service has another primary. */
static int told(const vigie_event *event) {
  const vigie_reply *reply = event->reply;
  switch (event->kind) {
    case VIGIE_EVENT_TOPOLOGY:
      printf("topology  %s: %s -> %s (%s)\n", text(reply, "service"), text(reply, "from"), text(reply, "to"), text(reply, "reason"));
      return 1;
    case VIGIE_EVENT_NOTICE: /* the primary stays */
      printf("notice    %s: %s (%s)\n", text(reply, "service"), text(reply, "reason"), text(reply, "text"));
      return 0;
    case VIGIE_EVENT_FENCE:
      printf("fence     %s: writes %s (%s)\n", text(reply, "service"),
             vigie_reply_int(reply, field(reply, "on"), 0) ? "are held back" : "go on", text(reply, "reason"));
      return 0;
    case VIGIE_EVENT_SENTINEL: /* up is NULL if the Sentinel was only spoken of */
      printf("sentinel  %s %s (%s)\n", text(reply, "sentinel"),
             vigie_reply_type(reply, field(reply, "up")) != VIGIE_TYPE_BOOL ? "was spoken of"
             : vigie_reply_int(reply, field(reply, "up"), 0)               ? "is up"
                                                                            : "is down",
             text(reply, "reason"));
      return 0;
    case VIGIE_EVENT_DROPPED: /* the queue was full: ask vigie_sentinel_topology() what is true now */
      printf("dropped   %lld events\n", (long long)vigie_reply_int(reply, VIGIE_ROOT, 0));
      return 0;
    default: return 0; /* more kinds may come */
  }
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_queue *queue = NULL;
  vigie_error *err = NULL;
  vigie_event events[ROOM];
  int left = argc > 2 ? atoi(argv[2]) : 1;
  const uint32_t kinds = VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_NOTICE | VIGIE_EVENT_FENCE | VIGIE_EVENT_SENTINEL;

  setvbuf(stdout, NULL, _IOLBF, 0);
  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_queue_create(CAPACITY, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_sentinel_watch(sentinel, kinds, queue, 1, &err) != VIGIE_OK) die("watch", err);
  /* A service is followed once it was asked for. A program with clients does that by their first call. */
  if (vigie_sentinel_refresh(sentinel, NULL, VIGIE_TIMEOUT_DEFAULT, NULL, &err) != VIGIE_OK) die("refresh", err);
  printf("watching\n");

  struct pollfd ready = {.fd = vigie_queue_fd(queue), .events = POLLIN};
  while (left > 0 && poll(&ready, 1, -1) >= 0) {
    int32_t count;
    do { /* until a drain gives fewer than it has room for */
      count = vigie_queue_drain(queue, 0, events, ROOM);
      for (int32_t i = 0; i < count; i++) left -= told(&events[i]);
      vigie_events_clear(events, count > 0 ? (size_t)count : 0);
    } while (count == ROOM);
  }

  vigie_queue_free(queue);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
