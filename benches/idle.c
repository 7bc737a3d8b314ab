/* idle URI SECONDS CLIENTS...: the processor time of clients that were used once and idle since, in percent of one core. For each number
 * of clients in turn: that many clients of one service in one process, a PING on each, a pause, then SECONDS of nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <vigie.h>

static double cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void check(vigie_status status, vigie_error **error, const char *what) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s: %s\n", what, vigie_error_message(*error));
  exit(1);
}

static void rest(int seconds) {
  struct timespec pause = {seconds, 0};
  while (nanosleep(&pause, &pause) != 0) {
  }
}

static void measure(const char *uri, int seconds, int count) {
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = NULL;
  vigie_config *config = vigie_config_new();
  vigie_client **clients = calloc((size_t)count, sizeof *clients);
  if (clients == NULL) exit(1);
  check(vigie_config_set(config, "uri", uri, &error), &error, "the URI");
  check(vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &error), &error, "the Sentinels");
  for (int at = 0; at < count; at++) {
    vigie_reply *reply = NULL;
    check(vigie_primary_for(sentinel, NULL, NULL, &clients[at], &error), &error, "a client");
    check(vigie_cmd_exec(clients[at], VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error), &error, "PING");
    vigie_reply_free(reply);
  }
  rest(5); /* threads that were needed for the start retire */
  double before = cpu();
  rest(seconds);
  double used = cpu() - before;
  printf("%6d clients: %.3f %% of a core\n", count, 100 * used / seconds);
  fflush(stdout);
  for (int at = 0; at < count; at++) vigie_client_free(clients[at]);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  free(clients);
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  for (int at = 3; at < argc; at++) measure(argv[1], atoi(argv[2]), atoi(argv[at]));
  return 0;
}
