/* A service with transactions, a subscriber and a worker, each on a thread of its own, that lives through failovers.
 * ./service redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster?write.replicas=1
 *
 * The main thread books orders: one transaction moves stock and pushes a job. The worker does the jobs. The worker publishes each job that it
 * has done, and the subscriber hears of it. "stop" on standard input ends the program, which then says what it did. */
#define _POSIX_C_SOURCE 200809L /* pthread_t */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

static vigie_client *client;
static vigie_jobs *jobs;
static vigie_queue *queue;
static long booked, unknown, done, again, heard, gaps;

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* One order: the stock and the job change together, or not at all. */
static void book(long number) {
  char job[64];
  vigie_batch *batch = vigie_batch_new();
  vigie_error *err = NULL;
  snprintf(job, sizeof job, "vigie1:order-%ld:0:%ld", number, number);
  vigie_batch_add(batch, VIGIE_CMD("DECR", "service:stock"));
  vigie_batch_add(batch, VIGIE_CMD("LPUSH", "service:orders", job));
  if (vigie_batch_exec(client, batch, VIGIE_CALL_ATOMIC, VIGIE_TIMEOUT_DEFAULT, NULL, &err) == VIGIE_OK) booked++;
  else if (vigie_error_flags(err) & VIGIE_EF_MAYBE_EXECUTED || vigie_error_status(err) == VIGIE_ERR_REPLICAS) unknown++;
  vigie_error_free(err);
  vigie_batch_free(batch);
}

static void *work(void *unused) {
  vigie_status status;
  do {
    vigie_reply *job = NULL;
    status = vigie_jobs_take(jobs, VIGIE_TIMEOUT_NONE, &job, NULL);
    if (status == VIGIE_OK && job != NULL) {
      const char *order = vigie_reply_bytes(job, vigie_reply_find(job, VIGIE_ROOT, "payload", 7), NULL);
      if (vigie_reply_int(job, vigie_reply_find(job, VIGIE_ROOT, "redelivered", 11), 0) > 0) again++;
      /* The set makes it harmless to do one twice. */
      if (vigie_cmd_exec(client, VIGIE_CMD("SADD", "service:done", order), VIGIE_CALL_IDEMPOTENT, VIGIE_TIMEOUT_DEFAULT, NULL, NULL) == VIGIE_OK &&
          vigie_jobs_ack(jobs, vigie_reply_bytes(job, vigie_reply_find(job, VIGIE_ROOT, "id", 2), NULL), VIGIE_TIMEOUT_DEFAULT, NULL) == VIGIE_OK)
        done++;
      if (vigie_cmd_exec(client, VIGIE_CMD("PUBLISH", "service:news", order), 0, VIGIE_TIMEOUT_DEFAULT, NULL, NULL) != VIGIE_OK)
        fprintf(stderr, "order %s is done, and nobody heard of it\n", order);
    }
    vigie_reply_free(job);
  } while (status != VIGIE_ERR_CANCELLED);
  return unused;
}

/* Ends with vigie_queue_wakeup(). */
static void *listen_to_news(void *unused) {
  vigie_event event;
  while (vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, &event, 1) == 1) {
    if (event.kind == VIGIE_EVENT_MESSAGE) heard++;
    if (event.kind == VIGIE_EVENT_SUB_GAP) gaps++;
    vigie_events_clear(&event, 1);
  }
  return unused;
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_sub *sub = NULL;
  vigie_error *err = NULL;
  pthread_t worker, listener;
  struct pollfd input = {.fd = 0, .events = POLLIN};

  if (argc < 2) {
    fprintf(stderr, "usage: service URI\n");
    return 2;
  }
  if (vigie_config_set(config, "uri", argv[1], &err) != VIGIE_OK) die("uri", err);
  if (vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_jobs_for(client, "service:orders", "worker-1", VIGIE_TIMEOUT_DEFAULT, &jobs, &err) != VIGIE_OK) die("jobs", err);
  if (vigie_queue_create(16, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_sub_for(client, queue, 0, NULL, &sub, &err) != VIGIE_OK) die("subscription", err);
  if (vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "service:news"), VIGIE_TIMEOUT_DEFAULT, &err) != VIGIE_OK) die("subscribe", err);
  pthread_create(&worker, NULL, work, NULL);
  pthread_create(&listener, NULL, listen_to_news, NULL);

  printf("serving\n");
  fflush(stdout);
  for (long number = 0; poll(&input, 1, 1) == 0; number++) book(number);

  /* What was booked is done before the end. */
  for (long left = 1; left > 0; poll(NULL, 0, 10)) {
    vigie_reply *reply = NULL;
    vigie_batch *batch = vigie_batch_new();
    vigie_batch_add(batch, VIGIE_CMD("LLEN", "service:orders"));
    vigie_batch_add(batch, VIGIE_CMD("LLEN", "{service:orders}:processing:worker-1"));
    if (vigie_batch_exec(client, batch, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK) die("LLEN", err);
    left = (long)(vigie_reply_int(reply, vigie_reply_child(reply, VIGIE_ROOT, 0), 1) +
                  vigie_reply_int(reply, vigie_reply_child(reply, VIGIE_ROOT, 1), 1));
    vigie_reply_free(reply);
    vigie_batch_free(batch);
  }
  vigie_jobs_stop(jobs, NULL);
  pthread_join(worker, NULL);
  vigie_queue_wakeup(queue);
  pthread_join(listener, NULL);
  if (vigie_jobs_close(jobs, VIGIE_TIMEOUT_DEFAULT, &err) != VIGIE_OK) die("close", err);
  printf("booked %ld, unknown %ld, done %ld, again %ld, heard %ld, gaps %ld\n", booked, unknown, done, again, heard, gaps);

  vigie_sub_free(sub);
  vigie_queue_free(queue);
  vigie_jobs_free(jobs);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
