/* A queue without a sender: its descriptor in a poll() loop, wake-ups, time limits, every end, and a forked child, with either form of
 * drain. No server is needed. */
#include "common.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 8, ROUNDS = 200 };

static vigie_error *error = NULL;

static vigie_queue *make(size_t capacity) {
  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(capacity, &queue, &error));
  return queue;
}

static int readable(int fd, int timeout_ms) {
  struct pollfd one = {fd, POLLIN, 0};
  int ready = poll(&one, 1, timeout_ms);
  CHECK(ready == 0 || (ready == 1 && one.revents == POLLIN));
  return ready;
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether drain() is the packed one. */
static int packed = 0;

static int32_t drain(vigie_queue *queue, int64_t timeout_ms) {
  vigie_event events[ROOM];
  if (packed) {
    char buffer[sizeof(vigie_packed_event)];
    size_t used = 1;
    int32_t count = vigie_queue_drain_packed(queue, timeout_ms, buffer, sizeof buffer, &used);
    CHECK(used == 0);
    return count;
  }
  return vigie_queue_drain(queue, timeout_ms, events, ROOM);
}

static void the_descriptor_tells_of_a_wakeup(void) {
  vigie_queue *queue = make(ROOM);
  int fd = vigie_queue_fd(queue);
  char byte;
  CHECK(fd >= 0 && vigie_queue_fd(queue) == fd);
  CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  CHECK(!readable(fd, 0) && drain(queue, 0) == 0);
  vigie_queue_wakeup(queue);
  CHECK(readable(fd, 0) && drain(queue, 0) == 0 && !readable(fd, 0));
  vigie_queue_wakeup(queue);
  vigie_queue_wakeup(queue);
  CHECK(drain(queue, VIGIE_TIMEOUT_DEFAULT) == 0 && readable(fd, 0));
  CHECK(drain(queue, VIGIE_TIMEOUT_NONE) == 0 && !readable(fd, 0));
  /* An event loop may read the byte itself, with a copy that it closes. */
  fd = dup(fd);
  vigie_queue_wakeup(queue);
  CHECK(read(fd, &byte, 1) == 1 && read(fd, &byte, 1) == -1);
  CHECK(drain(queue, VIGIE_TIMEOUT_NONE) == 0 && !readable(fd, 0));
  close(fd);
  vigie_queue_wakeup(queue);
  CHECK(readable(vigie_queue_fd(queue), 0));
  vigie_queue_free(queue);
}

static void time_limits_are_kept(void) {
  vigie_queue *queue = make(1);
  const int64_t at_once[] = {0, -1, INT64_MIN, INT32_MIN + 1};
  int64_t begun = now_ms();
  vigie_event event;
  CHECK(drain(queue, 50) == 0);
  CHECK(now_ms() - begun >= 49);
  memset(&event, 0x5a, sizeof event);
  CHECK(vigie_queue_drain(queue, 0, &event, 1) == 0);
  CHECK(event.kind == 0x5a5a5a5au); /* nothing was written */
  for (size_t i = 0; i < sizeof at_once / sizeof *at_once; i++) CHECK(drain(queue, at_once[i]) == 0);
  vigie_queue_free(queue);
}

struct loop {
  vigie_queue *queue;
  int seen;
};

/* Waits inside: each wake-up brings one return. */
static void *drains(void *of) {
  struct loop *loop = of;
  for (; loop->seen < ROUNDS; loop->seen++) CHECK(drain(loop->queue, 20000) == 0);
  return NULL;
}

/* Waits for the descriptor. */
static void *polls(void *of) {
  struct loop *loop = of;
  int fd = vigie_queue_fd(loop->queue);
  for (; loop->seen < ROUNDS; loop->seen++) {
    CHECK(readable(fd, 20000));
    CHECK(drain(loop->queue, 0) == 0);
  }
  return NULL;
}

static void wakeups_from_another_thread(void *(*body)(void *)) {
  struct loop loop = {make(ROOM), 0};
  pthread_t thread;
  int64_t begun = now_ms();
  CHECK(pthread_create(&thread, NULL, body, &loop) == 0);
  for (int i = 0; i < ROUNDS; i++) vigie_queue_wakeup(loop.queue);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(loop.seen == ROUNDS && now_ms() - begun < 15000); /* no time limit had to help */
  CHECK(!readable(vigie_queue_fd(loop.queue), 0));
  vigie_queue_free(loop.queue);
}

static void clearing_and_freeing(void) {
  vigie_event events[3];
  vigie_queue *one = make(1), *two = make(2);
  vigie_config *config = vigie_config_new();
  int fd = vigie_queue_fd(one);
  memset(events, 0, sizeof events);
  events[0].kind = VIGIE_EVENT_TOPOLOGY;
  GIVES(VIGIE_OK, vigie_config_describe(config, &events[0].reply, &error));
  GIVES(VIGIE_OK, vigie_config_describe(config, &events[2].reply, &error));
  CHECK(vigie_config_set(config, "nonsense", "1", &events[1].error) == VIGIE_ERR_CONFIG);
  vigie_config_free(config);
  vigie_events_clear(events, 3); /* a leak checker sees whether all three went */
  CHECK(events[0].reply == NULL && events[1].error == NULL && events[2].reply == NULL);
  vigie_events_clear(events, 3);
  CHECK(events[0].kind == 0 && sizeof events == 3 * 64);
  vigie_queue_wakeup(one);
  vigie_queue_free(one);
  CHECK(fcntl(fd, F_GETFD) == -1);
  CHECK(drain(two, 0) == 0);
  vigie_queue_free(two);
  vigie_queue_free(NULL);
  vigie_events_clear(NULL, 0);
}

/* Static, so that what the child leaks on purpose is still reachable there. */
static vigie_queue *inherited;

static void a_child_makes_its_own(void) {
  vigie_queue *own;
  int status = 0;
  pid_t child;
  inherited = make(ROOM);
  CHECK(vigie_queue_fd(inherited) >= 0);
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(drain(inherited, VIGIE_TIMEOUT_NONE) == VIGIE_ERR_FORKED);
    CHECK(vigie_queue_fd(inherited) == -1);
    vigie_queue_wakeup(inherited);
    vigie_queue_free(inherited);
    own = make(ROOM);
    vigie_queue_wakeup(own);
    CHECK(readable(vigie_queue_fd(own), 0) && drain(own, VIGIE_TIMEOUT_NONE) == 0);
    vigie_queue_free(own);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(!readable(vigie_queue_fd(inherited), 0)); /* the child's wake-up is not the parent's */
  vigie_queue_free(inherited);
}

int main(void) {
  for (packed = 0; packed < 2; packed++) {
    the_descriptor_tells_of_a_wakeup();
    time_limits_are_kept();
    wakeups_from_another_thread(drains);
    wakeups_from_another_thread(polls);
    clearing_and_freeing();
    a_child_makes_its_own();
  }
  return finish();
}
