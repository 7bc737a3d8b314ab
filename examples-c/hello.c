/* The smallest whole program: SET on the primary, GET from a replica.
 * cc hello.c $(pkg-config --cflags --libs vigie) -o hello
 * ./hello redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster */
#include <stdio.h>
#include <vigie.h>

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *primary = NULL, *replica = NULL;
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;

  /* Each step runs only if the one before it returned VIGIE_OK (0); the first failure leaves its error in err. */
  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) == VIGIE_OK &&
      vigie_sentinel_create(config, 0, &sentinel, &err) == VIGIE_OK &&
      vigie_primary_for(sentinel, NULL, NULL, &primary, &err) == VIGIE_OK &&
      vigie_replica_for(sentinel, NULL, NULL, &replica, &err) == VIGIE_OK &&
      vigie_cmd_exec(primary, VIGIE_CMD("SET", "greeting", "hello"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err) == VIGIE_OK &&
      vigie_cmd_exec(replica, VIGIE_CMD("GET", "greeting"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err) == VIGIE_OK) {
    const char *text = vigie_reply_bytes(reply, VIGIE_ROOT, NULL);
    printf("the replica says: %s\n", text != NULL ? text : "(nothing yet: replicas follow a moment later)");
  }
  if (err != NULL) fprintf(stderr, "%s: %s\n", vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  int failed = err != NULL;
  vigie_error_free(err); /* every _free takes NULL, in any order */
  vigie_reply_free(reply);
  vigie_client_free(replica);
  vigie_client_free(primary);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return failed;
}
