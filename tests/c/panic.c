/* A bug below the border: the call gives INTERNAL with its place, its handle answers nothing else, everything else goes on. The runner
 * looks that nothing was written. Runs against a library built with the feature test-panic; no server is needed. */
#include "common.h"

int main(void) {
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL, *other = NULL, *session = NULL, *elsewhere = NULL;
  vigie_reply *reply = NULL;
  vigie_config *config = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(config, "sentinel.addrs", "127.0.0.1:1", &error));
  GIVES(VIGIE_OK, vigie_sentinel_create(config, 0, &sentinel, &error));
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, "s", NULL, &client, &error));
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, "s", NULL, &other, &error));
  CHECK(vigie_cmd_exec(client, VIGIE_CMD("VIGIE.PANIC"), 0, 0, &reply, &error) == VIGIE_ERR_INTERNAL);
  CHECK(reply == NULL && strstr(vigie_error_message(error), "VIGIE.PANIC was called (at src/ffi/client.rs:") != NULL);
  vigie_error_free(error);
  error = NULL;
  GIVES(VIGIE_ERR_INTERNAL, vigie_cmd_exec(client, VIGIE_CMD("PING"), 0, 0, NULL, &error));
  GIVES(VIGIE_ERR_INTERNAL, vigie_client_stats(client, &reply, &error));
  GIVES(VIGIE_ERR_INTERNAL, vigie_session_for(client, NULL, 0, NULL, &session, &error));
  GIVES(VIGIE_ERR_INTERNAL, vigie_client_close(client, 0, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_cmd_exec(other, VIGIE_CMD("PING"), 0, 0, NULL, &error));
  GIVES(VIGIE_OK, vigie_sentinel_topology(sentinel, NULL, NULL, &error));
  /* On a thread of the library: who waits for it is told the same. */
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, "VIGIE.PANIC", NULL, &elsewhere, &error));
  CHECK(vigie_cmd_exec(elsewhere, VIGIE_CMD("PING"), 0, 20000, NULL, &error) == VIGIE_ERR_INTERNAL);
  CHECK(strstr(vigie_error_message(error), "a service of this name was looked for (at src/topology/running.rs:") != NULL);
  vigie_error_free(error);
  vigie_client_free(elsewhere);
  vigie_client_free(client);
  vigie_client_free(other);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return finish();
}
