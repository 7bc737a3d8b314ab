/* pthread_cancel during a call: the call ends as it would have, then the thread ends; the handle works on for the others. */
#include "common.h"

#include <pthread.h>
#include <time.h>

static vigie_client *client;
static volatile int came_back;

static void *wait_in_a_call(void *unused) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  (void)unused;
  GIVES(VIGIE_OK, vigie_cmd_exec(client, VIGIE_CMD("BLPOP", "cancel:k", "60"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  CHECK(vigie_reply_count(reply, VIGIE_ROOT) == 2);
  vigie_reply_free(reply);
  came_back = 1;
  for (;;) pthread_testcancel();
}

static int is_blocked(void) {
  vigie_reply *reply = RUN(client, "INFO", "clients");
  int blocked = strstr(vigie_reply_bytes(reply, VIGIE_ROOT, NULL), "blocked_clients:0") == NULL;
  vigie_reply_free(reply);
  return blocked;
}

int main(void) {
  const struct timespec moment = {0, 1000000};
  pthread_t thread;
  void *result = NULL;
  vigie_sentinel *sentinel = open_sentinel();
  client = open_primary(sentinel);
  CHECK(pthread_create(&thread, NULL, wait_in_a_call, NULL) == 0);
  while (!is_blocked()) nanosleep(&moment, NULL);
  CHECK(pthread_cancel(thread) == 0);
  CHECK(!came_back);
  vigie_reply_free(RUN(client, "RPUSH", "cancel:k", "v"));
  CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED && came_back);
  vigie_reply_free(RUN(client, "PING"));
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
