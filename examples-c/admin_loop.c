/* What an operator asks the Sentinels, on an event loop: no thread waits, and the loop serves its other descriptors meanwhile.
 * ./admin_loop redis-sentinel://127.0.0.1:26379,127.0.0.1:26380
 *
 * First all services are discovered; then every Sentinel is asked whether a failover of each could be carried out. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { SERVICES = 0, ROOM = 64 }; /* tokens from 1 on are those of the questions about single services */

static vigie_sentinel *sentinel;
static vigie_queue *queue;
static uint64_t asked, answered;
static char *names[ROOM];

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* The services are known: asks about each of them, all at the same time. */
static void ask_about(const vigie_reply *services) {
  for (uint32_t i = 0; i + 1 < vigie_reply_count(services, VIGIE_ROOT) && asked < ROOM; i += 2) {
    const char *name = vigie_reply_bytes(services, vigie_reply_child(services, VIGIE_ROOT, i), NULL);
    uint32_t map = vigie_reply_child(services, VIGIE_ROOT, i + 1);
    const char *primary = vigie_reply_bytes(services, vigie_reply_find(services, map, "primary", 7), NULL);
    vigie_error *err = NULL;
    printf("%s: primary %s\n", name, primary != NULL ? primary : "none");
    names[asked] = malloc(strlen(name) + 1);
    if (names[asked] == NULL) exit(1);
    strcpy(names[asked++], name);
    if (vigie_sentinel_submit(sentinel, VIGIE_CMD("CKQUORUM", name), VIGIE_CALL_ALL | VIGIE_CALL_TYPED, VIGIE_TIMEOUT_DEFAULT, queue, asked, &err) != VIGIE_OK)
      die("CKQUORUM", err);
  }
}

/* What each Sentinel says of one service. */
static void show(const char *name, const vigie_reply *quorum) {
  uint32_t said, agree = 0, all = vigie_reply_count(quorum, VIGIE_ROOT) / 2;
  for (uint32_t i = 0; i < all; i++) {
    said = vigie_reply_child(quorum, VIGIE_ROOT, 2 * i + 1);
    agree += vigie_reply_type(quorum, said) == VIGIE_TYPE_MAP;
  }
  printf("%s: a failover could be carried out, say %u of %u Sentinels\n", name, (unsigned)agree, (unsigned)all);
}

static void take(const vigie_event *event) {
  answered += event->token != SERVICES;
  if (event->status != VIGIE_OK)
    fprintf(stderr, "%s: %s: %s\n", event->token == SERVICES ? "services" : names[event->token - 1], vigie_status_name(event->status),
            vigie_error_message(event->error));
  else if (event->token == SERVICES)
    ask_about(event->reply);
  else
    show(names[event->token - 1], event->reply);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_error *err = NULL;
  vigie_event event;
  int first = 1;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_queue_create(ROOM, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_sentinel_services_submit(sentinel, VIGIE_SERVICES_FOLLOW, VIGIE_TIMEOUT_DEFAULT, queue, SERVICES, &err) != VIGIE_OK)
    die("services", err);

  struct pollfd ready = {.fd = vigie_queue_fd(queue), .events = POLLIN};
  while ((first || answered < asked) && poll(&ready, 1, -1) >= 0) {
    while (vigie_queue_drain(queue, 0, &event, 1) == 1) {
      first = 0;
      take(&event);
      vigie_events_clear(&event, 1);
    }
  }

  for (uint64_t i = 0; i < asked; i++) free(names[i]);
  vigie_queue_free(queue);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return asked == 0;
}
