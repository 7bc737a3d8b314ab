/* A prefork server: a master that opens the handles, and four workers that use them, all of them under load through failovers. The runner
 * is told on stdout where it is, and tells on stdin when it goes on. */
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 4 };

static vigie_sentinel *sentinel;
static vigie_client *client;
static vigie_error *error;
static volatile sig_atomic_t over;

static void on_term(int number) {
  (void)number;
  over = 1;
}

static void key_and_value(char *key, char *value, size_t size, int who, long turn) {
  snprintf(key, size, "prefork:%d:%ld", who, turn);
  snprintf(value, size, "%d has written %ld", who, turn);
}

/* Gets what was acknowledged: another process has another value under its keys, and a reply of another call has another turn. */
static void expect(int who, long turn) {
  char key[64], value[64];
  vigie_reply *reply;
  key_and_value(key, value, sizeof key, who, turn);
  reply = RUN(client, "GET", key);
  CHECK(text_is(reply, VIGIE_ROOT, value));
  vigie_reply_free(reply);
}

/* Writes until it is told to end. The keys of writes that were acknowledged stand in the list. */
static size_t load(int who, long **list) {
  size_t acked = 0, room = 0;
  long turn;
  *list = NULL;
  for (turn = 0; !over; turn++) {
    char key[64], value[64];
    vigie_error *failure = NULL;
    vigie_status status;
    key_and_value(key, value, sizeof key, who, turn);
    status = vigie_cmd_exec(client, VIGIE_CMD("SET", key, value), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &failure);
    /* What is not known to have run is no success, and no fault. */
    CHECK(status == VIGIE_OK || (vigie_error_flags(failure) & VIGIE_EF_MAYBE_EXECUTED) != 0);
    vigie_error_free(failure);
    if (status != VIGIE_OK) continue;
    if (acked == room) {
      room = room == 0 ? 1024 : room * 2;
      *list = realloc(*list, room * sizeof **list);
      CHECK(*list != NULL);
    }
    (*list)[acked++] = turn;
    expect(who, turn);
    /* Some hundred writes in a second meet each moment of a failover, and leave the machine to others. */
    poll(NULL, 0, 4);
  }
  return acked;
}

static void verify(int who, const long *list, size_t acked) {
  size_t i;
  CHECK(acked > 0);
  for (i = 0; i < acked; i++) expect(who, list[i]);
}

/* The load of this process until the runner, or the master, says that it ends; then every acknowledged write is there. */
static void serve(int who) {
  long *list;
  size_t acked = load(who, &list);
  verify(who, list, acked);
  free(list);
}

static void free_handles(void) {
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
}

static pid_t start(int who) {
  pid_t child;
  fflush(stdout);
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(500);
    serve(who);
    free_handles();
    CHECK(vigie_threads_join(60000) == VIGIE_OK);
    _exit(0);
  }
  return child;
}

static void end(pid_t child) {
  int status = 0;
  CHECK(kill(child, SIGTERM) == 0);
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void tell(const char *line) {
  printf("%s\n", line);
  fflush(stdout);
}

static void hear(void) {
  char letter;
  do CHECK(read(0, &letter, 1) == 1);
  while (letter != '\n');
}

static void *load_of_the_master(void *none) {
  serve(WORKERS + 1);
  return none;
}

/* Until the runner says go on: children that are forked at any moment of a failover, one after the other. */
static void fork_until_told(int who) {
  struct pollfd told = {0, POLLIN, 0};
  while (poll(&told, 1, 30) == 0) {
    char key[64], value[64];
    int status = 0;
    pid_t child;
    key_and_value(key, value, sizeof key, who, 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(120);
      while (vigie_cmd_exec(client, VIGIE_CMD("SET", key, value), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error) != VIGIE_OK) {
        CHECK((vigie_error_flags(error) & VIGIE_EF_MAYBE_EXECUTED) != 0);
        vigie_error_free(error);
        error = NULL;
      }
      expect(who, 0);
      _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    who++;
  }
  hear();
}

int main(void) {
  vigie_config *config = config_of_deployment();
  struct sigaction action;
  pid_t workers[WORKERS], short_lived;
  pthread_t own;
  int i;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_term;
  CHECK(sigaction(SIGTERM, &action, NULL) == 0);
  GIVES(VIGIE_OK, vigie_config_set(config, "fork", "reopen", &error));
  GIVES(VIGIE_OK, vigie_config_set(config, "client.name", "prefork", &error));
  GIVES(VIGIE_OK, vigie_config_set(config, "write.replicas", "1", &error));
  GIVES(VIGIE_OK, vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &error));
  vigie_config_free(config);
  client = open_primary(sentinel);
  vigie_reply_free(RUN(client, "SET", "prefork:master", "1"));
  tell("open");
  hear();
  CHECK(pthread_create(&own, NULL, load_of_the_master, NULL) == 0);
  for (i = 0; i < WORKERS; i++) workers[i] = start(i);
  short_lived = start(WORKERS);
  tell("serving");
  hear();
  end(short_lived);
  vigie_reply_free(RUN(client, "SET", "prefork:master", "2"));
  tell("still open");
  /* Two failovers. */
  fork_until_told(1000);
  tell("once");
  fork_until_told(1000000);
  vigie_reply_free(RUN(client, "SET", "prefork:master", "3"));
  for (i = 0; i < WORKERS; i++) end(workers[i]);
  over = 1;
  CHECK(pthread_join(own, NULL) == 0);
  free_handles();
  tell("done");
  return finish();
}
