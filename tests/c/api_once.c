/* Each exported function once, as a program would use it, on a real deployment. */
#include "common.h"

static void library(void) {
  const vigie_status *codes = NULL;
  size_t count = vigie_status_list(&codes);
  CHECK(vigie_version_number() == VIGIE_VERSION_NUMBER);
  CHECK(vigie_version()[0] >= '0' && vigie_version()[0] <= '9');
  CHECK(vigie_has_feature("resp3") == 1 && vigie_has_feature("tls") == 1);
  CHECK(count > 30 && codes[0] == VIGIE_OK);
  for (size_t i = 1; i < count; i++) CHECK(strncmp(vigie_status_name(codes[i]), "VIGIE_ERR_", 10) == 0);
}

static void configuration(void) {
  vigie_error *error = NULL;
  vigie_reply *rows = NULL;
  vigie_config *config = vigie_config_new();
  int seen = 0;
  GIVES(VIGIE_OK, vigie_config_set(config, "timeout.call", "1234", &error));
  GIVES(VIGIE_OK, vigie_config_set(config, "auth.password", "swordfish", &error));
  GIVES(VIGIE_OK, vigie_config_describe(config, &rows, &error));
  CHECK(vigie_reply_type(rows, VIGIE_ROOT) == VIGIE_TYPE_ARRAY);
  for (uint32_t i = 0; i < vigie_reply_count(rows, VIGIE_ROOT); i++) {
    uint32_t row = vigie_reply_child(rows, VIGIE_ROOT, i);
    uint32_t key = vigie_reply_find(rows, row, "key", 3);
    uint32_t value = vigie_reply_find(rows, row, "value", 5);
    CHECK(vigie_reply_type(rows, row) == VIGIE_TYPE_MAP);
    if (text_is(rows, key, "timeout.call")) CHECK(++seen && text_is(rows, value, "1234"));
    if (text_is(rows, key, "auth.password")) CHECK(++seen && text_is(rows, value, "***"));
  }
  CHECK(seen == 2);
  vigie_reply_free(rows);
  vigie_config_free(config);
}

