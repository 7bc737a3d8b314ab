/* What a failover looks like through vigie: several threads write and read through one client while the primary is killed.
 *
 *   demo URI [SECONDS [PID OF THE PRIMARY]]
 *
 * Each writer pushes 0, 1, 2, ... to a list of its own. RPUSH may not be sent twice, so the lists tell the whole truth at the
 * end: a number that was acknowledged and is missing is a lost write, one that is there twice was executed twice.
 *
 * Replication is asynchronous: what the primary acknowledged in its last moments may never have reached a replica. The
 * option write.replicas, or VIGIE_CALL_REPLICAS(n), waits until replicas have a write; the demo does without. So writes acknowledged later than 100 ms before the kill are
 * counted apart. Exit status: 0 if nothing else is missing, nothing is double, and writes went on after the kill. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vigie.h>

enum { WRITERS = 4, READERS = 2, CHUNK = 5000, KINDS = 16, SENTINELS = 8, LINE = 256 };
enum { CALL_MS = 10000, LONG_WAIT_MS = 250, PAUSE_US = 500, GRACE_MS = 100, OLD_ONLY_MS = 500 };

struct kind { /* errors of one status */
  vigie_status status;
  long writes, reads, maybe;
};

struct writer {
  pthread_t thread;
  int number;
  char key[32];
  double *acked; /* by sequence number: the time of its acknowledgement, 0 = none, below 0 = unknown outcome */
  long count, room;
};

static vigie_client *client;
static double began;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for everything down to the blank line, and for lines of output */
static int stop;
static long writes, reads;
static struct kind kinds[KINDS];
static int kind_count;
static double last_ack, longest_gap, gap_began, killed_at, back_at;

/* Seconds since the start. */
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9 - began;
}

static void pause_us(long us) {
  struct timespec t = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&t, NULL);
}

static void event(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  flockfile(stdout);
  printf("%7.3f s  ", now());
  vprintf(format, arguments);
  putchar('\n');
  fflush(stdout);
  funlockfile(stdout);
  va_end(arguments);
}

static int stopped(void) {
  pthread_mutex_lock(&lock);
  int result = stop;
  pthread_mutex_unlock(&lock);
  return result;
}

/* Counts an error by its kind; the first of each kind is shown whole. */
static void count_error(vigie_error *err, int is_write) {
  vigie_status status = vigie_error_status(err);
  int i = 0, maybe = (vigie_error_flags(err) & VIGIE_EF_MAYBE_EXECUTED) != 0, first = 0;
  pthread_mutex_lock(&lock);
  while (i < kind_count && kinds[i].status != status) i++;
  if (i == kind_count && kind_count < KINDS) {
    kinds[kind_count++].status = status;
    first = 1;
  }
  if (i < KINDS) {
    if (is_write) kinds[i].writes++, kinds[i].maybe += maybe;
    else kinds[i].reads++;
  }
  pthread_mutex_unlock(&lock);
  if (first) event("error      %s %s: %s", is_write ? "write" : "read", vigie_status_name(status), vigie_error_message(err));
}

/* Notes an acknowledged write: the gap before it, and whether the service is back after the kill. */
static void count_write(double at) {
  pthread_mutex_lock(&lock);
  writes++;
  if (at - last_ack > longest_gap) longest_gap = at - last_ack, gap_began = last_ack;
  /* Until Sentinel has declared the old primary down, an answer can only be one of its last, read late. */
  if (killed_at > 0 && back_at <= 0 && at > killed_at + OLD_ONLY_MS / 1e3) back_at = at;
  if (at > last_ack) last_ack = at;
  pthread_mutex_unlock(&lock);
}

static int remember(struct writer *self, double acked) {
  if (self->count == self->room) {
    long room = self->room > 0 ? 2 * self->room : 4096;
    double *grown = realloc(self->acked, (size_t)room * sizeof *grown);
    if (grown == NULL) return 0;
    self->acked = grown;
    self->room = room;
  }
  self->acked[self->count++] = acked;
  return 1;
}

