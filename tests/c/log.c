/* The log's descriptor: a reader that is gone ends no process, a forked child repeats no line of its parent, and nothing is written to a
 * descriptor after the close. */
#include "common.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[1 << 20];
static size_t len;

/* Reads what there is, until this is in it. */
static void await(int fd, const char *wanted) {
  while (strstr(text, wanted) == NULL) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    ssize_t got;
    CHECK(poll(&ready, 1, 20000) == 1);
    got = read(fd, text + len, sizeof text - 1 - len);
    CHECK(got > 0);
    len += got > 0 ? (size_t)got : 0;
    text[len] = 0;
    if (got <= 0) return;
  }
}

static int count(const char *what) {
  int found = 0;
  for (const char *at = text; (at = strstr(at, what)) != NULL; at++) found++;
  return found;
}

static vigie_sentinel *logging_to(int fd) {
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = open_sentinel();
  char number[16];
  snprintf(number, sizeof number, "%d", fd);
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "log.fd", number, &error));
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "log.level", "info", &error));
  return sentinel;
}

static void a_forked_child_repeats_nothing(void) {
  int ends[2], status = 0;
  pid_t child;
  vigie_error *error = NULL;
  vigie_sentinel *sentinel;
  char filler[4096];
  CHECK(pipe(ends) == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
  memset(filler, '.', sizeof filler);
  while (write(ends[1], filler, sizeof filler) > 0) {}
  CHECK(fcntl(ends[1], F_SETFL, 0) == 0);
  sentinel = logging_to(ends[1]); /* its first lines wait in the ring */
  child = fork();
  if (child == 0) {
    CHECK(vigie_sentinel_close(sentinel, 0, NULL) == VIGIE_ERR_FORKED);
    vigie_sentinel_free(sentinel);
    /* Another program, because a child leaks on purpose what its parent's threads were at. */
    execl("/bin/true", "true", (char *)NULL);
    _exit(1);
  }
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "log.level", "error", &error));
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "log.level", "info", &error));
  await(ends[0], "the log begins");
  vigie_sentinel_free(sentinel);
  close(ends[1]);
  while (len < sizeof text - 1 && read(ends[0], text + len, 1) == 1) text[++len] = 0;
  close(ends[0]);
  CHECK(count("the log begins") == 2); /* the parent's: one for each time that the level was set to info */
}

static void a_reader_that_is_gone_is_told_and_ends_nothing(void) {
  int ends[2];
  vigie_error *error = NULL;
  vigie_queue *queue = NULL;
  vigie_event event;
  vigie_sentinel *sentinel;
  vigie_client *client;
  const char *message = NULL;
  CHECK(pipe(ends) == 0);
  sentinel = logging_to(ends[1]);
  await(ends[0], "the log begins");
  GIVES(VIGIE_OK, vigie_queue_create(64, &queue, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_LOG, queue, 9, &error));
  close(ends[0]);
  client = open_primary(sentinel);
  vigie_reply_free(RUN(client, "PING"));
  do {
    CHECK(vigie_queue_drain(queue, 20000, &event, 1) == 1 && event.kind == VIGIE_EVENT_LOG && event.token == 9);
    message = vigie_reply_bytes(event.reply, vigie_reply_find(event.reply, VIGIE_ROOT, "message", 7), NULL);
    CHECK(message != NULL);
    message = message != NULL && strstr(message, "nothing can be written") != NULL ? message : NULL;
    if (message != NULL) CHECK(vigie_reply_int(event.reply, vigie_reply_find(event.reply, VIGIE_ROOT, "fd", 2), 0) == ends[1]);
    vigie_events_clear(&event, 1);
  } while (message == NULL);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  close(ends[1]);
}

/* The next connection of the library may get the number that the program has closed. */
static void a_number_that_is_closed_is_nobodys(void) {
  int ends[2];
  char key[16];
  vigie_error *error = NULL;
  vigie_sentinel *sentinel;
  vigie_client *client;
  CHECK(pipe(ends) == 0);
  sentinel = logging_to(ends[1]);
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "log.level", "debug", &error));
  client = open_primary(sentinel);
  for (int i = 0; i < 10; i++) {
    snprintf(key, sizeof key, "log:%d", i);
    vigie_reply_free(RUN(client, "SET", key, key));
  }
  len = 0, text[0] = 0;
  await(ends[0], "a connection was opened");
  close(ends[1]);
  for (int i = 0; i < 100; i++) {
    vigie_reply *reply;
    if (i % 10 == 0) GIVES(VIGIE_OK, vigie_client_disconnect(client, &error));
    snprintf(key, sizeof key, "log:%d", i % 10);
    reply = RUN(client, "GET", key);
    CHECK(strcmp(vigie_reply_bytes(reply, VIGIE_ROOT, NULL), key) == 0);
    vigie_reply_free(reply);
  }
  /* The lines still go where they went. */
  len = 0, text[0] = 0;
  await(ends[0], "a connection was closed");
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  while (read(ends[0], text, sizeof text) > 0) {} /* until nobody has the other end any more */
  close(ends[0]);
}

int main(void) {
  struct sigaction now;
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = open_sentinel();
  CHECK(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
  GIVES(VIGIE_ERR_CONFIG, vigie_sentinel_configure(sentinel, "log.fd", "1000000", &error));
  vigie_sentinel_free(sentinel);
  a_forked_child_repeats_nothing();
  len = 0, text[0] = 0;
  a_reader_that_is_gone_is_told_and_ends_nothing();
  a_number_that_is_closed_is_nobodys();
  return finish();
}
