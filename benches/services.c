/* services URI SECONDS known|unknown|failing COUNT: what many services cost on one handle.
 * known: a client of each of service-0 ... service-COUNT-1, a PING on each, then SECONDS of nothing; unknown: the same names, which no
 * Sentinel knows, and then as long again with calls to the service of the URI. Prints the processor time in percent of one core,
 * and in the second form also that with the calls, their number and the longest one. "idle" and "over" frame what is measured,
 * for who watches from outside; after each of them it waits for a byte on its input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <vigie.h>

static double cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void check(vigie_status status, vigie_error **error, const char *what) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s: %s\n", what, vigie_error_message(*error));
  exit(1);
}

static void rest(double seconds) {
  struct timespec pause = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
  while (nanosleep(&pause, &pause) != 0) {
  }
}

/* What a PING each 10 ms costs, and how long the longest one takes. */
static void call(vigie_client *known, int seconds) {
  vigie_error *error = NULL;
  double before = cpu(), end = now() + seconds, longest = 0;
  long calls = 0;
  while (now() < end) {
    double began = now();
    check(vigie_cmd_exec(known, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error), &error, "PING");
    double took = now() - began;
    if (took > longest) longest = took;
    calls++;
    rest(0.01);
  }
  printf("  with %ld calls to a known one beside them: %.3f %%, the longest call %.2f ms\n", calls, 100 * (cpu() - before) / seconds, 1000 * longest);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int seconds = atoi(argv[2]), count = atoi(argv[4]), unknown = strcmp(argv[3], "unknown") == 0;
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = NULL;
  vigie_config *config = vigie_config_new();
  vigie_client *known = NULL, **clients = calloc((size_t)count, sizeof *clients);
  if (clients == NULL) return 1;
  check(vigie_config_set(config, "uri", argv[1], &error), &error, "the URI");
  check(vigie_config_set(config, "client.name", "services", &error), &error, "the name");
  check(vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &error), &error, "the Sentinels");
  check(vigie_primary_for(sentinel, NULL, NULL, &known, &error), &error, "a client");
  check(vigie_cmd_exec(known, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error), &error, "PING");
  for (int at = 0; at < count; at++) {
    char name[32];
    snprintf(name, sizeof name, "service-%d", at);
    check(vigie_primary_for(sentinel, name, NULL, &clients[at], &error), &error, name);
    vigie_status status = vigie_cmd_exec(clients[at], VIGIE_CMD("PING"), 0, 60000, NULL, &error); /* the machine is busy with its Sentinels */
    if (unknown && status == VIGIE_ERR_UNKNOWN_SERVICE) {
      vigie_error_free(error);
      error = NULL;
    } else {
      check(status, &error, name);
    }
  }
  rest(8); /* threads that were needed for the start retire, and the first polls are over */
  puts("idle");
  fflush(stdout);
  getchar();
  double before = cpu();
  rest(seconds);
  printf("%d %s services: %.3f %% of a core\n", count, argv[3], 100 * (cpu() - before) / seconds);
  if (unknown) call(known, seconds);
  puts("over");
  fflush(stdout);
  getchar();
  for (int at = 0; at < count; at++) vigie_client_free(clients[at]);
  vigie_client_free(known);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  free(clients);
  return 0;
}
