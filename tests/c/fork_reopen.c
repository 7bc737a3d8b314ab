/* Handles with the option fork = reopen, in children. The runner names the case: VIGIE_TEST_CASE. */
#include "common.h"

#include <dirent.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Static, so that what a child leaks on purpose is still reachable there. */
static vigie_config *config;
static vigie_sentinel *sentinel;
static vigie_client *client;
static vigie_error *error;

/* A child that hangs is ended by an alarm, and fails. */
static pid_t start_child(void (*body)(int), int number) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(120);
    error = NULL;
    body(number);
    _exit(0);
  }
  return child;
}

static void await_child(pid_t child) {
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void in_a_child(void (*body)(int), int number) { await_child(start_child(body, number)); }

static void open_handles(void) {
  config = config_of_deployment();
  GIVES(VIGIE_OK, vigie_config_set(config, "fork", "reopen", &error));
  GIVES(VIGIE_OK, vigie_config_set(config, "client.name", "forks", &error));
  GIVES(VIGIE_OK, vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &error));
  client = open_primary(sentinel);
}

static void free_handles(void) {
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
}

/* Sets a key to a value that no other process has, and gets it. */
static void set_and_get(vigie_client *with, const char *key, long value) {
  char text[64];
  vigie_reply *reply;
  snprintf(text, sizeof text, "%ld:%ld", (long)getpid(), value);
  vigie_reply_free(RUN(with, "SET", key, text));
  reply = RUN(with, "GET", key);
  CHECK(text_is(reply, VIGIE_ROOT, text));
  vigie_reply_free(reply);
}

static int64_t number_of(vigie_client *with, const char *key) {
  vigie_reply *reply = NULL;
  int64_t number;
  GIVES(VIGIE_OK, vigie_client_stats(with, &reply, &error));
  number = vigie_reply_int(reply, vigie_reply_find(reply, VIGIE_ROOT, key, strlen(key)), -1);
  vigie_reply_free(reply);
  return number;
}

/* ---- Each kind of handle ---- */

static vigie_client *replica, *split, *shards, *fixed_shards, *session, *fixed;
static vigie_sentinel *fixed_sentinel;
static vigie_queue *queue;
static vigie_sub *sub;
static vigie_call *call;
static vigie_scan *scan;
static vigie_jobs *jobs;
static int64_t session_id;
#define PING_LIST "*1\r\n$4\r\nPING\r\n"

static int64_t id_of(vigie_client *with) {
  vigie_reply *reply = RUN(with, "CLIENT", "ID");
  int64_t id = vigie_reply_int(reply, VIGIE_ROOT, -1);
  CHECK(id > 0);
  vigie_reply_free(reply);
  return id;
}

static void free_kinds(void) {
  vigie_jobs_free(jobs);
  vigie_scan_free(scan);
  vigie_call_free(call);
  vigie_sub_free(sub);
  vigie_queue_free(queue);
  vigie_client_free(session);
  vigie_client_free(fixed_shards);
  vigie_client_free(shards);
  vigie_client_free(fixed);
  vigie_sentinel_free(fixed_sentinel);
  vigie_client_free(split);
  vigie_client_free(replica);
  free_handles();
}

/* Drains a queue until an event of this kind comes. */
static void await_event(vigie_queue *from, int kind) {
  vigie_event event;
  int found;
  do {
    CHECK(vigie_queue_drain(from, VIGIE_TIMEOUT_DEFAULT, &event, 1) == 1 && event.status == VIGIE_OK);
    found = (int)event.kind;
    vigie_events_clear(&event, 1);
  } while (found != kind);
}

