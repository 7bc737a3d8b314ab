/* A pipeline: many commands travel together and cost one round trip; an error of one does not touch the others.
 * ./pipeline redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster */
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* One line for one node of the reply, whatever it is. */
static void print_node(const vigie_reply *reply, uint32_t node) {
  switch (vigie_reply_type(reply, node)) {
    case VIGIE_TYPE_INT: printf("int %lld\n", (long long)vigie_reply_int(reply, node, 0)); break;
    case VIGIE_TYPE_NULL: printf("null\n"); break;
    case VIGIE_TYPE_ERROR: printf("error %s\n", vigie_reply_bytes(reply, node, NULL)); break;
    case VIGIE_TYPE_ARRAY:
      printf("array");
      for (uint32_t i = 0; i < vigie_reply_count(reply, node); i++) {
        const char *text = vigie_reply_bytes(reply, vigie_reply_child(reply, node, i), NULL);
        printf(" %s", text != NULL ? text : "?");
      }
      printf("\n");
      break;
    default: {
      const char *text = vigie_reply_bytes(reply, node, NULL);
      printf("text %s\n", text != NULL ? text : "?");
    }
  }
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);

  vigie_batch *batch = vigie_batch_new();
  vigie_batch_add(batch, VIGIE_CMD("DEL", "pipeline:list"));
  vigie_batch_add(batch, VIGIE_CMD("RPUSH", "pipeline:list", "one", "two", "three"));
  vigie_batch_add(batch, VIGIE_CMD("LRANGE", "pipeline:list", "0", "-1"));
  vigie_batch_add(batch, VIGIE_CMD("INCR", "pipeline:list")); /* fails: it is a list */
  vigie_batch_add(batch, VIGIE_CMD("GET", "pipeline:none"));

  if (vigie_batch_exec(client, batch, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK) die("pipeline", err);
  for (uint32_t i = 0; i < vigie_reply_count(reply, VIGIE_ROOT); i++) print_node(reply, vigie_reply_child(reply, VIGIE_ROOT, i));

  vigie_reply_free(reply);
  vigie_batch_free(batch);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