static void sentinels(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_reply *known = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_refresh(sentinel, service(), VIGIE_TIMEOUT_DEFAULT, &known, &error));
  CHECK(vigie_reply_type(known, VIGIE_ROOT) == VIGIE_TYPE_MAP);
  CHECK(vigie_reply_find(known, VIGIE_ROOT, "primary", 7) != VIGIE_NONE);
  vigie_reply_free(known);
  GIVES(VIGIE_OK, vigie_sentinel_topology(sentinel, service(), &known, &error));
  CHECK(vigie_reply_find(known, VIGIE_ROOT, "primary", 7) != VIGIE_NONE);
  vigie_reply_free(known);
  GIVES(VIGIE_OK, vigie_sentinel_configure(sentinel, "db", "0", &error));
  vigie_config *change = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(change, "db", "0", &error));
  GIVES(VIGIE_OK, vigie_sentinel_configure_all(sentinel, change, &error));
  vigie_config_free(change);

  GIVES(VIGIE_OK, vigie_sentinel_exec(sentinel, VIGIE_CMD("MASTER", service()), VIGIE_CALL_TYPED, VIGIE_TIMEOUT_DEFAULT, &known, &error));
  uint32_t quorum = vigie_reply_find(known, VIGIE_ROOT, "quorum", 6);
  CHECK(vigie_reply_type(known, quorum) == VIGIE_TYPE_INT);
  uint32_t flags = vigie_reply_find(known, VIGIE_ROOT, "flags", 5);
  CHECK(vigie_reply_type(known, flags) == VIGIE_TYPE_SET && vigie_reply_count(known, flags) >= 1);
  vigie_reply_free(known);
  GIVES(VIGIE_OK, vigie_sentinel_exec(sentinel, VIGIE_CMD("MYID"), VIGIE_CALL_ALL, VIGIE_TIMEOUT_DEFAULT, &known, &error));
  CHECK(vigie_reply_type(known, VIGIE_ROOT) == VIGIE_TYPE_MAP && vigie_reply_count(known, VIGIE_ROOT) >= 2);
  const char *address = vigie_reply_bytes(known, vigie_reply_child(known, VIGIE_ROOT, 0), NULL);
  GIVES(VIGIE_OK, vigie_sentinel_exec_at(sentinel, address, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));

  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(3, &queue, &error));
  GIVES(VIGIE_OK, vigie_sentinel_submit(sentinel, VIGIE_CMD("MYID"), VIGIE_CALL_ALL, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  GIVES(VIGIE_OK, vigie_sentinel_submit_at(sentinel, address, VIGIE_CMD("CKQUORUM", service()), VIGIE_CALL_TYPED, VIGIE_TIMEOUT_DEFAULT, queue, 2, &error));
  GIVES(VIGIE_OK, vigie_sentinel_services_submit(sentinel, VIGIE_SERVICES_FOLLOW, VIGIE_TIMEOUT_DEFAULT, queue, 3, &error));
  for (int left = 3; left > 0; left--) {
    vigie_event event;
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1);
    CHECK(event.kind == VIGIE_EVENT_COMPLETION && event.status == VIGIE_OK && vigie_reply_type(event.reply, VIGIE_ROOT) == VIGIE_TYPE_MAP);
    vigie_events_clear(&event, 1);
  }
  vigie_queue_free(queue);
  vigie_reply_free(known);
  GIVES(VIGIE_OK, vigie_sentinel_services(sentinel, VIGIE_SERVICES_FOLLOW, VIGIE_TIMEOUT_DEFAULT, &known, &error));
  CHECK(vigie_reply_find(known, VIGIE_ROOT, service(), strlen(service())) != VIGIE_NONE);
  vigie_reply_free(known);
  GIVES(VIGIE_OK, vigie_sentinel_stats(sentinel, &known, &error));
  CHECK(vigie_reply_count(known, vigie_reply_find(known, VIGIE_ROOT, "services", 8)) >= 1);
  vigie_reply_free(known);
  GIVES(VIGIE_OK, vigie_sentinel_metrics(sentinel, VIGIE_METRICS_OPENMETRICS, &known, &error));
  CHECK(strstr(vigie_reply_bytes(known, VIGIE_ROOT, NULL), "\n# EOF\n") != NULL);
  vigie_reply_free(known);
}