/* What belongs to a conversation stays with the parent. */
static void conversations_are_refused(void) {
  vigie_event event;
  vigie_reply *reply = NULL;
  vigie_sub *listener = NULL;
  GIVES(VIGIE_ERR_FORKED, vigie_cmd_exec(session, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  CHECK(vigie_client_is_closed(session) == 1);
  GIVES(VIGIE_ERR_FORKED, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "forks"), 1000, &error));
  GIVES(VIGIE_ERR_FORKED, vigie_sub_for(client, queue, 1, NULL, &listener, &error));
  GIVES(VIGIE_ERR_FORKED, vigie_cmds_submit(client, PING_LIST, sizeof PING_LIST - 1, 0, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  GIVES(VIGIE_ERR_FORKED, vigie_call_cmd_exec(call, client, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_ERR_FORKED, vigie_scan_next(scan, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  GIVES(VIGIE_ERR_FORKED, vigie_jobs_take(jobs, 1000, &reply, &error));
  GIVES(VIGIE_ERR_FORKED, vigie_sentinel_watch(sentinel, VIGIE_EVENT_ALL, queue, 1, &error));
  CHECK(vigie_queue_drain(queue, 0, &event, 1) == VIGIE_ERR_FORKED && vigie_queue_fd(queue) == -1);
}

/* What a child makes from a handle of its parent. */
static void children_of_handles_work(void) {
  vigie_queue *own_queue = NULL;
  vigie_client *own_session = NULL;
  vigie_sub *own_sub = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(16, &own_queue, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_ALL, own_queue, 9, &error));
  GIVES(VIGIE_OK, vigie_cmds_submit(client, PING_LIST, sizeof PING_LIST - 1, 0, VIGIE_TIMEOUT_DEFAULT, own_queue, 1, &error));
  await_event(own_queue, VIGIE_EVENT_COMPLETION);
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &own_session, &error));
  CHECK(id_of(own_session) != session_id);
  GIVES(VIGIE_OK, vigie_sub_for(client, own_queue, 2, NULL, &own_sub, &error));
  GIVES(VIGIE_OK, vigie_sub_exec(own_sub, VIGIE_CMD("SUBSCRIBE", "forks:child"), VIGIE_TIMEOUT_DEFAULT, &error));
  vigie_sub_free(own_sub);
  vigie_client_free(own_session);
  vigie_queue_free(own_queue);
}

static void use_kinds(int generation) {
  vigie_client *all[] = {NULL, NULL, NULL, NULL, NULL};
  vigie_reply *reply;
  size_t i;
  all[0] = client, all[1] = split, all[2] = fixed, all[3] = shards, all[4] = fixed_shards;
  if (generation > 0) {
    CHECK(number_of(client, "calls") == 0 && number_of(replica, "calls") == 0);
    conversations_are_refused();
  }
  for (i = 0; i < sizeof all / sizeof *all; i++) set_and_get(all[i], "forks:kinds", (long)i);
  reply = RUN(replica, "ROLE");
  CHECK(text_is(reply, vigie_reply_child(reply, VIGIE_ROOT, 0), "slave"));
  vigie_reply_free(reply);
  /* The database is an option that was changed after the handle was made. */
  reply = RUN(client, "CLIENT", "INFO");
  CHECK(strstr(vigie_reply_bytes(reply, VIGIE_ROOT, NULL), " db=3 ") != NULL);
  vigie_reply_free(reply);
  reply = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_refresh(sentinel, service(), VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  vigie_reply_free(reply);
  if (generation > 0) children_of_handles_work();
}

static void only_free(int generation) {
  (void)generation;
  free_kinds();
  CHECK(vigie_threads_join(0) == VIGIE_OK);
}

static void close_kinds(int generation) {
  (void)generation;
  GIVES(VIGIE_OK, vigie_client_close(client, 1000, &error));
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 1000, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_cmd_exec(split, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  free_kinds();
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
}

/* The clients alone are used: their sentinel handle ends with them. */
static void use_one_and_free(int generation) {
  set_and_get(client, "forks:one", generation);
  free_kinds();
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
}

static void use_kinds_and_fork(int generation) {
  if (generation == 2) in_a_child(use_kinds_and_fork, 3); /* forked before its first use, it makes all from its grandparent's */
  use_kinds(generation);
  if (generation < 3) {
    in_a_child(use_kinds_and_fork, generation + 1);
    in_a_child(only_free, 0);
    use_kinds(0);
  }
  free_kinds();
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
}

static void open_kinds(void) {
  char one[256], uri[256];
  const char *texts[1];
  vigie_config *options = vigie_config_new();
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "db", "3", &error));
  GIVES(VIGIE_OK, vigie_replica_for(sentinel, service(), NULL, &replica, &error));
  GIVES(VIGIE_OK, vigie_split_for(sentinel, service(), NULL, &split, &error));
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &session, &error));
  snprintf(one, sizeof one, "node_1=sentinel:%s", service());
  texts[0] = one;
  GIVES(VIGIE_OK, vigie_shards_for(sentinel, texts, 1, NULL, &shards, &error));
  /* The option of a client, because there is no handle. */
  GIVES(VIGIE_OK, vigie_config_set(options, "fork", "reopen", &error));
  snprintf(one, sizeof one, "node_1=redis://%s", environment("VIGIE_TEST_PRIMARY"));
  GIVES(VIGIE_OK, vigie_shards_for(NULL, texts, 1, options, &fixed_shards, &error));
  snprintf(uri, sizeof uri, "redis://%s/3?fork=reopen&timeout.call=" CALL_PATIENCE, environment("VIGIE_TEST_PRIMARY"));
  GIVES(VIGIE_OK, vigie_config_set(options, "uri", uri, &error));
  GIVES(VIGIE_OK, vigie_sentinel_create(options, VIGIE_TIMEOUT_DEFAULT, &fixed_sentinel, &error));
  GIVES(VIGIE_OK, vigie_primary_for(fixed_sentinel, NULL, NULL, &fixed, &error));
  vigie_config_free(options);
  session_id = id_of(session);
  vigie_reply_free(RUN(session, "WATCH", "forks:watched"));
  GIVES(VIGIE_OK, vigie_queue_create(16, &queue, &error));
  GIVES(VIGIE_OK, vigie_sub_for(client, queue, 2, NULL, &sub, &error));
  GIVES(VIGIE_OK, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "forks"), VIGIE_TIMEOUT_DEFAULT, &error));
  call = vigie_call_new();
  GIVES(VIGIE_OK, vigie_call_cmd_exec(call, client, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, vigie_scan_for(client, VIGIE_CMD("SCAN", "0"), 0, &scan, &error));
  GIVES(VIGIE_OK, vigie_jobs_for(client, "forks:jobs", NULL, VIGIE_TIMEOUT_DEFAULT, &jobs, &error));
}

