/* Scripts: EVAL costs only its hash, and EVALSHA works on every server, also after a failover.
 * ./script redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster */
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

/* Takes one of the permits of this minute; gives how many are left, or -1. */
static const char take[] =
    "local n = redis.call('INCR', KEYS[1])\n"
    "if n == 1 then redis.call('EXPIRE', KEYS[1], 60) end\n"
    "if n > tonumber(ARGV[1]) then return -1 end\n"
    "return tonumber(ARGV[1]) - n\n";

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_reply *loaded = NULL, *reply = NULL;
  vigie_error *err = NULL;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);

  /* The first call sends the script, the others its hash. A server that lacks the script gets it: nothing to care for here. */
  for (int i = 0; i < 4; i++) {
    if (vigie_cmd_exec(client, VIGIE_CMD("EVAL", take, "1", "permits:ann", "3"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK)
      die("EVAL", err);
    printf("ann: %lld left\n", (long long)vigie_reply_int(reply, VIGIE_ROOT, 0));
    vigie_reply_free(reply);
  }

  /* A program that loads its scripts itself goes on with its hash. */
  if (vigie_cmd_exec(client, VIGIE_CMD("SCRIPT", "LOAD", take), 0, VIGIE_TIMEOUT_DEFAULT, &loaded, &err) != VIGIE_OK) die("SCRIPT LOAD", err);
  const char *sha = vigie_reply_bytes(loaded, VIGIE_ROOT, NULL);
  if (vigie_cmd_exec(client, VIGIE_CMD("SCRIPT", "FLUSH"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err) != VIGIE_OK) die("SCRIPT FLUSH", err);
  if (vigie_cmd_exec(client, VIGIE_CMD("EVALSHA", sha, "1", "permits:bob", "3"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK)
    die("EVALSHA", err);
  printf("bob: %lld left, though the server had forgotten the script\n", (long long)vigie_reply_int(reply, VIGIE_ROOT, 0));

  vigie_reply_free(reply);
  vigie_reply_free(loaded);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
