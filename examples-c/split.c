/* One client for both: commands that only read go to the replicas, everything else to the primary.
 * ./split redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster */
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static void print_visits(vigie_client *client, const char *who, uint32_t flags) {
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  if (vigie_cmd_exec(client, VIGIE_CMD("GET", "visits"), flags, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK) die("GET", err);
  const char *text = vigie_reply_bytes(reply, VIGIE_ROOT, NULL);
  printf("%s says: %s visits\n", who, text != NULL ? text : "no");
  vigie_reply_free(reply);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_split_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);

  if (vigie_cmd_exec(client, VIGIE_CMD("INCR", "visits"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK) die("INCR", err);
  printf("visit number %lld\n", (long long)vigie_reply_int(reply, VIGIE_ROOT, -1));
  vigie_reply_free(reply);

  /* A replica follows a moment later; a read that must see the write just made asks the primary. */
  print_visits(client, "a replica", 0);
  print_visits(client, "the primary", VIGIE_CALL_ON_PRIMARY);

  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