static void kinds(void) {
  int64_t calls;
  open_handles();
  open_kinds();
  use_kinds(0);
  calls = number_of(client, "calls");
  in_a_child(use_kinds_and_fork, 1);
  in_a_child(only_free, 0);
  in_a_child(close_kinds, 0);
  in_a_child(use_one_and_free, 0);
  /* The parent's connections are as they were. */
  CHECK(number_of(client, "calls") == calls);
  CHECK(id_of(session) == session_id);
  vigie_reply_free(RUN(session, "MULTI"));
  vigie_reply_free(RUN(session, "SET", "forks:watched", "1"));
  vigie_reply_free(RUN(session, "EXEC"));
  vigie_reply_free(RUN(client, "PUBLISH", "forks", "on"));
  await_event(queue, VIGIE_EVENT_MESSAGE);
  use_kinds(0);
  /* What was closed stays closed. */
  GIVES(VIGIE_OK, vigie_client_close(client, 1000, &error));
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 1000, &error));
  in_a_child(close_kinds, 0);
  free_kinds();
}

/* ---- Many threads ---- */

enum { CALLERS = 64, CHILDREN = 30, CALLS = 20 };

static volatile int over;

static void *calls_in_a_loop(void *at) {
  char key[64];
  long turn;
  snprintf(key, sizeof key, "forks:parent:%ld", (long)(intptr_t)at);
  for (turn = 0; !over; turn++) set_and_get(client, key, turn);
  return NULL;
}

/* Discoveries, handles that are made and freed, and waits for threads: each with locks of its own. */
static void *makes_in_a_loop(void *none) {
  (void)none;
  while (!over) {
    vigie_error *mine = NULL;
    vigie_sentinel *other = NULL;
    vigie_client *through = NULL;
    vigie_reply *reply = NULL;
    CHECK(vigie_sentinel_refresh(sentinel, service(), VIGIE_TIMEOUT_DEFAULT, &reply, &mine) == VIGIE_OK);
    vigie_reply_free(reply);
    CHECK(vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &other, &mine) == VIGIE_OK);
    CHECK(vigie_primary_for(other, service(), NULL, &through, &mine) == VIGIE_OK);
    set_and_get(through, "forks:other", 0);
    CHECK(vigie_sentinel_configure(sentinel, "db", "0", &mine) == VIGIE_OK);
    vigie_client_free(through);
    vigie_sentinel_free(other);
    vigie_threads_join(1);
  }
  return NULL;
}

static void *submits_in_a_loop(void *none) {
  vigie_queue *own = NULL;
  vigie_error *mine = NULL;
  vigie_event event;
  (void)none;
  CHECK(vigie_queue_create(16, &own, &mine) == VIGIE_OK);
  while (!over) {
    CHECK(vigie_cmds_submit(client, PING_LIST, sizeof PING_LIST - 1, 0, VIGIE_TIMEOUT_DEFAULT, own, 1, &mine) == VIGIE_OK);
    CHECK(vigie_queue_drain(own, VIGIE_TIMEOUT_DEFAULT, &event, 1) == 1 && event.status == VIGIE_OK);
    vigie_events_clear(&event, 1);
  }
  vigie_queue_free(own);
  return NULL;
}

static void child_calls(int number) {
  char key[64];
  int turn;
  vigie_sentinel *own = NULL;
  snprintf(key, sizeof key, "forks:child:%d", number);
  for (turn = 0; turn < CALLS; turn++) set_and_get(client, key, turn);
  if (number % 3 == 0) {
    GIVES(VIGIE_OK, vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &own, &error));
    vigie_sentinel_free(own);
    GIVES(VIGIE_OK, vigie_config_set(config, "db", "1", &error));
  }
  free_handles();
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
}

