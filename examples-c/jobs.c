/* A worker: takes jobs from a list, each of which is done at least once, whatever happens to workers and primaries.
 * ./jobs redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster?write.replicas=1 LIST WORKER COUNT
 *
 * WORKER is this worker's own name: started again under it, the worker begins with what it had in hand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static const char *field(const vigie_reply *job, const char *name) {
  return vigie_reply_bytes(job, vigie_reply_find(job, VIGIE_ROOT, name, strlen(name)), NULL);
}

/* Acknowledges a job, or hands it back. An answer that was lost is no reason to forget the job: it stays in this worker's hand until
 * one of both has succeeded, so it is tried again with the same id. */
static vigie_status settle(vigie_jobs *jobs, const char *id, int fails, vigie_error **err) {
  for (int more = 5;; more--) {
    vigie_status status = fails ? vigie_jobs_return(jobs, id, VIGIE_TIMEOUT_DEFAULT, err)
                                : vigie_jobs_ack(jobs, id, VIGIE_TIMEOUT_DEFAULT, err);
    if (more == 0 || !(vigie_error_flags(*err) & (VIGIE_EF_RETRYABLE | VIGIE_EF_MAYBE_EXECUTED))) return status;
    vigie_error_free(*err);
  }
}

/* Does one job; a job that fails is handed back, and comes again. */
static vigie_status work(vigie_jobs *jobs, const vigie_reply *job, vigie_error **err) {
  int again = vigie_reply_int(job, vigie_reply_find(job, VIGIE_ROOT, "redelivered", 11), 0) > 0;
  int fails = !again && strcmp(field(job, "payload"), "fail") == 0;
  printf("%s %s%s\n", fails ? "failed" : "did", field(job, "payload"), again ? " (perhaps not for the first time)" : "");
  fflush(stdout);
  return settle(jobs, field(job, "id"), fails, err);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_jobs *jobs = NULL;
  vigie_reply *job = NULL;
  vigie_error *err = NULL;

  if (argc < 5) {
    fprintf(stderr, "usage: jobs URI LIST WORKER COUNT\n");
    return 2;
  }
  if (vigie_config_set(config, "uri", argv[1], &err) != VIGIE_OK) die("uri", err);
  if (vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_jobs_for(client, argv[2], argv[3], VIGIE_TIMEOUT_DEFAULT, &jobs, &err) != VIGIE_OK) die("jobs", err);

  for (int left = atoi(argv[4]); left > 0;) {
    vigie_status status = vigie_jobs_take(jobs, VIGIE_TIMEOUT_NONE, &job, &err);
    if (status == VIGIE_OK && job != NULL) {
      status = work(jobs, job, &err);
      left--;
    }
    /* Nothing is lost: what could not be acknowledged comes again when this worker has ended. */
    if (status != VIGIE_OK) {
      fprintf(stderr, "%s\n", vigie_error_message(err));
      sleep(1); /* what lasts must not make it spin */
    }
    vigie_error_free(err);
    vigie_reply_free(job);
  }
  err = NULL;
  if (vigie_jobs_close(jobs, VIGIE_TIMEOUT_DEFAULT, &err) != VIGIE_OK) die("close", err);
  vigie_jobs_free(jobs);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