static void *write_list(void *argument) {
  struct writer *self = argument;
  while (!stopped()) {
    char value[32];
    vigie_error *err = NULL;
    double from = now(), at, acked = 0;
    snprintf(value, sizeof value, "%ld", self->count);
    vigie_status status = vigie_cmd_exec(client, VIGIE_CMD("RPUSH", self->key, value), 0, CALL_MS, NULL, &err);
    at = now();
    if (status == VIGIE_OK) {
      acked = at;
      count_write(at);
    } else {
      if (vigie_error_flags(err) & VIGIE_EF_MAYBE_EXECUTED) acked = -1;
      count_error(err, 1);
    }
    if (at - from > LONG_WAIT_MS / 1e3)
      event("waited     write of thread %d: %.0f ms, then %s", self->number, (at - from) * 1e3, vigie_status_name(status));
    vigie_error_free(err);
    if (!remember(self, acked)) break;
    pause_us(PAUSE_US);
  }
  return NULL;
}

/* Reads go to the replicas: what they answer may be a little old, but they go on answering without a primary. */
static void *read_lists(void *argument) {
  struct writer *writer = argument;
  while (!stopped()) {
    vigie_error *err = NULL;
    if (vigie_cmd_exec(client, VIGIE_CMD("LINDEX", writer->key, "-1"), 0, CALL_MS, NULL, &err) == VIGIE_OK) {
      pthread_mutex_lock(&lock);
      reads++;
      pthread_mutex_unlock(&lock);
    } else {
      count_error(err, 0);
    }
    vigie_error_free(err);
    pause_us(2 * PAUSE_US);
  }
  return NULL;
}

/* A text of a reply's node; "" if there is none. */
static const char *text_of(const vigie_reply *map, uint32_t node) {
  const char *text = vigie_reply_bytes(map, node, NULL);
  return text != NULL ? text : "";
}

static uint32_t find(const vigie_reply *map, uint32_t node, const char *key) {
  return vigie_reply_find(map, node, key, strlen(key));
}

/* Shows a text if it is another one than before. */
static void if_new(char before[LINE], const char *now_known, const char *kind) {
  if (strcmp(before, now_known) == 0) return;
  snprintf(before, LINE, "%s", now_known);
  event("%-10s %s", kind, now_known);
}

/* A line for each change of what the library knows: what each Sentinel said last, and what follows. No network is touched. */
static void show_topology(vigie_sentinel *sentinel, const char *service) {
  static struct { char addr[64], text[LINE]; } said[SENTINELS];
  static char known[LINE];
  char line[LINE];
  vigie_reply *map = NULL;
  if (vigie_sentinel_topology(sentinel, service, &map, NULL) != VIGIE_OK) return;
  uint32_t sentinels = find(map, VIGIE_ROOT, "sentinels"), replicas = find(map, VIGIE_ROOT, "replicas"), fit = 0;
  for (uint32_t i = 0; i < vigie_reply_count(map, sentinels) && i < SENTINELS; i++) {
    uint32_t one = vigie_reply_child(map, sentinels, i);
    const char *addr = text_of(map, find(map, one, "addr"));
    int s = 0; /* they come in any order */
    while (s < SENTINELS - 1 && said[s].addr[0] != '\0' && strcmp(said[s].addr, addr) != 0) s++;
    snprintf(said[s].addr, sizeof said[s].addr, "%s", addr);
    snprintf(line, sizeof line, "%s says %s", addr, text_of(map, find(map, one, "text")));
    if_new(said[s].text, line, "sentinel");
  }
  for (uint32_t i = 0; i < vigie_reply_count(map, replicas); i++)
    fit += vigie_reply_type(map, find(map, vigie_reply_child(map, replicas, i), "unfit")) == VIGIE_TYPE_NULL;
  const char *primary = text_of(map, find(map, VIGIE_ROOT, "primary"));
  snprintf(line, sizeof line, "primary %s, %u of %u replicas fit to read from", *primary != '\0' ? primary : "unknown",
           (unsigned)fit, (unsigned)vigie_reply_count(map, replicas));
  if_new(known, line, "topology");
  vigie_reply_free(map);
}

