/* A password is renewed while the program runs: user and password change together, and no call fails.
 * ./credentials redis-sentinel://alice:old@127.0.0.1:26379,127.0.0.1:26380/mymaster
 *
 * Each line of standard input, "USER PASSWORD", is the next login. Credentials that the server refuses are taken back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

/* Both options at the same moment: no connection ever logs in with one user's name and the other one's password. */
static void change(vigie_sentinel *sentinel, const char *user, const char *password) {
  vigie_config *config = vigie_config_new();
  vigie_error *err = NULL;
  if (vigie_config_set(config, "auth.username", user, &err) != VIGIE_OK || vigie_config_set(config, "auth.password", password, &err) != VIGIE_OK)
    die("configuration", err);
  if (vigie_sentinel_configure_all(sentinel, config, &err) != VIGIE_OK) die("configure", err);
  vigie_config_free(config);
}

/* Whom the server takes this program for; 0 if it refuses the login. */
static int who(vigie_client *client, const char *when) {
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  vigie_status status = vigie_cmd_exec(client, VIGIE_CMD("ACL", "WHOAMI"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err);
  if (status == VIGIE_ERR_AUTH) {
    printf("%s: refused\n", when);
    vigie_error_free(err);
    return 0;
  }
  if (status != VIGIE_OK) die("ACL WHOAMI", err);
  printf("%s: %s\n", when, vigie_reply_bytes(reply, VIGIE_ROOT, NULL));
  vigie_reply_free(reply);
  return 1;
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_error *err = NULL;
  char line[256], user[128] = "", password[128] = "", next_user[128], next_password[128];

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (!who(client, "at first")) return 1;
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (sscanf(line, "%127s %127s", next_user, next_password) != 2) continue;
    change(sentinel, next_user, next_password);
    if (who(client, "now")) {
      strcpy(user, next_user);
      strcpy(password, next_password);
    } else if (user[0] != '\0') {
      change(sentinel, user, password);
      who(client, "again");
    }
  }
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
