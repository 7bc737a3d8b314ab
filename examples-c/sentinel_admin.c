/* What an operator asks the Sentinels: which services there are, how each is, and whether a failover could be carried out.
 * ./sentinel_admin redis-sentinel://127.0.0.1:26379,127.0.0.1:26380 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static long long number(const vigie_reply *reply, uint32_t map, const char *key) {
  return (long long)vigie_reply_int(reply, vigie_reply_find(reply, map, key, strlen(key)), -1);
}

static const char *text(const vigie_reply *reply, uint32_t map, const char *key) {
  const char *value = vigie_reply_bytes(reply, vigie_reply_find(reply, map, key, strlen(key)), NULL);
  return value != NULL ? value : "none";
}

/* Asks every Sentinel: the reply maps the address of each to its own reply, or to an error node. */
static void print_quorum(vigie_sentinel *sentinel, const char *service) {
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  if (vigie_sentinel_exec(sentinel, VIGIE_CMD("CKQUORUM", service), VIGIE_CALL_ALL | VIGIE_CALL_TYPED, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK)
    die("CKQUORUM", err);
  for (uint32_t i = 0; i + 1 < vigie_reply_count(reply, VIGIE_ROOT); i += 2) {
    const char *address = vigie_reply_bytes(reply, vigie_reply_child(reply, VIGIE_ROOT, i), NULL);
    uint32_t said = vigie_reply_child(reply, VIGIE_ROOT, i + 1);
    if (vigie_reply_type(reply, said) == VIGIE_TYPE_ERROR)
      printf("  %s: %s\n", address, vigie_reply_bytes(reply, said, NULL));
    else
      printf("  %s: %lld usable Sentinels\n", address, number(reply, said, "usable"));
  }
  vigie_reply_free(reply);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_reply *services = NULL, *reply = NULL;
  vigie_error *err = NULL;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);

  /* Discovers every service of the deployment: each primary has confirmed its role. */
  if (vigie_sentinel_services(sentinel, VIGIE_SERVICES_FOLLOW, VIGIE_TIMEOUT_DEFAULT, &services, &err) != VIGIE_OK) die("services", err);
  for (uint32_t i = 0; i + 1 < vigie_reply_count(services, VIGIE_ROOT); i += 2) {
    const char *name = vigie_reply_bytes(services, vigie_reply_child(services, VIGIE_ROOT, i), NULL);
    uint32_t map = vigie_reply_child(services, VIGIE_ROOT, i + 1);
    printf("%s: primary %s, quorum %lld\n", name, text(services, map, "primary"), number(services, map, "quorum"));

    /* A typed reply: numbers are numbers, and flags a set. The first Sentinel that answers is asked. */
    if (vigie_sentinel_exec(sentinel, VIGIE_CMD("REPLICAS", name), VIGIE_CALL_TYPED, VIGIE_TIMEOUT_DEFAULT, &reply, &err) != VIGIE_OK)
      die("REPLICAS", err);
    for (uint32_t j = 0; j < vigie_reply_count(reply, VIGIE_ROOT); j++) {
      uint32_t replica = vigie_reply_child(reply, VIGIE_ROOT, j);
      printf("  replica %s: link %s, priority %lld\n", text(reply, replica, "name"), text(reply, replica, "master-link-status"),
             number(reply, replica, "slave-priority"));
    }
    vigie_reply_free(reply);
    print_quorum(sentinel, name);
  }

  vigie_reply_free(services);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