/* Watches for `seconds`: lines when the topology changes, a progress line every second, the kill after a quarter of the time. */
static void watch(vigie_sentinel *sentinel, const char *service, double seconds, pid_t victim) {
  long writes_before = 0, reads_before = 0;
  double next_line = 1;
  for (double at = now(); at < seconds; at = now()) {
    show_topology(sentinel, service);
    if (victim > 0 && at > seconds / 4) {
      pthread_mutex_lock(&lock);
      killed_at = now();
      int failed = kill(victim, SIGKILL);
      pthread_mutex_unlock(&lock);
      event(failed ? "cannot kill process %ld" : "KILL       the primary (process %ld) is killed", (long)victim);
      victim = 0;
    }
    if (at >= next_line) {
      pthread_mutex_lock(&lock);
      long w = writes, r = reads;
      pthread_mutex_unlock(&lock);
      event("progress   %5ld writes/s  %5ld reads/s  %7ld writes acknowledged", w - writes_before, r - reads_before, w);
      writes_before = w, reads_before = r, next_line += 1;
    }
    pause_us(10000);
  }
}

struct verdict {
  long acked, unknown, unknown_there, lost, lost_at_the_kill, doubled;
};

/* How often each number of a writer's list is there, read in chunks from the primary; NULL (and a line) if it cannot be read. */
static unsigned char *read_back(const struct writer *self) {
  unsigned char *seen = calloc((size_t)self->count + 1, 1);
  for (long from = 0, got = CHUNK; seen != NULL && got == CHUNK; from += CHUNK) {
    char first[32], last[32];
    vigie_reply *reply = NULL;
    vigie_error *err = NULL;
    snprintf(first, sizeof first, "%ld", from);
    snprintf(last, sizeof last, "%ld", from + CHUNK - 1);
    vigie_status status = vigie_cmd_exec(client, VIGIE_CMD("LRANGE", self->key, first, last), VIGIE_CALL_ON_PRIMARY, CALL_MS, &reply, &err);
    if (status != VIGIE_OK) {
      event("error      reading %s back: %s: %s", self->key, vigie_status_name(status), vigie_error_message(err));
      vigie_error_free(err);
      free(seen);
      return NULL;
    }
    got = (long)vigie_reply_count(reply, VIGIE_ROOT);
    for (long i = 0; i < got; i++) {
      int64_t number = vigie_reply_int(reply, vigie_reply_child(reply, VIGIE_ROOT, (uint32_t)i), -1);
      if (number >= 0 && number < self->count && seen[number] < 255) seen[number]++;
    }
    vigie_reply_free(reply);
  }
  return seen;
}

static int judge(const struct writer *self, struct verdict *verdict) {
  unsigned char *seen = read_back(self);
  if (seen == NULL) return 0;
  for (long i = 0; i < self->count; i++) {
    double acked = self->acked[i];
    verdict->acked += acked > 0;
    verdict->unknown += acked < 0;
    verdict->unknown_there += acked < 0 && seen[i] > 0;
    verdict->doubled += seen[i] > 1;
    if (acked > 0 && seen[i] == 0) {
      int at_the_kill = killed_at > 0 && acked > killed_at - GRACE_MS / 1e3 && acked < killed_at + OLD_ONLY_MS / 1e3;
      if (at_the_kill) verdict->lost_at_the_kill++;
      else verdict->lost++;
    }
  }
  free(seen);
  return 1;
}