static void commands(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  const vigie_node *nodes;
  const char *data = NULL;
  size_t node_count = 0, data_len = 0;
  vigie_reply_free(RUN(client, "SET", "once:n", "42"));
  reply = RUN(client, "GET", "once:n");
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_STRING && text_is(reply, VIGIE_ROOT, "42"));
  CHECK(vigie_reply_int(reply, VIGIE_ROOT, -1) == 42);
  CHECK(vigie_reply_double(reply, VIGIE_ROOT, 0.0) > 41.9 && vigie_reply_double(reply, VIGIE_ROOT, 0.0) < 42.1);
  nodes = vigie_reply_nodes(reply, &node_count, &data, &data_len);
  CHECK(nodes != NULL && node_count == 1 && nodes[0].type == VIGIE_TYPE_STRING && nodes[0].len == 2);
  CHECK(nodes[0].value + nodes[0].len < data_len && memcmp(data + nodes[0].value, "42", 3) == 0);
  vigie_reply_free(reply);
  GIVES(VIGIE_ERR_SERVER, vigie_cmd_exec(client, VIGIE_CMD("LPUSH", "once:n", "x"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, vigie_client_disconnect(client, &error));
  vigie_reply_free(RUN(client, "PING"));
}

static void errors(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  vigie_status status = vigie_cmd_exec(client, VIGIE_CMD("LPUSH", "once:n", "x"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error);
  CHECK(status == VIGIE_ERR_SERVER && reply == NULL && vigie_error_status(error) == VIGIE_ERR_SERVER);
  CHECK(strcmp(vigie_error_server_code(error), "WRONGTYPE") == 0);
  CHECK(strncmp(vigie_error_message(error), "WRONGTYPE ", 10) == 0);
  CHECK(strchr(vigie_error_endpoint(error), ':') != NULL);
  CHECK((vigie_error_flags(error) & VIGIE_EF_MAYBE_EXECUTED) == 0);
  CHECK(vigie_error_count(error) == -1 && vigie_error_errno(error) == 0 && vigie_error_reply(error) == NULL);
  vigie_error_free(error);
}

static void pipeline(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  vigie_reply *json = NULL;
  vigie_batch *batch = vigie_batch_new();
  const void *data;
  size_t len = 0;
  vigie_batch_add(batch, VIGIE_CMD("NONSENSE"));
  vigie_batch_clear(batch);
  vigie_batch_add(batch, VIGIE_CMD("SET", "once:p", "v"));
  vigie_batch_add(batch, VIGIE_CMD("LPUSH", "once:p", "x"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "once:p"));
  data = vigie_batch_data(batch, &len);
  GIVES(VIGIE_OK, vigie_cmds_exec(client, data, len, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_ARRAY && vigie_reply_count(reply, VIGIE_ROOT) == 3);
  CHECK(vigie_reply_type(reply, vigie_reply_child(reply, VIGIE_ROOT, 0)) == VIGIE_TYPE_STATUS);
  CHECK(vigie_reply_type(reply, vigie_reply_child(reply, VIGIE_ROOT, 1)) == VIGIE_TYPE_ERROR);
  CHECK(text_is(reply, vigie_reply_child(reply, VIGIE_ROOT, 2), "v"));
  CHECK(vigie_reply_child(reply, VIGIE_ROOT, 3) == VIGIE_NONE);
  GIVES(VIGIE_OK, vigie_reply_json(reply, &json, &error));
  CHECK(strstr(vigie_reply_bytes(json, VIGIE_ROOT, NULL), "\"v\"") != NULL);
  vigie_reply_free(json);
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_batch_exec(client, batch, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  CHECK(vigie_reply_count(reply, VIGIE_ROOT) == 3 && text_is(reply, vigie_reply_child(reply, VIGIE_ROOT, 2), "v"));
  vigie_reply_free(reply);
  vigie_batch_free(batch);
}

static void knowledge(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  GIVES(VIGIE_OK, vigie_client_topology(client, &reply, &error));
  CHECK(vigie_reply_find(reply, VIGIE_ROOT, "primary", 7) != VIGIE_NONE);
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_client_stats(client, &reply, &error));
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_MAP && vigie_reply_count(reply, VIGIE_ROOT) > 0);
  vigie_reply_free(reply);
}

/* A transaction whose WATCH was lost, as a list: an error, and the replies of the list with it. */
static void lost_race(vigie_client *client, vigie_client *session) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  const vigie_reply *kept;
  vigie_batch *batch = vigie_batch_new();
  const void *data;
  size_t len = 0;
  vigie_status status;
  vigie_reply_free(RUN(session, "WATCH", "once:w"));
  vigie_reply_free(RUN(client, "SET", "once:w", "2"));
  vigie_batch_add(batch, VIGIE_CMD("MULTI"));
  vigie_batch_add(batch, VIGIE_CMD("SET", "once:w", "3"));
  vigie_batch_add(batch, VIGIE_CMD("EXEC"));
  vigie_batch_add(batch, VIGIE_CMD("GET", "once:w"));
  data = vigie_batch_data(batch, &len);
  status = vigie_cmds_exec(session, data, len, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error);
  CHECK(status == VIGIE_ERR_TXN_ABORTED && reply == NULL && vigie_error_status(error) == VIGIE_ERR_TXN_ABORTED);
  kept = vigie_error_reply(error);
  CHECK(kept == vigie_error_reply(error) && vigie_reply_count(kept, VIGIE_ROOT) == 4);
  CHECK(vigie_reply_type(kept, vigie_reply_child(kept, VIGIE_ROOT, 2)) == VIGIE_TYPE_NULL);
  CHECK(text_is(kept, vigie_reply_child(kept, VIGIE_ROOT, 3), "2"));
  vigie_error_free(error);
  vigie_batch_free(batch);
}

static void session(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_client *session = NULL;
  vigie_reply *reply;
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &session, &error));
  vigie_reply_free(RUN(session, "WATCH", "once:w"));
  vigie_reply_free(RUN(session, "MULTI"));
  vigie_reply_free(RUN(session, "SET", "once:w", "1"));
  reply = RUN(session, "EXEC");
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_ARRAY && vigie_reply_count(reply, VIGIE_ROOT) == 1);
  vigie_reply_free(reply);
  lost_race(client, session);
  vigie_client_free(session);
}

