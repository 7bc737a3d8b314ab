/* The same service as service.c on one event loop, without a thread that waits: transactions, a subscriber and a worker, by poll().
 * ./service_loop redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster?write.replicas=1
 *
 * The worker keeps what it has taken in a list of its own (the keys of docs/jobs.md), and removes a job in the same transaction that does it.
 * After a lost answer it looks into that list. "stop" on standard input ends the program, which then says what it did. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

#define ORDERS "service:orders"
#define MINE "{service:orders}:processing:loop"
enum { BOOK = 1, LOOK, TAKE, DO, NEWS, ROOM = 64 };

static vigie_client *client;
static vigie_queue *queue;
static long number, booked, unknown, done, again, heard, gaps;
static int booking, stopping, doubt, over;

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* Runs the batch; its completion comes with this token. */
static void submit(vigie_batch *batch, uint32_t flags, uint64_t token) {
  vigie_error *err = NULL;
  if (vigie_batch_submit(client, batch, flags, VIGIE_TIMEOUT_DEFAULT, queue, token, &err) != VIGIE_OK) die("submit", err);
  vigie_batch_free(batch);
}

/* One order: the stock and the job change together, or not at all. */
static void book(void) {
  char job[64];
  vigie_batch *batch = vigie_batch_new();
  snprintf(job, sizeof job, "vigie1:order-%ld:0:%ld", number, number);
  number++;
  vigie_batch_add(batch, VIGIE_CMD("DECR", "service:stock"));
  vigie_batch_add(batch, VIGIE_CMD("LPUSH", ORDERS, job));
  submit(batch, VIGIE_CALL_ATOMIC, BOOK);
  booking = 1;
}

/* The worker's next step: what it has in hand after something was lost, else the next job. */
static void next_job(void) {
  vigie_batch *batch = vigie_batch_new();
  if (doubt) vigie_batch_add(batch, VIGIE_CMD("LINDEX", MINE, "-1"));
  else vigie_batch_add(batch, VIGIE_CMD("BLMOVE", ORDERS, MINE, "RIGHT", "LEFT", "0.5"));
  submit(batch, VIGIE_CALL_EACH, doubt ? LOOK : TAKE);
}

/* Does a job and removes it, both or nothing; to do one twice does no harm. */
static void do_job(const char *job) {
  vigie_batch *batch = vigie_batch_new();
  const char *order = strrchr(job, ':') + 1;
  vigie_batch_add(batch, VIGIE_CMD("SADD", "service:done", order));
  vigie_batch_add(batch, VIGIE_CMD("LREM", MINE, "1", job));
  vigie_batch_add(batch, VIGIE_CMD("PUBLISH", "service:news", order));
  submit(batch, VIGIE_CALL_ATOMIC, DO);
}

static void completed(const vigie_event *event) {
  const char *job = vigie_reply_bytes(event->reply, VIGIE_ROOT, NULL);
  if (event->token == BOOK) {
    booking = 0;
    if (event->status == VIGIE_OK) booked++;
    else if (vigie_error_flags(event->error) & VIGIE_EF_MAYBE_EXECUTED || event->status == VIGIE_ERR_REPLICAS) unknown++;
    return;
  }
  if (event->status != VIGIE_OK) doubt = 1;
  else if (event->token == DO) done++;
  else if (job == NULL && event->token == LOOK) doubt = 0;
  else if (job == NULL && stopping && !booking) over = 1; /* nothing is left */
  else if (job != NULL) {
    again += event->token == LOOK;
    do_job(job);
    return;
  }
  next_job();
}

static void drain(void) {
  vigie_event events[ROOM];
  int32_t count;
  do {
    count = vigie_queue_drain(queue, 0, events, ROOM);
    for (int32_t i = 0; i < count; i++) {
      if (events[i].kind == VIGIE_EVENT_COMPLETION && !over) completed(&events[i]);
      if (events[i].kind == VIGIE_EVENT_MESSAGE) heard++;
      if (events[i].kind == VIGIE_EVENT_SUB_GAP) gaps++;
    }
    vigie_events_clear(events, count > 0 ? (size_t)count : 0);
  } while (count == ROOM);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_sub *sub = NULL;
  vigie_error *err = NULL;

  if (argc < 2) {
    fprintf(stderr, "usage: service_loop URI\n");
    return 2;
  }
  if (vigie_config_set(config, "uri", argv[1], &err) != VIGIE_OK) die("uri", err);
  if (vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_queue_create(ROOM, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_sub_for(client, queue, NEWS, NULL, &sub, &err) != VIGIE_OK) die("subscription", err);
  if (vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "service:news"), 0, &err) != VIGIE_OK) die("subscribe", err);
  doubt = 1; /* what it had in hand when it ended */
  next_job();
  printf("serving\n");
  fflush(stdout);

  struct pollfd ready[2] = {{.fd = vigie_queue_fd(queue), .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  while (!over) {
    if (poll(ready, 2, booking || stopping ? -1 : 1) == 0) book();
    if (ready[0].revents) drain();
    if (ready[1].revents) stopping = 1, ready[1].fd = -1;
  }
  printf("booked %ld, unknown %ld, done %ld, again %ld, heard %ld, gaps %ld\n", booked, unknown, done, again, heard, gaps);

  vigie_sub_free(sub);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
