/* A scan: every page comes from one server; a failover in between is told, and the scan begins anew.
 * ./scan redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [PATTERN] */
#include <stdio.h>
#include <stdlib.h>
#include <vigie.h>

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

int main(int argc, char **argv) {
  const char *pattern = argc > 2 ? argv[2] : "*";
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_scan *scan = NULL;
  vigie_reply *page = NULL;
  vigie_error *err = NULL;
  unsigned long long keys = 0, pages = 0;
  uint32_t restarts = 0;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_replica_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);

  /* Up to 3 times it begins anew; with 0 it would end with VIGIE_ERR_SCAN_INTERRUPTED instead. */
  if (vigie_scan_for(client, VIGIE_CMD("SCAN", "0", "MATCH", pattern, "COUNT", "100"), 3, &scan, &err) != VIGIE_OK) die("scan", err);
  for (;;) {
    if (vigie_scan_next(scan, VIGIE_TIMEOUT_DEFAULT, &page, &err) != VIGIE_OK) die("page", err);
    if (vigie_scan_restarts(scan) != restarts) {
      restarts = vigie_scan_restarts(scan);
      keys = pages = 0; /* what was counted may come again */
    }
    if (page == NULL) break;
    keys += vigie_reply_count(page, VIGIE_ROOT);
    pages++;
    vigie_reply_free(page);
  }
  printf("%llu keys on %llu pages, begun anew %u times\n", keys, pages, (unsigned)restarts);

  vigie_scan_free(scan);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