/* Reads that follow a write until the replica has it, within the patience of the test. */
static void reads(vigie_client *client, const char *value) {
  for (int tries = 0; tries < 2000; tries++) {
    vigie_reply *reply = RUN(client, "GET", "once:r");
    int there = text_is(reply, VIGIE_ROOT, value);
    vigie_reply_free(reply);
    if (there) return;
  }
  CHECK(!"the replicas never got the write");
}

static void replicas(vigie_sentinel *sentinel, vigie_client *primary) {
  vigie_error *error = NULL;
  vigie_client *replica = NULL;
  vigie_client *split = NULL;
  vigie_config *overrides = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(overrides, "pool.max", "4", &error));
  GIVES(VIGIE_OK, vigie_replica_for(sentinel, service(), overrides, &replica, &error));
  GIVES(VIGIE_OK, vigie_split_for(sentinel, service(), NULL, &split, &error));
  vigie_config_free(overrides);
  vigie_reply_free(RUN(primary, "SET", "once:r", "a"));
  vigie_reply_free(RUN(primary, "WAIT", "2", "10000"));
  reads(replica, "a");
  vigie_reply_free(RUN(split, "SET", "once:r", "b"));
  reads(split, "b");
  GIVES(VIGIE_ERR_READ_ONLY, vigie_cmd_exec(replica, VIGIE_CMD("SET", "once:r", "c"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, vigie_client_close(replica, 1000, &error));
  vigie_client_free(replica);
  vigie_client_free(split);
}

/* The only shard there is; counts how often it was asked. */
static size_t first_shard(void *user, const void *part, size_t part_len, size_t shard_count) {
  (void)part;
  *(size_t *)user += part_len;
  return shard_count - 1;
}

/* The service as the only shard: the handle is used as any other client. */
static void shards(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_client *client = NULL;
  vigie_client *session = NULL;
  vigie_reply *reply = NULL;
  char text[256];
  const char *const texts[] = {text};
  size_t asked = 0;
  snprintf(text, sizeof text, "node_1=sentinel:%s", service());
  GIVES(VIGIE_OK, vigie_shards_for_hash(sentinel, texts, 1, first_shard, &asked, NULL, &client, &error));
  CHECK(vigie_client_shard_of(client, "once:s", 6) == 0 && asked == 6);
  vigie_client_free(client);
  GIVES(VIGIE_OK, vigie_shards_for(sentinel, texts, 1, NULL, &client, &error));
  CHECK(vigie_client_shard_of(client, "once:s", 6) == 0);
  vigie_reply_free(RUN(client, "MSET", "once:s", "a", "once:t{x}", "b"));
  reply = RUN(client, "MGET", "once:t{x}", "once:s");
  CHECK(vigie_reply_count(reply, VIGIE_ROOT) == 2);
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_session_for(client, "once:s", 6, NULL, &session, &error));
  vigie_reply_free(RUN(session, "DEL", "once:s", "once:t"));
  GIVES(VIGIE_OK, vigie_client_topology(client, &reply, &error));
  CHECK(vigie_reply_find(reply, VIGIE_ROOT, "shards", 6) != VIGIE_NONE);
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_client_metrics(client, VIGIE_METRICS_OPENMETRICS, &reply, &error));
  CHECK(strstr(vigie_reply_bytes(reply, VIGIE_ROOT, NULL), "vigie_calls_total{shard=\"node_1\",service=") != NULL);
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_shards_set(client, texts, 1, &error));
  vigie_client_free(session);
  GIVES(VIGIE_OK, vigie_client_close(client, 1000, &error));
  CHECK(vigie_client_is_closed(client) == 1);
  GIVES(VIGIE_ERR_CLOSED, vigie_cmd_exec(client, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  vigie_client_free(client);
}

/* The thread that waits for a connection leaves nothing behind, not even what a leak checker takes for possibly lost. */
static void full_pool(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_client *client = NULL;
  vigie_client *first = NULL;
  vigie_client *second = NULL;
  vigie_config *overrides = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(overrides, "pool.max", "2", &error));
  GIVES(VIGIE_OK, vigie_config_set(overrides, "pool.wait", "50", &error));
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, service(), overrides, &client, &error));
  vigie_config_free(overrides);
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &first, &error));
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &second, &error));
  vigie_reply_free(RUN(first, "PING"));
  GIVES(VIGIE_ERR_POOL_TIMEOUT, vigie_cmd_exec(second, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  vigie_client_free(second);
  vigie_client_free(first);
  vigie_client_free(client);
}

static void queue(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_queue *queue = NULL;
  vigie_event events[4];
  GIVES(VIGIE_OK, vigie_queue_create(16, &queue, &error));
  CHECK(vigie_queue_fd(queue) >= 0);
  vigie_queue_wakeup(queue);
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, 4) == 0);
  vigie_events_clear(events, 0);
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_FENCE, queue, 1, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, 0, queue, 1, &error));
  vigie_queue_free(queue);
}

