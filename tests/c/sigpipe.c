/* With the default disposition of SIGPIPE, servers that close under a writer do not end the process. */
#include "common.h"

#include <pthread.h>
#include <signal.h>

enum { WRITERS = 4, KILLS = 40 };

static vigie_client *client;
static volatile sig_atomic_t over;
static char value[4 << 20];

/* Any outcome will do: what counts is to be there to see it. */
static void *write_on(void *unused) {
  const char *argv[] = {"SET", "sigpipe", value};
  const size_t lens[] = {3, 7, sizeof value};
  (void)unused;
  while (!over) {
    vigie_error *error = NULL;
    vigie_status status = vigie_cmd_exec(client, 3, argv, lens, 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error);
    CHECK(status == vigie_error_status(error));
    CHECK(status == VIGIE_OK || status == VIGIE_ERR_IO);
    vigie_error_free(error);
  }
  return NULL;
}

int main(void) {
  pthread_t writers[WRITERS];
  vigie_error *error = NULL;
  long long killed = 0;
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *other = open_primary(sentinel);
  struct sigaction now;
  client = open_primary(sentinel);
  CHECK(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
  for (int i = 0; i < WRITERS; i++) CHECK(pthread_create(&writers[i], NULL, write_on, NULL) == 0);
  for (int i = 0; i < KILLS; i++) {
    vigie_reply *reply = RUN(other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    killed += vigie_reply_int(reply, VIGIE_ROOT, 0);
    vigie_reply_free(reply);
  }
  over = 1;
  for (int i = 0; i < WRITERS; i++) CHECK(pthread_join(writers[i], NULL) == 0);
  CHECK(killed > 0);
  CHECK(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
  vigie_reply_free(RUN(client, "DEL", "sigpipe"));
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 0, &error));
  vigie_client_free(other);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
