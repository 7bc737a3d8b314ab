/* main returns while another thread is inside a call: the process ends, with main's status, and does not hang or crash. */
#include "common.h"

#include <pthread.h>
#include <time.h>

static vigie_client *client;

static void *wait_in_a_call(void *unused) {
  (void)unused;
  vigie_reply_free(RUN(client, "BLPOP", "exit:never", "60"));
  return NULL;
}

static int is_blocked(vigie_client *other) {
  vigie_reply *reply = RUN(other, "INFO", "clients");
  int blocked = strstr(vigie_reply_bytes(reply, VIGIE_ROOT, NULL), "blocked_clients:0") == NULL;
  vigie_reply_free(reply);
  return blocked;
}

int main(void) {
  const struct timespec moment = {0, 1000000};
  pthread_t thread;
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *other = open_primary(sentinel);
  client = open_primary(sentinel);
  CHECK(pthread_create(&thread, NULL, wait_in_a_call, NULL) == 0);
  while (!is_blocked(other)) nanosleep(&moment, NULL);
  return 0;
}