static void threads(void) {
  pthread_t running[CALLERS + 2];
  int i, count = environment_number("VIGIE_TEST_CALLERS", CALLERS);
  open_handles();
  for (i = 0; i < count; i++) CHECK(pthread_create(&running[i], NULL, calls_in_a_loop, (void *)(intptr_t)i) == 0);
  CHECK(pthread_create(&running[count], NULL, makes_in_a_loop, NULL) == 0);
  CHECK(pthread_create(&running[count + 1], NULL, submits_in_a_loop, NULL) == 0);
  for (i = 0; i < CHILDREN; i++) in_a_child(child_calls, i);
  over = 1;
  for (i = 0; i < count + 2; i++) CHECK(pthread_join(running[i], NULL) == 0);
  free_handles();
}

/* ---- A thousand children ---- */

static int descriptors(void) {
  int count = 0;
  DIR *dir = opendir("/proc/self/fd");
  CHECK(dir != NULL);
  while (readdir(dir) != NULL) count++;
  closedir(dir);
  return count;
}

static void one_of_many(int number) {
  if (number % 20 == 0) set_and_get(client, "forks:many", number);
  if (number % 2 == 0) free_handles();
}

static void thousand(void) {
  int i, before;
  open_handles();
  for (i = 0; i < 20; i++) set_and_get(client, "forks:parent", i);
  before = descriptors();
  for (i = 0; i < 1000; i++) {
    in_a_child(one_of_many, i);
    if (i % 100 == 0) set_and_get(client, "forks:parent", i);
  }
  CHECK(descriptors() == before);
  free_handles();
}

/* ---- Programs that are executed ---- */

static void spawn_list(char *out, size_t size) {
  char *const argv[] = {(char *)"ls", (char *)"/proc/self/fd", NULL};
  int fds[2], status = 0;
  pid_t child;
  ssize_t got;
  size_t len = 0;
  posix_spawn_file_actions_t actions;
  CHECK(pipe(fds) == 0 && posix_spawn_file_actions_init(&actions) == 0);
  CHECK(posix_spawn_file_actions_adddup2(&actions, fds[1], 1) == 0);
  CHECK(posix_spawn_file_actions_addclose(&actions, fds[0]) == 0);
  CHECK(posix_spawn_file_actions_addclose(&actions, fds[1]) == 0);
  CHECK(posix_spawnp(&child, "ls", &actions, NULL, argv, environ) == 0);
  CHECK(posix_spawn_file_actions_destroy(&actions) == 0 && close(fds[1]) == 0);
  while ((got = read(fds[0], out + len, size - 1 - len)) > 0) len += (size_t)got;
  out[len] = '\0';
  CHECK(close(fds[0]) == 0 && waitpid(child, &status, 0) == child && status == 0);
}

/* With connections opened all the time: no program that is executed meanwhile gets a descriptor of the library. */
static void executed(void) {
  static char before[65536], now[65536];
  pthread_t running[3];
  int i;
  spawn_list(before, sizeof before);
  open_handles();
  CHECK(pthread_create(&running[0], NULL, calls_in_a_loop, NULL) == 0);
  CHECK(pthread_create(&running[1], NULL, makes_in_a_loop, NULL) == 0);
  CHECK(pthread_create(&running[2], NULL, submits_in_a_loop, NULL) == 0);
  for (i = 0; i < 100; i++) {
    spawn_list(now, sizeof now);
    CHECK(strcmp(before, now) == 0);
  }
  over = 1;
  for (i = 0; i < 3; i++) CHECK(pthread_join(running[i], NULL) == 0);
  free_handles();
}

/* ---- A parent that is killed ---- */

static void outlives(int number) {
  char line[8];
  (void)number;
  printf("child\n");
  fflush(stdout);
  CHECK(fgets(line, sizeof line, stdin) != NULL);
  set_and_get(client, "forks:orphan", 0);
  printf("done\n");
  fflush(stdout);
}

static void killed(void) {
  open_handles();
  set_and_get(client, "forks:parent", 0);
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &session, &error));
  id_of(session);
  in_a_child(outlives, 0);
}

int main(void) {
  const char *wanted = environment("VIGIE_TEST_CASE");
  const struct {
    const char *name;
    void (*run)(void);
  } cases[] = {{"kinds", kinds}, {"threads", threads}, {"thousand", thousand}, {"executed", executed}, {"killed", killed}};
  size_t i;
  for (i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (strcmp(cases[i].name, wanted) == 0) {
      cases[i].run();
      return finish();
    }
  }
  fprintf(stderr, "no case %s\n", wanted);
  return 1;
}
