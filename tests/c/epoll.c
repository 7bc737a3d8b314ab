/* 100,000 submits beside a timer in one epoll loop, which waits for the queue's descriptor: all complete once, they ran in order,
 * and the loop goes round all the while. The key is a new one. Prints its figures. */
#include "common.h"

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { COMMANDS = 100000, BATCH = 256, CAPACITY = 1000, TICK_MS = 5, BOUND_MS = 2250, PATIENCE_MS = 60000 };
#define KEY "loop:c"

static vigie_client *client;
static vigie_queue *queue;
static unsigned char told[COMMANDS];
static int submitted, seen, full, ticks;
static double begun, last_tick, pause_ms;

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Batches until the queue is full; what was refused is submitted anew after a drain. */
static void submit(void) {
  char resp[BATCH * 48], number[16];
  while (submitted < COMMANDS) {
    vigie_error *error = NULL;
    int last = submitted + BATCH < COMMANDS ? submitted + BATCH : COMMANDS;
    size_t len = 0;
    for (int i = submitted; i < last; i++) {
      int digits = snprintf(number, sizeof number, "%d", i);
      len += (size_t)snprintf(resp + len, sizeof resp - len, "*3\r\n$5\r\nRPUSH\r\n$%zu\r\n" KEY "\r\n$%d\r\n%s\r\n",
                              strlen(KEY), digits, number);
    }
    vigie_status status = vigie_cmds_submit(client, resp, len, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue,
                                            (uint64_t)submitted, &error);
    if (status == VIGIE_ERR_QUEUE_FULL) {
      vigie_error_free(error);
      full++;
      return;
    }
    gives(__FILE__, __LINE__, "vigie_cmds_submit", VIGIE_OK, status, &error);
    submitted = last;
  }
}

/* The header promises the order in which calls start, which their values show, and not that of completions. */
static void readable(void) {
  static vigie_event events[BATCH];
  int32_t count;
  do {
    count = vigie_queue_drain(queue, 0, events, BATCH);
    CHECK(count >= 0);
    for (int32_t i = 0; i < count; i++, seen++) {
      const vigie_event *event = &events[i];
      CHECK(event->kind == VIGIE_EVENT_COMPLETION && event->status == VIGIE_OK && event->error == NULL);
      CHECK(event->token < COMMANDS && told[event->token]++ == 0 && event->node_count == 1);
      CHECK(event->nodes->type == VIGIE_TYPE_INT && event->nodes->value == event->token + 1);
    }
    vigie_events_clear(events, (size_t)count);
  } while (count == BATCH);
  submit();
}

static void look(void) {
  double now = now_ms();
  if (now - last_tick > pause_ms) pause_ms = now - last_tick;
  last_tick = now;
}

static void tick(int timer) {
  uint64_t expired;
  CHECK(read(timer, &expired, sizeof expired) == (ssize_t)sizeof expired);
  ticks++;
  look();
  CHECK(last_tick - begun < PATIENCE_MS);
}

static void add(int loop, int fd) {
  struct epoll_event interest = {.events = EPOLLIN, .data = {.fd = fd}};
  CHECK(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &interest) == 0);
}

static void run(void) {
  const struct itimerspec every = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
  int loop = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  CHECK(loop >= 0 && timer >= 0 && timerfd_settime(timer, 0, &every, NULL) == 0);
  add(loop, timer);
  add(loop, vigie_queue_fd(queue));
  begun = last_tick = now_ms();
  submit();
  while (seen < COMMANDS) {
    struct epoll_event ready[2];
    int count = epoll_wait(loop, ready, 2, -1);
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
      if (ready[i].data.fd == timer) tick(timer);
      else readable();
    }
  }
  look();
  CHECK(epoll_ctl(loop, EPOLL_CTL_DEL, vigie_queue_fd(queue), NULL) == 0);
  close(timer);
  close(loop);
}

static void the_server_has_all_in_order(void) {
  vigie_reply *list = RUN(client, "LRANGE", KEY, "0", "-1");
  CHECK(vigie_reply_count(list, VIGIE_ROOT) == COMMANDS);
  for (uint32_t i = 0; i < COMMANDS; i++) CHECK(vigie_reply_int(list, vigie_reply_child(list, VIGIE_ROOT, i), -1) == (int64_t)i);
  vigie_reply_free(list);
}

int main(void) {
  vigie_error *error = NULL;
  vigie_event more;
  vigie_sentinel *sentinel = open_sentinel();
  client = open_primary(sentinel);
  vigie_sentinel_free(sentinel);
  GIVES(VIGIE_OK, vigie_queue_create(CAPACITY, &queue, &error));
  run();
  double elapsed = last_tick - begun;
  CHECK(vigie_queue_drain(queue, 50, &more, 1) == 0); /* what came twice would come now */
  the_server_has_all_in_order();
  CHECK(full > 0 && pause_ms < BOUND_MS);
  vigie_queue_free(queue);
  vigie_client_free(client);
  printf("epoll in C: %d commands in %.2f s, queue full %d times, %d ticks, longest pause %.1f ms, ok\n", COMMANDS, elapsed / 1e3,
         full, ticks, pause_ms);
  return finish();
}