static int summary(const struct writer *all, double seconds, int killed) {
  struct verdict v = {0, 0, 0, 0, 0, 0};
  int readable = 1;
  for (int i = 0; i < WRITERS; i++) readable = readable && judge(&all[i], &v);
  int back = !killed || back_at > 0;

  printf("\nSummary of %.0f seconds, %d writers and %d readers on one client\n", seconds, WRITERS, READERS);
  printf("  writes acknowledged     %ld\n", v.acked);
  printf("  lost                    %ld\n", v.lost);
  if (killed) printf("  lost with the primary   %ld  (acknowledged within %d ms before the kill: replication is asynchronous)\n", v.lost_at_the_kill, GRACE_MS);
  printf("  executed twice          %ld\n", v.doubled);
  printf("  outcome unknown         %ld  (%ld of them had been executed)\n", v.unknown, v.unknown_there);
  printf("  reads answered          %ld\n", reads);
  printf("  longest gap             %.0f ms between two acknowledged writes, from %.3f s\n", longest_gap * 1e3, gap_began);
  if (killed && back) printf("  service back            %.0f ms after the kill\n", (back_at - killed_at) * 1e3);
  printf("  errors%s\n", kind_count == 0 ? "                  none" : "");
  for (int i = 0; i < kind_count; i++)
    printf("    %-26s %ld writes (%ld may have been executed), %ld reads\n", vigie_status_name(kinds[i].status), kinds[i].writes, kinds[i].maybe, kinds[i].reads);
  if (!readable) printf("FAILED: the lists could not be read back\n");
  if (!back) printf("FAILED: the service did not come back\n");
  if (v.lost > 0) printf("FAILED: acknowledged writes are missing\n");
  if (v.doubled > 0) printf("FAILED: writes were executed twice\n");
  return readable && back && v.acked > 0 && v.lost == 0 && v.doubled == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The name after the last '/' of the URI, without the options. */
static void service_of(const char *uri, char *out, size_t size) {
  const char *slash = strrchr(uri, '/');
  snprintf(out, size, "%s", slash != NULL ? slash + 1 : "");
  out[strcspn(out, "?")] = '\0';
}

/* Starts all threads, watches, and ends them; false if a thread could not be started. */
static int run(struct writer *all, vigie_sentinel *sentinel, const char *service, double seconds, pid_t victim) {
  pthread_t readers[READERS];
  int w = 0, r = 0;
  for (; w < WRITERS; w++) {
    all[w].number = w;
    snprintf(all[w].key, sizeof all[w].key, "demo:%d", w);
    if (pthread_create(&all[w].thread, NULL, write_list, &all[w]) != 0) break;
  }
  for (; w == WRITERS && r < READERS; r++)
    if (pthread_create(&readers[r], NULL, read_lists, &all[r]) != 0) break;
  int whole = w == WRITERS && r == READERS;
  if (whole) watch(sentinel, service, seconds, victim);
  pthread_mutex_lock(&lock);
  stop = 1;
  pthread_mutex_unlock(&lock);
  while (r > 0) pthread_join(readers[--r], NULL);
  while (w > 0) pthread_join(all[--w].thread, NULL);
  return whole;
}

/* Empties the lists of an earlier run, which also proves that the service is there. */
static int empty_lists(vigie_error **err) {
  for (int i = 0; i < WRITERS; i++) {
    char key[32];
    snprintf(key, sizeof key, "demo:%d", i);
    if (vigie_cmd_exec(client, VIGIE_CMD("DEL", key), 0, CALL_MS, NULL, err) != VIGIE_OK) return 0;
  }
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s redis-sentinel://HOST:PORT,HOST:PORT/SERVICE [SECONDS [PID OF THE PRIMARY]]\n", argv[0]);
    return EXIT_FAILURE;
  }
  double seconds = argc > 2 ? atof(argv[2]) : 10;
  pid_t victim = argc > 3 ? (pid_t)atol(argv[3]) : 0;
  char service[128];
  struct writer *all = calloc(WRITERS, sizeof *all);
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_error *err = NULL;
  int status = EXIT_FAILURE;
  service_of(argv[1], service, sizeof service);

  /* A split client: reads go to the replicas, everything else to the primary. */
  if (all != NULL && vigie_config_set(config, "uri", argv[1], &err) == VIGIE_OK &&
      vigie_sentinel_create(config, 2000, &sentinel, &err) == VIGIE_OK &&
      vigie_split_for(sentinel, service, NULL, &client, &err) == VIGIE_OK && empty_lists(&err)) {
    began = now();
    if (run(all, sentinel, service, seconds, victim)) status = summary(all, seconds, victim > 0);
    else fprintf(stderr, "threads could not be started\n");
  }
  if (err != NULL) fprintf(stderr, "%s: %s\n", vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  for (int i = 0; all != NULL && i < WRITERS; i++) free(all[i].acked);
  free(all);
  return status;
}
