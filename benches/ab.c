/* ab URI MODE THREADS SECONDS: one figure of an installed library, for scripts/bench-ab.
 * get: calls of GET per second, by so many threads on one client; connect: handles that were made, found their primary and answered one
 * PING, per second, one after the other. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vigie.h>

static vigie_client *client;
static atomic_bool over;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void check(vigie_status status, vigie_error **error) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s\n", vigie_error_message(*error));
  exit(1);
}

static vigie_sentinel *make(const char *uri, vigie_client **made) {
  vigie_error *error = NULL;
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  check(vigie_config_set(config, "uri", uri, &error), &error);
  check(vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &error), &error);
  vigie_config_free(config);
  check(vigie_primary_for(sentinel, NULL, NULL, made, &error), &error);
  check(vigie_cmd_exec(*made, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error), &error);
  return sentinel;
}

static void *get(void *count) {
  long calls = 0;
  for (; !atomic_load_explicit(&over, memory_order_relaxed); calls++) {
    vigie_error *error = NULL;
    vigie_reply *reply = NULL;
    check(vigie_cmd_exec(client, VIGIE_CMD("GET", "bench"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error), &error);
    vigie_reply_free(reply);
  }
  *(long *)count = calls;
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int threads = atoi(argv[3]);
  double seconds = atof(argv[4]), begun;
  long done = 0;
  if (strcmp(argv[2], "connect") == 0) {
    for (begun = now(); now() - begun < seconds; done++) {
      vigie_sentinel *sentinel = make(argv[1], &client);
      vigie_client_free(client);
      vigie_sentinel_free(sentinel);
    }
    printf("%.1f\n", (double)done / (now() - begun));
    return 0;
  }
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = make(argv[1], &client);
  check(vigie_cmd_exec(client, VIGIE_CMD("SET", "bench", "0123456789012345678901234567890123456789012345678901234567890123"), 0,
                       VIGIE_TIMEOUT_DEFAULT, NULL, &error),
        &error);
  pthread_t *thread = calloc((size_t)threads, sizeof *thread);
  long *count = calloc((size_t)threads, sizeof *count);
  if (thread == NULL || count == NULL) return 1;
  begun = now();
  for (int at = 0; at < threads; at++) pthread_create(&thread[at], NULL, get, &count[at]);
  struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&pause, NULL);
  atomic_store(&over, 1);
  for (int at = 0; at < threads; at++) {
    pthread_join(thread[at], NULL);
    done += count[at];
  }
  printf("%.0f\n", (double)done / (now() - begun));
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  free(thread);
  free(count);
  return 0;
}
