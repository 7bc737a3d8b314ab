/* Three shards as one client: one key for each, a pipeline over all of them, and a command that is refused.
 *
 *   cc shards.c $(pkg-config --cflags --libs vigie) -o shards && ./shards redis://127.0.0.1:7001 redis://127.0.0.1:7002 ...
 *
 * Each argument is a shard: redis://host:port, or sentinel:SERVICE with the Sentinels' URI in VIGIE_URI. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { MOST = 16 };

static void check(vigie_status status, vigie_error **err, const char *what) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s: %s\n", what, vigie_error_message(*err));
  exit(1);
}

static vigie_sentinel *sentinels(void) {
  const char *uri = getenv("VIGIE_URI");
  vigie_sentinel *sentinel = NULL;
  vigie_error *err = NULL;
  vigie_config *config;
  if (uri == NULL) return NULL;
  config = vigie_config_new();
  check(vigie_config_set(config, "uri", uri, &err), &err, "uri");
  check(vigie_sentinel_create(config, 0, &sentinel, &err), &err, "the Sentinels");
  vigie_config_free(config);
  return sentinel;
}

int main(int argc, char **argv) {
  const char *const keys[] = {"a", "hello", "foo"};
  static char texts[MOST][256];
  const char *shards[MOST];
  vigie_sentinel *sentinel = sentinels();
  vigie_client *client = NULL;
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  vigie_batch *batch = vigie_batch_new();
  size_t i, count = argc > 1 ? (size_t)argc - 1 : 0;
  if (count == 0 || count > MOST) {
    fprintf(stderr, "usage: %s SHARD...\n", argv[0]);
    return 2;
  }
  for (i = 0; i < count; i++) {
    snprintf(texts[i], sizeof texts[i], "node_%u=%s", (unsigned)i + 1, argv[i + 1]);
    shards[i] = texts[i];
  }
  check(vigie_shards_for(sentinel, shards, count, NULL, &client, &err), &err, "the shards");

  for (i = 0; i < 3; i++) {
    printf("%s is on node_%d\n", keys[i], (int)vigie_client_shard_of(client, keys[i], strlen(keys[i])) + 1);
    vigie_batch_add(batch, VIGIE_CMD("SET", keys[i], keys[i]));
  }
  check(vigie_batch_exec(client, batch, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err), &err, "a pipeline");
  vigie_reply_free(reply);
  check(vigie_cmd_exec(client, VIGIE_CMD("MGET", "foo", "a", "hello"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err), &err, "MGET");
  for (i = 0; i < 3; i++)
    printf("%s\n", vigie_reply_bytes(reply, vigie_reply_child(reply, VIGIE_ROOT, i), NULL));
  vigie_reply_free(reply);

  /* What cannot be done right over several shards is refused; with one tag both keys are on one shard. */
  if (vigie_cmd_exec(client, VIGIE_CMD("PFMERGE", "a", "hello"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err) != VIGIE_OK) {
    printf("%s\n", vigie_error_message(err));
    vigie_error_free(err);
    err = NULL;
  }
  check(vigie_cmd_exec(client, VIGIE_CMD("PFMERGE", "x{tag}", "y{tag}"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err), &err, "PFMERGE");
  check(vigie_cmd_exec(client, VIGIE_CMD("DEL", "a", "hello", "foo", "x{tag}"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err), &err, "DEL");
  vigie_batch_free(batch);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return 0;
}