static void submits(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_queue *queue = NULL;
  vigie_event events[4];
  vigie_packed_event packed;
  size_t len = 0, used = 0;
  vigie_batch *batch = vigie_batch_new();
  const void *list;
  GIVES(VIGIE_OK, vigie_queue_create(4, &queue, &error));
  vigie_batch_add(batch, VIGIE_CMD("SET", "once:s", "v"));
  vigie_batch_add(batch, VIGIE_CMD("INCR", "once:s"));
  list = vigie_batch_data(batch, &len);
  GIVES(VIGIE_OK, vigie_cmds_submit(client, list, len, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue, 7, &error));
  GIVES(VIGIE_OK, vigie_cmds_submit(client, list, len, 0, VIGIE_TIMEOUT_DEFAULT, queue, 9, &error));
  GIVES(VIGIE_ERR_QUEUE_FULL, vigie_cmds_submit(client, list, len, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_cmds_submit(client, list, len, 0, VIGIE_TIMEOUT_DEFAULT, NULL, 1, &error));
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_cmds_submit(client, NULL, len, 0, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_cmds_submit(client, NULL, 0, 0, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_cmds_submit(client, list, SIZE_MAX, 0, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_cmds_submit(client, list, len, 0, 0, queue, 1, &error));
  for (uint64_t i = 0; i < 3; i++) {
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, &events[i], 1) == 1);
    CHECK(events[i].kind == VIGIE_EVENT_COMPLETION && events[i].token == 7 + i);
  }
  CHECK(events[0].status == VIGIE_OK && text_is(events[0].reply, VIGIE_ROOT, "OK") && events[0].nodes != NULL);
  CHECK(events[1].status == VIGIE_ERR_SERVER && vigie_error_status(events[1].error) == VIGIE_ERR_SERVER);
  CHECK(vigie_reply_type(events[2].reply, vigie_reply_child(events[2].reply, VIGIE_ROOT, 1)) == VIGIE_TYPE_ERROR);
  vigie_events_clear(events, 3);
  GIVES(VIGIE_OK, vigie_cmds_submit(client, list, len, 0, VIGIE_TIMEOUT_DEFAULT, queue, 11, &error));
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_DEFAULT, &packed, sizeof packed, &used) == VIGIE_ERR_BUFFER_TOO_SMALL);
  CHECK(used > sizeof packed && vigie_queue_drain(queue, 0, events, 1) == 1 && events[0].token == 11);
  vigie_events_clear(events, 1);
  vigie_batch_clear(batch);
  vigie_batch_add(batch, VIGIE_CMD("STRLEN", "once:s"));
  GIVES(VIGIE_OK, vigie_batch_submit(client, batch, 0, VIGIE_TIMEOUT_DEFAULT, queue, 13, &error));
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, 1) == 1 && events[0].token == 13);
  CHECK(events[0].status == VIGIE_OK && vigie_reply_count(events[0].reply, VIGIE_ROOT) == 1);
  vigie_events_clear(events, 1);
  list = vigie_batch_data(batch, &len);
  GIVES(VIGIE_OK, vigie_cmds_submit(client, list, len, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue, 12, &error));
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_DEFAULT, &packed, sizeof packed, &used) == 1);
  CHECK(used == sizeof packed && packed.size == used && packed.kind == VIGIE_EVENT_COMPLETION && packed.token == 12);
  CHECK(packed.status == VIGIE_OK && packed.root.type == VIGIE_TYPE_INT && packed.root.value == 1);
  CHECK(vigie_queue_cancel(queue, 7) == 0);
  vigie_batch_free(batch);
  vigie_queue_free(queue);
}

