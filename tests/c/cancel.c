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

/* Calls on the shared connection, one after the other, each thread with its own text. */
static void *call_for_ever(void *text) {
  for (;;) {
    int state = PTHREAD_CANCEL_DISABLE;
    vigie_reply *reply = RUN(client, "ECHO", text);
    CHECK(text_is(reply, VIGIE_ROOT, text));
    vigie_reply_free(reply);
    /* What was allowed before the call is allowed after it. */
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0 && state == PTHREAD_CANCEL_ENABLE);
    pthread_testcancel();
  }
}

/* Threads are cancelled while they lead, write and wait for each other: each ends between two calls, and the others are not hurt. */
static void cancel_callers(void) {
  enum { THREADS = 8, ROUNDS = 25 };
  static char texts[THREADS][16];
  const struct timespec moment = {0, 500000};
  pthread_t threads[THREADS];
  void *result = NULL;
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < THREADS; i++) {
      snprintf(texts[i], sizeof texts[i], "%d:%d", round, i);
      CHECK(pthread_create(&threads[i], NULL, call_for_ever, texts[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
      nanosleep(&moment, NULL);
      CHECK(pthread_cancel(threads[i]) == 0);
      CHECK(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED);
    }
    vigie_reply_free(RUN(client, "PING"));
  }
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
  cancel_callers();
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
