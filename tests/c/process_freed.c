/* A handle that was freed is told as such, as long as nobody has its memory. */
#include "common.h"

#define FREED(name, call)                                                                                       \
  do {                                                                                                          \
    vigie_error *error = NULL;                                                                                  \
    CHECK((call) == VIGIE_ERR_INVALID_ARG);                                                                     \
    if (strstr(vigie_error_message(error), name " is a handle that was freed") == NULL) {                       \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, vigie_error_message(error));                           \
      _Exit(1);                                                                                                 \
    }                                                                                                           \
    vigie_error_free(error);                                                                                    \
  } while (0)

int main(void) {
  vigie_error *wrong = NULL;
  vigie_config *config = config_of_deployment();
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  vigie_queue *queue = NULL;
  vigie_batch *batch = vigie_batch_new();
  vigie_reply *reply = RUN(client, "PING");
  CHECK(vigie_queue_create(1, &queue, &wrong) == VIGIE_OK);
  vigie_config_free(config);
  FREED("config", vigie_config_set(config, "db", "0", &error));
  vigie_reply_free(reply);
  FREED("reply", vigie_reply_json(reply, NULL, &error));
  vigie_batch_free(batch);
  FREED("batch", vigie_batch_exec(client, batch, 0, 1000, NULL, &error));
  vigie_queue_free(queue);
  FREED("queue", vigie_cmds_submit(client, "*1\r\n$4\r\nPING\r\n", 14, 0, 1000, queue, 1, &error));
  vigie_client_free(client);
  FREED("client", vigie_client_stats(client, NULL, &error));
  vigie_sentinel_free(sentinel);
  FREED("sentinel", vigie_sentinel_topology(sentinel, NULL, NULL, &error));
  return finish();
}
