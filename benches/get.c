/* Next to hiredis in one run: GET of 64 bytes, one thread; what an open client costs in memory and threads.
 * get URI HOST PORT: the deployment for vigie, and its primary for hiredis, which knows no Sentinel. */
#define _GNU_SOURCE
#include <dirent.h>
#include <hiredis/hiredis.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vigie.h>

enum { ROUNDS = 5, CALLS = 20000, WARM = 1000, SIZE = 64 };

struct figures {
  double wall[ROUNDS], cpu[ROUNDS]; /* microseconds per call; CPU is the whole process's, library threads included */
};

static vigie_client *vigie;
static redisContext *hiredis;

static double seconds(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void get_by_vigie(void) {
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  size_t len = 0;
  if (vigie_cmd_exec(vigie, VIGIE_CMD("GET", "bench"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK)
    die("vigie", vigie_error_message(err));
  if (vigie_reply_bytes(reply, VIGIE_ROOT, &len) == NULL || len != SIZE) die("vigie", "a wrong answer");
  vigie_reply_free(reply);
}

static void get_by_hiredis(void) {
  const char *argv[] = {"GET", "bench"};
  redisReply *reply = redisCommandArgv(hiredis, 2, argv, NULL);
  if (reply == NULL || reply->type != REDIS_REPLY_STRING || reply->len != SIZE) die("hiredis", hiredis->errstr);
  freeReplyObject(reply);
}

static void measure(void (*get)(void), struct figures *out, int round) {
  for (int i = 0; i < WARM; i++) get();
  double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < CALLS; i++) get();
  out->wall[round] = (seconds(CLOCK_MONOTONIC) - wall) * 1e6 / CALLS;
  out->cpu[round] = (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e6 / CALLS;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values) {
  qsort(values, ROUNDS, sizeof *values, ascending);
  return values[ROUNDS / 2];
}

static size_t heap(void) {
  struct mallinfo2 m = mallinfo2();
  return m.uordblks + m.hblkhd;
}

static int threads(void) {
  int count = 0;
  DIR *dir = opendir("/proc/self/task");
  if (dir == NULL) die("/proc/self/task", "cannot be read");
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) count += entry->d_name[0] != '.';
  closedir(dir);
  return count;
}

/* A median within 5 % of its target counts as met. */
static void line(const char *what, double value, const char *format, const char *target, int met) {
  char text[32];
  snprintf(text, sizeof text, format, value);
  printf("  %-52s %12s   target %-12s %s\n", what, text, target, met ? "met" : "MISSED");
}

static void open_vigie(const char *uri) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_error *err = NULL;
  if (vigie_config_set(config, "uri", uri, &err) != VIGIE_OK || vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK ||
      vigie_primary_for(sentinel, NULL, NULL, &vigie, &err) != VIGIE_OK)
    die("vigie", vigie_error_message(err));
  vigie_config_free(config);
  vigie_sentinel_free(sentinel); /* the client keeps it alive */
}

int main(int argc, char **argv) {
  struct figures v, h;
  char value[SIZE + 1];
  if (argc != 4) die("usage", "get URI HOST PORT");
  hiredis = redisConnect(argv[2], atoi(argv[3]));
  if (hiredis == NULL || hiredis->err) die("hiredis", hiredis != NULL ? hiredis->errstr : "out of memory");
  memset(value, 'x', SIZE);
  value[SIZE] = '\0';
  freeReplyObject(redisCommand(hiredis, "SET bench %s", value));

  /* The directory's own buffer is gone before the first heap figure is taken. */
  int threads_before = threads();
  size_t heap_before = heap();
  open_vigie(argv[1]);
  get_by_vigie();
  double kilobytes = (double)(heap() - heap_before) / 1000;
  /* What was started at once for the first call goes again within moments. */
  for (int i = 0; i < 300 && threads() - threads_before > 2; i++) poll(NULL, 0, 10);
  int library_threads = threads() - threads_before;

  for (int round = 0; round < ROUNDS; round++) {
    /* Whoever comes first in a round has the colder caches: turn about. */
    measure(round % 2 ? get_by_vigie : get_by_hiredis, round % 2 ? &v : &h, round);
    measure(round % 2 ? get_by_hiredis : get_by_vigie, round % 2 ? &h : &v, round);
  }
  double v_wall = median(v.wall), h_wall = median(h.wall), v_cpu = median(v.cpu), h_cpu = median(h.cpu);
  printf("GET of %d bytes, one thread, %d interleaved rounds of %d calls, medians\n", SIZE, ROUNDS, CALLS);
  printf("  hiredis %.2f us/call (CPU %.2f), vigie %.2f us/call (CPU %.2f)\n", h_wall, h_cpu, v_wall, v_cpu);
  line("calls/s, vigie to hiredis", h_wall / v_wall, "%.3f", ">= 1.0", h_wall / v_wall >= 0.95);
  line("client CPU per call, vigie to hiredis", v_cpu / h_cpu, "%.3f", "<= 1.0", v_cpu / h_cpu <= 1.05);
  printf("One open client with one connection\n");
  line("heap, KB", kilobytes, "%.1f", "< 100", kilobytes < 100);
  line("library threads", library_threads, "%.0f", "<= 2", library_threads <= 2);

  vigie_client_free(vigie);
  redisFree(hiredis);
  return 0;
}
