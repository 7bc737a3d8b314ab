/* Metrics: what a scrape of Prometheus gets, after a little work.
 * ./metrics redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [openmetrics]
 *
 * A program serves the text by the HTTP server that it has, with the content type that vigie.h names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { CALLS = 100 };

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_reply *text = NULL;
  vigie_error *err = NULL;
  uint32_t flags = argc > 2 && strcmp(argv[2], "openmetrics") == 0 ? VIGIE_METRICS_OPENMETRICS : 0;

  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  for (int i = 0; i < CALLS; i++) {
    if (vigie_cmd_exec(client, VIGIE_CMD("INCR", "metrics:calls"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err) != VIGIE_OK) {
      die("INCR", err);
    }
  }

  if (vigie_sentinel_metrics(sentinel, flags, &text, &err) != VIGIE_OK) die("metrics", err);
  size_t len = 0;
  const char *bytes = vigie_reply_bytes(text, VIGIE_ROOT, &len);
  fwrite(bytes, 1, len, stdout);

  vigie_reply_free(text);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
