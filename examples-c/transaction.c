/* Transactions: a list that runs as a whole, and WATCH for one that depends on what was read before.
 * ./transaction redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster */
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* Moves an amount from one account to the other; nobody sees the money on both, or on none. */
static void transfer(vigie_client *client, const char *amount) {
  vigie_batch *batch = vigie_batch_new();
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  vigie_batch_add(batch, VIGIE_CMD("DECRBY", "account:a", amount));
  vigie_batch_add(batch, VIGIE_CMD("INCRBY", "account:b", amount));
  if (vigie_batch_exec(client, batch, VIGIE_CALL_ATOMIC, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK) die("transfer", err);
  printf("a has %lld, b has %lld\n", (long long)vigie_reply_int(reply, vigie_reply_child(reply, VIGIE_ROOT, 0), 0),
         (long long)vigie_reply_int(reply, vigie_reply_child(reply, VIGIE_ROOT, 1), 0));
  vigie_reply_free(reply);
  vigie_batch_free(batch);
}

/* Doubles a balance unless somebody else changes it meanwhile. */
static vigie_status try_double(vigie_client *client, vigie_error **err) {
  vigie_client *session = NULL; /* a new one for each attempt: after a failover it is on the new primary */
  vigie_reply *reply = NULL;
  vigie_batch *batch = vigie_batch_new();
  vigie_status status = vigie_session_for(client, NULL, 0, NULL, &session, err);
  if (status == VIGIE_OK) status = vigie_cmd_exec(session, VIGIE_CMD("WATCH", "account:a"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, err);
  if (status == VIGIE_OK) status = vigie_cmd_exec(session, VIGIE_CMD("GET", "account:a"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, err);
  if (status == VIGIE_OK) {
    char twice[32];
    snprintf(twice, sizeof twice, "%lld", 2 * (long long)vigie_reply_int(reply, VIGIE_ROOT, 0));
    vigie_batch_add(batch, VIGIE_CMD("SET", "account:a", twice));
    status = vigie_batch_exec(session, batch, VIGIE_CALL_ATOMIC, VIGIE_TIMEOUT_DEFAULT, NULL, err);
  }
  vigie_reply_free(reply);
  vigie_batch_free(batch);
  vigie_client_free(session);
  return status;
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

  if (vigie_cmd_exec(client, VIGIE_CMD("MSET", "account:a", "100", "account:b", "0"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err) != VIGIE_OK)
    die("MSET", err);
  transfer(client, "30");

  /* Nothing has run if a watched key was changed, or if the connection was lost before EXEC: it is safe to begin anew. */
  vigie_status status;
  while ((status = try_double(client, &err)) != VIGIE_OK) {
    int is_lost = status == VIGIE_ERR_IO && !(vigie_error_flags(err) & VIGIE_EF_MAYBE_EXECUTED);
    if (status != VIGIE_ERR_TXN_ABORTED && !is_lost) die("doubling", err);
    vigie_error_free(err);
    err = NULL;
  }
  if (vigie_cmd_exec(client, VIGIE_CMD("GET", "account:a"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK) die("GET", err);
  printf("doubled: %s\n", vigie_reply_bytes(reply, VIGIE_ROOT, NULL));

  vigie_reply_free(reply);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
