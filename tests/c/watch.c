/* A watch in a poll() loop: one failover of a real deployment, told to the descriptor of a queue; watches that end, are replaced,
 * or whose queue goes before its time. */
#include "common.h"

#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 4, TOKEN = 77, PATIENCE = 60000 };

static const uint32_t ALL = VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_FENCE | VIGIE_EVENT_DEGRADED | VIGIE_EVENT_REPLICA |
                            VIGIE_EVENT_SENTINEL | VIGIE_EVENT_NOTICE;
static vigie_error *error = NULL;

static struct {
  int switches, notices, fence_on, fence_off, sentinels_up, degraded, replicas, others;
  char from[64], to[64];
} seen;

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static vigie_queue *watch_on(vigie_sentinel *sentinel, uint32_t kinds, uint64_t token) {
  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(256, &queue, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, kinds, queue, token, &error));
  return queue;
}

static const char *field(const vigie_reply *reply, const char *key) {
  const char *text = vigie_reply_bytes(reply, vigie_reply_find(reply, VIGIE_ROOT, key, strlen(key)), NULL);
  CHECK(text != NULL);
  return text;
}

static int64_t number(const vigie_reply *reply, const char *key) {
  return vigie_reply_int(reply, vigie_reply_find(reply, VIGIE_ROOT, key, strlen(key)), -1);
}

static void take(const vigie_event *event) {
  const vigie_reply *reply = event->reply;
  CHECK(event->status == VIGIE_OK && event->error == NULL && event->token == TOKEN);
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_MAP && event->node_count > 0 && event->nodes != NULL);
  CHECK(field(reply, "reason")[0] != '\0');
  switch (event->kind) {
    case VIGIE_EVENT_TOPOLOGY:
      CHECK(strcmp(field(reply, "service"), service()) == 0 && number(reply, "epoch") >= 0);
      CHECK(strcmp(field(reply, "from"), field(reply, "to")) != 0);
      seen.switches++;
      snprintf(seen.from, sizeof seen.from, "%s", field(reply, "from"));
      snprintf(seen.to, sizeof seen.to, "%s", field(reply, "to"));
      break;
    case VIGIE_EVENT_NOTICE:
      CHECK(strcmp(field(reply, "service"), service()) == 0 && number(reply, "epoch") >= 0);
      CHECK(field(reply, "primary")[0] != '\0' && field(reply, "text")[0] != '\0');
      seen.notices++;
      break;
    case VIGIE_EVENT_FENCE:
      CHECK(strcmp(field(reply, "service"), service()) == 0);
      *(number(reply, "on") ? &seen.fence_on : &seen.fence_off) += 1;
      break;
    case VIGIE_EVENT_DEGRADED:
      seen.degraded++;
      break;
    case VIGIE_EVENT_REPLICA:
      CHECK(field(reply, "replica")[0] != '\0');
      seen.replicas++;
      break;
    case VIGIE_EVENT_SENTINEL:
      CHECK(field(reply, "sentinel")[0] != '\0');
      seen.sentinels_up += number(reply, "up") == 1;
      break;
    default:
      seen.others++;
  }
}

/* Polls and drains until this holds, as an application's loop does. */
#define UNTIL(queue, condition)                                        \
  do {                                                                 \
    int64_t end = now_ms() + PATIENCE;                                 \
    while (!(condition)) {                                             \
      struct pollfd one = {vigie_queue_fd(queue), POLLIN, 0};          \
      CHECK(now_ms() < end);                                           \
      if (poll(&one, 1, 100) == 1) drain(queue);                       \
    }                                                                  \
  } while (0)

static void drain(vigie_queue *queue) {
  vigie_event events[ROOM];
  int32_t count;
  do {
    count = vigie_queue_drain(queue, 0, events, ROOM);
    CHECK(count >= 0);
    for (int32_t i = 0; i < count; i++) take(&events[i]);
    vigie_events_clear(events, (size_t)count);
  } while (count == ROOM);
}