static void subscription(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_queue *queue = NULL;
  vigie_sub *sub = NULL;
  vigie_event events[4];
  const vigie_reply *push;
  GIVES(VIGIE_OK, vigie_queue_create(4, &queue, &error));
  GIVES(VIGIE_OK, vigie_sub_for(client, queue, 21, NULL, &sub, &error));
  GIVES(VIGIE_OK, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "api:once"), VIGIE_TIMEOUT_DEFAULT, &error));
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, 4) == 1 && events[0].kind == VIGIE_EVENT_MESSAGE);
  vigie_events_clear(events, 1);
  GIVES(VIGIE_OK, vigie_cmd_exec(client, VIGIE_CMD("PUBLISH", "api:once", "hello"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_DEFAULT, events, 4) == 1 && events[0].kind == VIGIE_EVENT_MESSAGE);
  push = events[0].reply;
  CHECK(events[0].token == 21 && vigie_reply_type(push, VIGIE_ROOT) == VIGIE_TYPE_PUSH && vigie_reply_count(push, VIGIE_ROOT) == 3);
  CHECK(strcmp(vigie_reply_bytes(push, vigie_reply_child(push, VIGIE_ROOT, 2), NULL), "hello") == 0);
  vigie_events_clear(events, 1);
  vigie_sub_free(sub);
  vigie_queue_free(queue);
}

