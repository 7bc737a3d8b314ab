/* The end of everything: once the last handle is freed, the library's threads end at once, and a join waits no longer than told. */
#include "common.h"

#include <dirent.h>
#include <poll.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int threads(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/task");
  CHECK(dir != NULL);
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) n += entry->d_name[0] != '.';
  closedir(dir);
  return n;
}

/* How long the machine takes for a sleep of 10 ms now, beyond those. */
static double overslept(void) {
  double begun = now();
  poll(NULL, 0, 10);
  return now() - begun - 10;
}

/* A client at work: pools with their upkeep, a lane for submits, a watch. */
static double end_of_a_life(int silent) {
  vigie_error *error = NULL;
  vigie_queue *queue = NULL;
  vigie_event event;
  vigie_config *config = config_of_deployment();
  vigie_sentinel *sentinel = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_create(config, 0, &sentinel, &error));
  vigie_client *client = open_primary(sentinel);
  if (silent) {
    /* Its Sentinel accepts nothing: the discovery is under way when everything is freed. */
    CHECK(vigie_cmd_exec(client, VIGIE_CMD("PING"), 0, 50, NULL, &error) == VIGIE_ERR_TIMEOUT);
    vigie_error_free(error);
    error = NULL;
  } else {
    GIVES(VIGIE_OK, vigie_queue_create(16, &queue, &error));
    GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_TOPOLOGY, queue, 1, &error));
    vigie_reply_free(RUN(client, "SET", "process:join", "1"));
    GIVES(VIGIE_OK, vigie_cmds_submit(client, "*1\r\n$4\r\nPING\r\n", 14, 0, 20000, queue, 2, &error));
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, &event, 1) == 1 && event.status == VIGIE_OK);
    vigie_events_clear(&event, 1);
    double begun = now();
    CHECK(vigie_threads_join(100) == VIGIE_ERR_TIMEOUT);
    CHECK(now() - begun >= 100);
    /* What was dismissed comes back when it is needed. */
    vigie_reply_free(RUN(client, "GET", "process:join"));
  }
  vigie_config_free(config);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_queue_free(queue);
  double begun = now();
  CHECK(vigie_threads_join(VIGIE_TIMEOUT_NONE) == VIGIE_OK);
  double took = now() - begun;
  CHECK(threads() == 1);
  return took;
}

int main(void) {
  int silent = environment_number("VIGIE_TEST_SILENT", 0);
  double took = 0, late = 0;
  /* A machine that is busy with other things may be late once or twice. */
  for (int i = 0; i < 5; i++) {
    late = overslept();
    took = end_of_a_life(silent);
    late += overslept();
    if (took <= 50 + 2 * late) return 0;
  }
  fprintf(stderr, "the last of five joins took %.1f ms, on a machine that overslept by %.1f ms\n", took, late);
  return 1;
}
