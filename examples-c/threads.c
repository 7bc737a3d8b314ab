/* One client, many threads: calls share a few connections, and each thread gets its own answers.
 * ./threads redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

enum { THREADS = 16, ROUNDS = 500 };

struct worker {
  pthread_t thread;
  vigie_client *client; /* the same for all: a client may be used by any number of threads at once */
  int number;
  int wrong; /* answers that were not this thread's own, and errors */
};

/* Counts its own key up and checks that every answer is the next number. */
static void *work(void *argument) {
  struct worker *self = argument;
  char key[32];
  snprintf(key, sizeof key, "threads:%d", self->number);
  for (int i = 0; i <= ROUNDS; i++) {
    vigie_reply *reply = NULL;
    vigie_error *err = NULL;
    vigie_status status = i == 0 ? vigie_cmd_exec(self->client, VIGIE_CMD("SET", key, "0"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err)
                                 : vigie_cmd_exec(self->client, VIGIE_CMD("INCR", key), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err);
    if (status != VIGIE_OK) {
      fprintf(stderr, "thread %d: %s: %s\n", self->number, vigie_status_name(status), vigie_error_message(err));
      self->wrong++;
    } else if (i > 0 && vigie_reply_int(reply, VIGIE_ROOT, -1) != i) {
      self->wrong++;
    }
    vigie_reply_free(reply);
    vigie_error_free(err);
  }
  return NULL;
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_error *err = NULL;
  struct worker workers[THREADS];
  int started = 0, wrong = 0;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) == VIGIE_OK &&
      vigie_sentinel_create(config, 2000, &sentinel, &err) == VIGIE_OK)
    (void)!vigie_primary_for(sentinel, NULL, NULL, &client, &err);
  if (client == NULL) {
    fprintf(stderr, "%s: %s\n", vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
    vigie_error_free(err);
    vigie_sentinel_free(sentinel);
    vigie_config_free(config);
    return EXIT_FAILURE;
  }

  for (; started < THREADS; started++) {
    workers[started] = (struct worker){.client = client, .number = started};
    if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0) break;
  }
  for (int i = 0; i < started; i++) {
    pthread_join(workers[i].thread, NULL);
    wrong += workers[i].wrong;
  }
  printf("%d threads, %d calls each, %d wrong\n", started, ROUNDS + 1, wrong);

  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return started == THREADS && wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
