/* A worker on an event loop: jobs are taken, done and acknowledged, and no thread waits, for a job or for a server.
 * ./jobs_loop redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster?write.replicas=1 LIST WORKER COUNT
 *
 * WORKER is this worker's own name: started again under it, the worker begins with what it had in hand. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { TAKE = 1, DONE, CLOSE };

static vigie_queue *queue;
static vigie_jobs *jobs;
static char id[65]; /* of the job in hand, which is settled when it is acknowledged or handed back */
static int fails, tries;

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static const char *field(const vigie_reply *job, const char *name) {
  return vigie_reply_bytes(job, vigie_reply_find(job, VIGIE_ROOT, name, strlen(name)), NULL);
}

static void take(void) {
  vigie_error *err = NULL;
  if (vigie_jobs_take_submit(jobs, VIGIE_TIMEOUT_NONE, queue, TAKE, &err) != VIGIE_OK) die("take", err);
}

/* Acknowledges the job in hand, or hands it back. */
static void settle(void) {
  vigie_error *err = NULL;
  tries++;
  vigie_status status = fails ? vigie_jobs_return_submit(jobs, id, VIGIE_TIMEOUT_DEFAULT, queue, DONE, &err)
                              : vigie_jobs_ack_submit(jobs, id, VIGIE_TIMEOUT_DEFAULT, queue, DONE, &err);
  if (status != VIGIE_OK) die("done", err);
}

/* Does one job; a job that fails is handed back, and comes again. */
static void work(const vigie_reply *job) {
  int again = vigie_reply_int(job, vigie_reply_find(job, VIGIE_ROOT, "redelivered", 11), 0) > 0;
  fails = !again && strcmp(field(job, "payload"), "fail") == 0;
  tries = 0;
  snprintf(id, sizeof id, "%s", field(job, "id"));
  printf("%s %s%s\n", fails ? "failed" : "did", field(job, "payload"), again ? " (perhaps not for the first time)" : "");
  fflush(stdout);
  settle();
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_error *err = NULL;
  vigie_event event;
  int closed = 0;

  if (argc < 5) {
    fprintf(stderr, "usage: jobs_loop URI LIST WORKER COUNT\n");
    return 2;
  }
  if (vigie_config_set(config, "uri", argv[1], &err) != VIGIE_OK) die("uri", err);
  if (vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_queue_create(8, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_jobs_for(client, argv[2], argv[3], VIGIE_TIMEOUT_DEFAULT, &jobs, &err) != VIGIE_OK) die("jobs", err);

  take();
  for (int left = atoi(argv[4]), pause = -1; !closed;) {
    struct pollfd ready = {vigie_queue_fd(queue), POLLIN, 0}; /* and whatever else the loop serves */
    if (poll(&ready, 1, pause) == 0) {
      pause = -1;
      take();
    }
    while (vigie_queue_drain(queue, 0, &event, 1) == 1) {
      int may_pass = vigie_error_flags(event.error) & (VIGIE_EF_RETRYABLE | VIGIE_EF_MAYBE_EXECUTED);
      if (event.status != VIGIE_OK) fprintf(stderr, "%s\n", vigie_error_message(event.error));
      if (event.token == CLOSE) closed = 1;
      else if (event.token == TAKE && event.reply != NULL) work(event.reply);
      else if (event.token == TAKE && event.status != VIGIE_OK) pause = 1000; /* what lasts must not make it spin */
      /* A lost answer is no reason to forget the job: with the same id it is looked up. */
      else if (event.token == DONE && may_pass && tries < 6) settle();
      else if (event.token == DONE && --left == 0) {
        if (vigie_jobs_close_submit(jobs, VIGIE_TIMEOUT_DEFAULT, queue, CLOSE, &err) != VIGIE_OK) die("close", err);
      } else take();
      vigie_events_clear(&event, 1);
    }
  }

  vigie_jobs_free(jobs);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