/* One line to the first Sentinel, and the first line of its answer. */
static void ask_sentinel(const char *line, char *answer, size_t size) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
  char host[64], *port;
  snprintf(host, sizeof host, "%s", environment("VIGIE_TEST_SENTINELS"));
  host[strcspn(host, ",")] = '\0';
  port = strrchr(host, ':');
  CHECK(port != NULL);
  *port++ = '\0';
  CHECK(getaddrinfo(host, port, &hints, &found) == 0);
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  CHECK(fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0);
  freeaddrinfo(found);
  CHECK(write(fd, line, strlen(line)) == (ssize_t)strlen(line));
  ssize_t count = read(fd, answer, size - 1);
  CHECK(count > 0);
  answer[count] = '\0';
  close(fd);
}

static void fail_over(void) {
  char line[128], answer[256] = "";
  int64_t end = now_ms() + PATIENCE;
  snprintf(line, sizeof line, "SENTINEL FAILOVER %s\r\n", service());
  while (strncmp(answer, "+OK", 3) != 0) {
    CHECK(now_ms() < end);
    ask_sentinel(line, answer, sizeof answer);
    if (answer[0] == '-') poll(NULL, 0, 50); /* not ready for one yet */
  }
}

int main(void) {
  vigie_event none[1];
  vigie_sentinel *sentinel = open_sentinel();
  /* The first client starts the listening: nothing happens before. */
  vigie_queue *queue = watch_on(sentinel, ALL, TOKEN), *ended = watch_on(sentinel, ALL, 1);
  vigie_queue *replaced = watch_on(sentinel, ALL, 2), *gone = watch_on(sentinel, ALL, 3);
  CHECK(queue != NULL && vigie_queue_fd(queue) >= 0);
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, 0, ended, 1, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_DEGRADED, replaced, 2, &error));
  vigie_client *client = open_primary(sentinel);
  vigie_reply_free(RUN(client, "SET", "k", "v"));
  UNTIL(queue, seen.sentinels_up == 3);
  vigie_queue_free(gone); /* while it is watching, with events in it */
  CHECK(seen.switches == 0 && seen.fence_on == 0);
  fail_over();
  vigie_reply_free(RUN(client, "SET", "k", "during"));
  UNTIL(queue, seen.switches == 1 && seen.fence_off == 1 && seen.replicas > 0);
  CHECK(seen.fence_on == 1 && seen.notices > 0 && strcmp(seen.from, seen.to) != 0);
  vigie_reply_free(RUN(client, "SET", "k", "after"));
  vigie_reply *topology = NULL;
  GIVES(VIGIE_OK, vigie_client_topology(client, &topology, &error));
  CHECK(strcmp(field(topology, "primary"), seen.to) == 0);
  vigie_reply_free(topology);
  /* All the Sentinels announce it, the leader last; it stays one switch. */
  int64_t end = now_ms() + 1500;
  while (now_ms() < end) {
    struct pollfd one = {vigie_queue_fd(queue), POLLIN, 0};
    if (poll(&one, 1, 50) == 1) drain(queue);
  }
  CHECK(seen.switches == 1 && seen.fence_on == 1 && seen.fence_off == 1 && seen.degraded == 0 && seen.others == 0);
  CHECK(vigie_queue_drain(ended, 0, none, 1) == 0);
  CHECK(vigie_queue_drain(replaced, 0, none, 1) == 0);
  /* The handle goes before the queue that watches it. */
  vigie_client_free(client);
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, VIGIE_TIMEOUT_DEFAULT, &error));
  CHECK(vigie_sentinel_watch(sentinel, ALL, queue, TOKEN, NULL) == VIGIE_ERR_CLOSED);
  vigie_sentinel_free(sentinel);
  drain(queue);
  vigie_queue_free(queue);
  vigie_queue_free(ended);
  vigie_queue_free(replaced);
  return finish();
}
