/* Many threads on one handle, each with its own key: nobody gets another one's answer. */
#include "common.h"

#include <pthread.h>

enum { THREADS = 100 };

static vigie_client *client;
static int rounds;

static void *work(void *number) {
  char key[32], value[64];
  vigie_error *error = NULL;
  long me = (long)(intptr_t)number;
  snprintf(key, sizeof key, "threads:%ld", me);
  for (int round = 0; round < rounds; round++) {
    vigie_reply *reply = NULL;
    snprintf(value, sizeof value, "%ld of %ld", me, me * 1000000 + round);
    GIVES(VIGIE_OK, vigie_cmd_exec(client, VIGIE_CMD("SET", key, value), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
    CHECK(text_is(reply, VIGIE_ROOT, "OK"));
    vigie_reply_free(reply);
    GIVES(VIGIE_OK, vigie_cmd_exec(client, VIGIE_CMD("GET", key), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
    CHECK(text_is(reply, VIGIE_ROOT, value));
    vigie_reply_free(reply);
    /* An error belongs to the call that gave it, whatever the others do. */
    if (round % 16 == 0) {
      vigie_status status = vigie_cmd_exec(client, VIGIE_CMD(value), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error);
      CHECK(status == VIGIE_ERR_SERVER && strstr(vigie_error_message(error), value) != NULL);
      vigie_error_free(error);
      error = NULL;
    }
  }
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  vigie_sentinel *sentinel = open_sentinel();
  client = open_primary(sentinel);
  rounds = environment_number("VIGIE_TEST_ROUNDS", 100);
  for (long i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0);
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