static void call_handle(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_call *call = vigie_call_new();
  vigie_reply *reply = NULL;
  const char list[] = "*1\r\n$4\r\nPING\r\n";
  GIVES(VIGIE_OK, vigie_call_cmd_exec(call, client, VIGIE_CMD("SET", "api:call", "1"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, vigie_call_cmds_exec(call, client, list, sizeof list - 1, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_ARRAY && vigie_reply_count(reply, VIGIE_ROOT) == 1);
  vigie_reply_free(reply);
  GIVES(VIGIE_OK, vigie_call_times(call, &reply, &error));
  CHECK(vigie_reply_int(reply, vigie_reply_find(reply, VIGIE_ROOT, "attempts", 8), 0) == 1);
  vigie_reply_free(reply);
  GIVES(VIGIE_ERR_INVALID_STATE, vigie_call_wait(call, NULL, &error));
  /* No signal comes, and the wait ends all the same, again and again. */
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_call_interrupt_every(call, -1, &error));
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_call_interrupt_every(call, 3600001, &error));
  GIVES(VIGIE_OK, vigie_call_interrupt_every(call, 10, &error));
  GIVES(VIGIE_ERR_INTERRUPTED, vigie_call_cmd_exec(call, client, VIGIE_CMD("BLPOP", "api:none", "0"), 0, VIGIE_TIMEOUT_NONE, NULL, &error));
  GIVES(VIGIE_ERR_INTERRUPTED, vigie_call_wait(call, NULL, &error));
  GIVES(VIGIE_OK, vigie_call_interrupt_every(call, 0, &error));
  GIVES(VIGIE_OK, vigie_cmd_exec(client, VIGIE_CMD("RPUSH", "api:none", "1"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, vigie_call_wait(call, NULL, &error));
  CHECK(!vigie_call_is_cancelled(call));
  GIVES(VIGIE_OK, vigie_call_cancel(call, &error));
  CHECK(vigie_call_is_cancelled(call));
  GIVES(VIGIE_ERR_CANCELLED, vigie_call_cmd_exec(call, client, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  vigie_call_free(call);
}

static void scan_loop(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_scan *scan = NULL;
  vigie_queue *queue = NULL;
  vigie_event event;
  vigie_reply *page = NULL;
  unsigned pages = 0;
  vigie_reply_free(RUN(client, "SADD", "api:set", "a", "b", "c"));
  GIVES(VIGIE_OK, vigie_scan_for(client, VIGIE_CMD("SSCAN", "api:set", "0"), 1, &scan, &error));
  for (;; pages++) {
    GIVES(VIGIE_OK, vigie_scan_next(scan, VIGIE_TIMEOUT_DEFAULT, &page, &error));
    if (page == NULL) break;
    CHECK(vigie_reply_type(page, VIGIE_ROOT) == VIGIE_TYPE_ARRAY && vigie_reply_count(page, VIGIE_ROOT) == 3);
    vigie_reply_free(page);
  }
  GIVES(VIGIE_OK, vigie_scan_next(scan, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  CHECK(pages == 1 && vigie_scan_restarts(scan) == 0);
  vigie_scan_free(scan);
  GIVES(VIGIE_OK, vigie_queue_create(1, &queue, &error));
  GIVES(VIGIE_OK, vigie_scan_for(client, VIGIE_CMD("SSCAN", "api:set", "0"), 1, &scan, &error));
  for (pages = 0; pages < 2; pages++) {
    GIVES(VIGIE_OK, vigie_scan_submit(scan, VIGIE_TIMEOUT_DEFAULT, queue, 7, &error));
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1);
    CHECK(event.kind == VIGIE_EVENT_COMPLETION && event.token == 7 && event.status == VIGIE_OK);
    CHECK((event.reply == NULL) == (pages == 1));
    vigie_events_clear(&event, 1);
  }
  vigie_scan_free(scan);
  vigie_queue_free(queue);
}

static void worker(vigie_client *client) {
  vigie_error *error = NULL;
  vigie_jobs *jobs = NULL;
  vigie_reply *job = NULL;
  GIVES(VIGIE_OK, vigie_jobs_for(client, "api:jobs", "once", VIGIE_TIMEOUT_DEFAULT, &jobs, &error));
  GIVES(VIGIE_OK, vigie_jobs_limit_deliveries(jobs, 2, &error));
  GIVES(VIGIE_OK, vigie_jobs_push(client, "api:jobs", "first", "a\0b", 3, VIGIE_TIMEOUT_DEFAULT, &error));
  for (int redelivered = 0; redelivered < 2; redelivered++) {
    GIVES(VIGIE_OK, vigie_jobs_take(jobs, VIGIE_TIMEOUT_DEFAULT, &job, &error));
    CHECK(vigie_reply_type(job, VIGIE_ROOT) == VIGIE_TYPE_MAP && text_is(job, vigie_reply_find(job, VIGIE_ROOT, "id", 2), "first"));
    size_t len = 0;
    const char *payload = vigie_reply_bytes(job, vigie_reply_find(job, VIGIE_ROOT, "payload", 7), &len);
    CHECK(len == 3 && memcmp(payload, "a\0b", 4) == 0);
    CHECK(vigie_reply_int(job, vigie_reply_find(job, VIGIE_ROOT, "redelivered", 11), -1) == redelivered);
    vigie_reply_free(job);
    GIVES(VIGIE_OK, vigie_jobs_renew(jobs, VIGIE_TIMEOUT_DEFAULT, &error));
    if (redelivered == 0) GIVES(VIGIE_OK, vigie_jobs_return(jobs, "first", VIGIE_TIMEOUT_DEFAULT, &error));
  }
  GIVES(VIGIE_OK, vigie_jobs_ack(jobs, "first", VIGIE_TIMEOUT_DEFAULT, &error));
  GIVES(VIGIE_ERR_INVALID_STATE, vigie_jobs_ack(jobs, "first", VIGIE_TIMEOUT_DEFAULT, &error));
  GIVES(VIGIE_OK, vigie_jobs_take(jobs, 0, &job, &error));
  CHECK(job == NULL);
  vigie_queue *queue = NULL;
  vigie_event event;
  GIVES(VIGIE_OK, vigie_queue_create(1, &queue, &error));
  GIVES(VIGIE_OK, vigie_jobs_push_submit(client, "api:jobs", "second", "b", 1, VIGIE_TIMEOUT_DEFAULT, queue, 1, &error));
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1 && event.status == VIGIE_OK && event.token == 1);
  CHECK(vigie_reply_int(event.reply, VIGIE_ROOT, -1) == 1);
  vigie_events_clear(&event, 1);
  for (int redelivered = 0; redelivered < 2; redelivered++) {
    GIVES(VIGIE_OK, vigie_jobs_take_submit(jobs, VIGIE_TIMEOUT_DEFAULT, queue, 2, &error));
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1 && event.status == VIGIE_OK && event.token == 2);
    CHECK(text_is(event.reply, vigie_reply_find(event.reply, VIGIE_ROOT, "id", 2), "second"));
    CHECK(vigie_reply_int(event.reply, vigie_reply_find(event.reply, VIGIE_ROOT, "redelivered", 11), -1) == redelivered);
    vigie_events_clear(&event, 1);
    GIVES(VIGIE_OK, vigie_jobs_renew_submit(jobs, VIGIE_TIMEOUT_DEFAULT, queue, 3, &error));
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1 && event.status == VIGIE_OK && event.reply == NULL);
    vigie_events_clear(&event, 1);
    GIVES(VIGIE_OK, redelivered == 0 ? vigie_jobs_return_submit(jobs, "second", VIGIE_TIMEOUT_DEFAULT, queue, 4, &error)
                                     : vigie_jobs_ack_submit(jobs, "second", VIGIE_TIMEOUT_DEFAULT, queue, 4, &error));
    CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1 && event.status == VIGIE_OK && event.reply == NULL);
    vigie_events_clear(&event, 1);
  }
  GIVES(VIGIE_OK, vigie_jobs_close_submit(jobs, VIGIE_TIMEOUT_DEFAULT, queue, 5, &error));
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, &event, 1) == 1 && event.status == VIGIE_OK && event.token == 5);
  vigie_events_clear(&event, 1);
  vigie_queue_free(queue);
  GIVES(VIGIE_OK, vigie_jobs_stop(jobs, &error));
  GIVES(VIGIE_ERR_CANCELLED, vigie_jobs_take(jobs, VIGIE_TIMEOUT_NONE, &job, &error));
  GIVES(VIGIE_OK, vigie_jobs_close(jobs, VIGIE_TIMEOUT_DEFAULT, &error));
  vigie_jobs_free(jobs);
}

int main(void) {
  vigie_error *error = NULL;
  vigie_config *config = config_of_deployment();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client;
  library();
  configuration();
  GIVES(VIGIE_OK, vigie_sentinel_create(config, 10000, &sentinel, &error));
  vigie_config_free(config);
  queue(sentinel);
  sentinels(sentinel);
  client = open_primary(sentinel);
  commands(client);
  errors(client);
  pipeline(client);
  submits(client);
  subscription(client);
  scan_loop(client);
  call_handle(client);
  worker(client);
  knowledge(client);
  session(client);
  replicas(sentinel, client);
  shards(sentinel);
  full_pool(sentinel);
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 1000, &error));
  CHECK(vigie_client_is_closed(client));
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
