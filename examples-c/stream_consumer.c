/* A consumer of a stream, one of a group: XREADGROUP, XACK, and XAUTOCLAIM for what consumers that died left behind; through failovers.
 * ./stream_consumer redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster?write.replicas=1 STREAM CONSUMER COUNT
 *
 * Each entry is handled at least once. An XREADGROUP whose answer was lost may have given this consumer entries that it has not seen: they
 * are its pending ones, so after every error it reads these (id 0) before new ones (id >). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

#define GROUP "workers"
#define IDLE_MS "5000" /* an entry that is pending for so long is taken over */

static vigie_client *client;
static const char *stream, *consumer;
static int handled;

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static vigie_status acknowledge(const char *id, vigie_error **err) {
  /* To acknowledge twice does no harm, so the library may repeat it. */
  return vigie_cmd_exec(client, VIGIE_CMD("XACK", stream, GROUP, id), VIGIE_CALL_IDEMPOTENT, VIGIE_TIMEOUT_DEFAULT, NULL, err);
}

/* Handles a list of entries: each is an id and its fields. An entry that was deleted meanwhile has no fields. */
static vigie_status handle(const vigie_reply *reply, uint32_t entries, vigie_error **err) {
  for (uint32_t i = 0; i < vigie_reply_count(reply, entries); i++) {
    uint32_t entry = vigie_reply_child(reply, entries, i);
    const char *id = vigie_reply_bytes(reply, vigie_reply_child(reply, entry, 0), NULL);
    const char *value = vigie_reply_bytes(reply, vigie_reply_child(reply, vigie_reply_child(reply, entry, 1), 1), NULL);
    if (value != NULL) printf("%s %s\n", id, value);
    fflush(stdout);
    vigie_status status = acknowledge(id, err);
    if (status != VIGIE_OK) return status;
    handled++;
  }
  return VIGIE_OK;
}

/* Reads from this id on: ">" waits for new entries, "0" gives those that are pending. *more: whether there was any. */
static vigie_status read_from(const char *id, int *more, vigie_error **err) {
  vigie_reply *reply = NULL;
  vigie_status status = vigie_cmd_exec(
      client, VIGIE_CMD("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", "16", "BLOCK", "1000", "STREAMS", stream, id), 0,
      VIGIE_TIMEOUT_DEFAULT, &reply, err);
  *more = 0;
  if (status == VIGIE_OK) {
    /* RESP3: a MAP from stream to entries; RESP2: an ARRAY with pairs of them; nothing: NULL. */
    uint32_t entries = vigie_reply_child(reply, VIGIE_ROOT, 1);
    if (vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_ARRAY)
      entries = vigie_reply_child(reply, vigie_reply_child(reply, VIGIE_ROOT, 0), 1);
    *more = vigie_reply_count(reply, entries) > 0;
    status = handle(reply, entries, err);
  }
  vigie_reply_free(reply);
  return status;
}

/* Takes over what other consumers have not acknowledged in time. */
static vigie_status take_over(vigie_error **err) {
  vigie_reply *reply = NULL;
  vigie_status status = vigie_cmd_exec(client, VIGIE_CMD("XAUTOCLAIM", stream, GROUP, consumer, IDLE_MS, "0", "COUNT", "16"),
                                       VIGIE_CALL_IDEMPOTENT, VIGIE_TIMEOUT_DEFAULT, &reply, err);
  if (status == VIGIE_OK) status = handle(reply, vigie_reply_child(reply, VIGIE_ROOT, 1), err);
  vigie_reply_free(reply);
  return status;
}

/* The group, from the first entry on; BUSYGROUP: it is there. */
static vigie_status make_group(vigie_error **err) {
  vigie_status status = vigie_cmd_exec(client, VIGIE_CMD("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM"), VIGIE_CALL_IDEMPOTENT,
                                       VIGIE_TIMEOUT_DEFAULT, NULL, err);
  if (status != VIGIE_ERR_SERVER || strcmp(vigie_error_server_code(*err), "BUSYGROUP") != 0) return status;
  vigie_error_free(*err);
  *err = NULL;
  return VIGIE_OK;
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_error *err = NULL;

  if (argc < 5) {
    fprintf(stderr, "usage: stream_consumer URI STREAM CONSUMER COUNT\n");
    return 2;
  }
  if (vigie_config_set(config, "uri", argv[1], &err) != VIGIE_OK) die("uri", err);
  stream = argv[2], consumer = argv[3];
  if (vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);

  for (int count = atoi(argv[4]); handled < count;) {
    int more = 1;
    vigie_status status = make_group(&err);
    while (status == VIGIE_OK && more) status = read_from("0", &more, &err);
    while (status == VIGIE_OK && handled < count) {
      status = read_from(">", &more, &err);
      if (status == VIGIE_OK && !more) status = take_over(&err);
    }
    /* A failover ends a waiting XREADGROUP; calls wait for the next primary by themselves. */
    if (status != VIGIE_OK && vigie_error_flags(err) == 0 && status != VIGIE_ERR_TIMEOUT) die(stream, err);
    vigie_error_free(err);
    err = NULL;
  }

  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
