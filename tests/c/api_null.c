/* Each function with NULL everywhere, with each pointer NULL one at a time, with wrong flags, lengths and counts: a code and a
 * sentence, never a crash. Nothing is sent: no server is needed. */
#include "common.h"

#define TOO_LONG (SIZE_MAX / 2 + 1)

static vigie_error *error = NULL;
static vigie_config *config;
static vigie_sentinel *sentinel;
static vigie_client *client;
static vigie_reply *reply;
static char rubbish[256]; /* readable memory that is no handle */

/* A wrong call gives INVALID_ARG, its message says which function and names what is wrong, and the output is NULL. */
#define REFUSED(word, out, call)                                                                     \
  do {                                                                                               \
    vigie_status status;                                                                             \
    error = (vigie_error *)rubbish;                                                                  \
    status = (call);                                                                                 \
    if (status != VIGIE_ERR_INVALID_ARG || strstr(vigie_error_message(error), word) == NULL ||       \
        strncmp(vigie_error_message(error), #call, strcspn(#call, "(")) != 0) {                      \
      fprintf(stderr, "%s:%d: %s gave %s: %s\n", __FILE__, __LINE__, #call, vigie_status_name(status), \
              vigie_error_message(error));                                                           \
      exit(1);                                                                                       \
    }                                                                                                \
    vigie_error_free(error);                                                                         \
    error = NULL;                                                                                    \
    CHECK((out) == NULL);                                                                            \
  } while (0)

#define NO_OUT ((void *)NULL)

static void configuration(void) {
  vigie_reply *out = (vigie_reply *)rubbish;
  REFUSED("config is NULL", NO_OUT, vigie_config_set(NULL, NULL, NULL, &error));
  REFUSED("config is NULL", NO_OUT, vigie_config_set(NULL, "db", "1", &error));
  REFUSED("key is NULL", NO_OUT, vigie_config_set(config, NULL, "1", &error));
  REFUSED("value is NULL", NO_OUT, vigie_config_set(config, "db", NULL, &error));
  REFUSED("value is not UTF-8", NO_OUT, vigie_config_set(config, "client.name", "\xff\xfe", &error));
  REFUSED("not a handle", NO_OUT, vigie_config_set((vigie_config *)rubbish, "db", "1", &error));
  REFUSED("config is a vigie_client", NO_OUT, vigie_config_set((vigie_config *)client, "db", "1", &error));
  REFUSED("config is NULL", out, vigie_config_describe(NULL, &out, &error));
  CHECK(vigie_config_set(NULL, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_config_describe(NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  GIVES(VIGIE_OK, vigie_config_describe(config, NULL, &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_config_set(config, "", "", &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_config_set(config, "tcp_keepalive", "1", &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_config_set(config, "uri", "http://[", &error));
  CHECK(vigie_config_set(config, "nonsense", "1", NULL) == VIGIE_ERR_CONFIG);
}

static void sentinels(void) {
  vigie_sentinel *made = (vigie_sentinel *)rubbish;
  vigie_reply *out = (vigie_reply *)rubbish;
  vigie_config *empty = vigie_config_new();
  CHECK(vigie_sentinel_create(NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("config is NULL", made, vigie_sentinel_create(NULL, 0, &made, &error));
  REFUSED("out is NULL", NO_OUT, vigie_sentinel_create(config, 0, NULL, &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_sentinel_create(empty, 0, &made, &error));
  CHECK(made == NULL);
  vigie_config_free(empty);
  CHECK(vigie_sentinel_topology(NULL, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_topology(NULL, "s", &out, &error));
  REFUSED("service is empty", out, vigie_sentinel_topology(sentinel, "", &out, &error));
  REFUSED("service is not UTF-8", out, vigie_sentinel_topology(sentinel, "\xc0", &out, &error));
  CHECK(vigie_sentinel_stats(NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_stats(NULL, &out, &error));
  GIVES(VIGIE_OK, vigie_sentinel_stats(sentinel, NULL, &error));
  CHECK(vigie_sentinel_metrics(NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_metrics(NULL, 0, &out, &error));
  REFUSED("flags: 0x2 is unknown", out, vigie_sentinel_metrics(sentinel, 3, &out, &error));
  CHECK(vigie_sentinel_refresh(NULL, NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_refresh(NULL, "s", 0, &out, &error));
  REFUSED("sentinel is a vigie_config", out, vigie_sentinel_refresh((vigie_sentinel *)config, "s", 0, &out, &error));
  CHECK(vigie_sentinel_exec(NULL, 0, NULL, NULL, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_exec(NULL, VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("argc is 0", out, vigie_sentinel_exec(sentinel, 0, NULL, NULL, 0, 1000, &out, &error));
  REFUSED("argv is NULL", out, vigie_sentinel_exec(sentinel, 1, NULL, NULL, 0, 1000, &out, &error));
  REFUSED("flags: 0x2 has no meaning", out, vigie_sentinel_exec(sentinel, VIGIE_CMD("PING"), VIGIE_CALL_IDEMPOTENT, 1000, &out, &error));
  REFUSED("without that word", out, vigie_sentinel_exec(sentinel, VIGIE_CMD("SENTINEL", "MASTERS"), 0, 1000, &out, &error));
  REFUSED("VIGIE_CALL_ALL", out, vigie_sentinel_exec(sentinel, VIGIE_CMD("RESET", "*"), 0, 1000, &out, &error));
  CHECK(vigie_sentinel_exec_at(NULL, NULL, 0, NULL, NULL, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_exec_at(NULL, "h:1", VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("address is NULL", out, vigie_sentinel_exec_at(sentinel, NULL, VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("address: ", out, vigie_sentinel_exec_at(sentinel, "h:70000", VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("exclude each other", out, vigie_sentinel_exec_at(sentinel, "h:1", VIGIE_CMD("PING"), VIGIE_CALL_ALL, 1000, &out, &error));
  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(1, &queue, &error));
  CHECK(vigie_sentinel_submit(NULL, 0, NULL, NULL, 0, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", NO_OUT, vigie_sentinel_submit(NULL, VIGIE_CMD("PING"), 0, 1000, queue, 1, &error));
  REFUSED("queue is NULL", NO_OUT, vigie_sentinel_submit(sentinel, VIGIE_CMD("PING"), 0, 1000, NULL, 1, &error));
  REFUSED("argc is 0", NO_OUT, vigie_sentinel_submit(sentinel, 0, NULL, NULL, 0, 1000, queue, 1, &error));
  REFUSED("flags: 0x2 has no meaning", NO_OUT, vigie_sentinel_submit(sentinel, VIGIE_CMD("PING"), VIGIE_CALL_IDEMPOTENT, 1000, queue, 1, &error));
  REFUSED("VIGIE_CALL_ALL", NO_OUT, vigie_sentinel_submit(sentinel, VIGIE_CMD("RESET", "*"), 0, 1000, queue, 1, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_sentinel_submit(sentinel, VIGIE_CMD("PING"), 0, -2, queue, 1, &error));
  CHECK(vigie_sentinel_submit_at(NULL, NULL, 0, NULL, NULL, 0, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("address is NULL", NO_OUT, vigie_sentinel_submit_at(sentinel, NULL, VIGIE_CMD("PING"), 0, 1000, queue, 1, &error));
  REFUSED("address: ", NO_OUT, vigie_sentinel_submit_at(sentinel, "h:70000", VIGIE_CMD("PING"), 0, 1000, queue, 1, &error));
  REFUSED("exclude each other", NO_OUT, vigie_sentinel_submit_at(sentinel, "h:1", VIGIE_CMD("PING"), VIGIE_CALL_ALL, 1000, queue, 1, &error));
  CHECK(vigie_sentinel_services_submit(NULL, 0, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("queue is NULL", NO_OUT, vigie_sentinel_services_submit(sentinel, 0, 1000, NULL, 1, &error));
  REFUSED("flags: 0x2 is unknown", NO_OUT, vigie_sentinel_services_submit(sentinel, 2, 1000, queue, 1, &error));
  vigie_event none;
  CHECK(vigie_queue_drain(queue, 0, &none, 1) == 0);
  vigie_queue_free(queue);
  CHECK(vigie_sentinel_services(NULL, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", out, vigie_sentinel_services(NULL, 0, 1000, &out, &error));
  REFUSED("flags: 0x2 is unknown", out, vigie_sentinel_services(sentinel, 2, 1000, &out, &error));
  CHECK(vigie_sentinel_configure(NULL, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", NO_OUT, vigie_sentinel_configure(NULL, "db", "1", &error));
  REFUSED("key is NULL", NO_OUT, vigie_sentinel_configure(sentinel, NULL, "1", &error));
  REFUSED("value is NULL", NO_OUT, vigie_sentinel_configure(sentinel, "db", NULL, &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_sentinel_configure(sentinel, "nonsense", "1", &error));
  REFUSED("sentinel is NULL", NO_OUT, vigie_sentinel_configure_all(NULL, config, &error));
  REFUSED("config is NULL", NO_OUT, vigie_sentinel_configure_all(sentinel, NULL, &error));
  CHECK(vigie_sentinel_close(NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sentinel is NULL", NO_OUT, vigie_sentinel_close(NULL, INT64_MIN, &error));
}

typedef vigie_status constructor(vigie_sentinel *, const char *, const vigie_config *, vigie_client **, vigie_error **);

static void constructors(void) {
  constructor *const all[] = {vigie_primary_for, vigie_replica_for, vigie_split_for};
  vigie_client *made = NULL;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    CHECK(all[i](NULL, NULL, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
    made = (vigie_client *)rubbish;
    GIVES(VIGIE_ERR_INVALID_ARG, all[i](NULL, "s", NULL, &made, &error));
    CHECK(made == NULL);
    GIVES(VIGIE_ERR_INVALID_ARG, all[i](sentinel, "s", NULL, NULL, &error));
    GIVES(VIGIE_ERR_INVALID_ARG, all[i](sentinel, "", NULL, &made, &error));
    GIVES(VIGIE_ERR_INVALID_ARG, all[i](sentinel, "s", (vigie_config *)rubbish, &made, &error));
    GIVES(VIGIE_ERR_CONFIG, all[i](sentinel, "s", config, &made, &error)); /* sentinel.addrs is no override */
    CHECK(made == NULL);
    CHECK(all[i](sentinel, "s", NULL, &made, NULL) == VIGIE_OK);
    vigie_client_free(made);
  }
  CHECK(vigie_session_for(NULL, NULL, 0, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  made = (vigie_client *)rubbish;
  REFUSED("client is NULL", made, vigie_session_for(NULL, NULL, 0, NULL, &made, &error));
  REFUSED("out is NULL", NO_OUT, vigie_session_for(client, NULL, 0, NULL, NULL, &error));
  REFUSED("key is NULL", made, vigie_session_for(client, NULL, 3, NULL, &made, &error));
  REFUSED("length of key", made, vigie_session_for(client, "k", TOO_LONG, NULL, &made, &error));
  REFUSED("overrides is not a handle", made, vigie_session_for(client, "k", 1, (vigie_config *)rubbish, &made, &error));
}

static void commands(void) {
  const char *ping[] = {"PING"};
  const char *hole[] = {"GET", NULL};
  const size_t one[] = {4, 0};
  const size_t bad[] = {4, 1};
  const size_t huge[] = {TOO_LONG};
  const size_t wraps[] = {SIZE_MAX, SIZE_MAX};
  vigie_reply *out = (vigie_reply *)rubbish;
  CHECK(vigie_cmd_exec(NULL, 0, NULL, NULL, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", out, vigie_cmd_exec(NULL, 1, ping, NULL, 0, 0, &out, &error));
  REFUSED("client is a vigie_sentinel", out, vigie_cmd_exec((vigie_client *)sentinel, 1, ping, NULL, 0, 0, &out, &error));
  REFUSED("argc is 0", out, vigie_cmd_exec(client, 0, ping, NULL, 0, 0, &out, &error));
  REFUSED("argc is", out, vigie_cmd_exec(client, SIZE_MAX, ping, NULL, 0, 0, &out, &error));
  REFUSED("argc is", out, vigie_cmd_exec(client, (size_t)-1, ping, one, 0, 0, &out, &error));
  REFUSED("argv is NULL", out, vigie_cmd_exec(client, 1, NULL, NULL, 0, 0, &out, &error));
  REFUSED("argv[1] is NULL", out, vigie_cmd_exec(client, 2, hole, NULL, 0, 0, &out, &error));
  REFUSED("argv[1] is NULL", out, vigie_cmd_exec(client, 2, hole, bad, 0, 0, &out, &error));
  REFUSED("length of argv[0]", out, vigie_cmd_exec(client, 1, ping, huge, 0, 0, &out, &error));
  REFUSED("length of argv[0]", out, vigie_cmd_exec(client, 2, hole, wraps, 0, 0, &out, &error));
  REFUSED("flag", out, vigie_cmd_exec(client, 1, ping, NULL, 0xFFFFFFFFu, 0, &out, &error));
  REFUSED("flag", out, vigie_cmd_exec(client, 1, ping, NULL, 1u << 23, 0, &out, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_cmd_exec(client, 2, hole, one, 0, 0, &out, &error)); /* (NULL, 0) is an empty argument */
  GIVES(VIGIE_ERR_TIMEOUT, vigie_cmd_exec(client, 1, ping, NULL, 0, -1, NULL, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_cmd_exec(client, 1, ping, NULL, 0, INT64_MIN, NULL, &error));
  CHECK(vigie_cmd_exec(client, 1, ping, NULL, 0, 0, NULL, NULL) == VIGIE_ERR_TIMEOUT);
}

static void lists(void) {
  const char list[] = "*1\r\n$4\r\nPING\r\n";
  const size_t len = sizeof list - 1;
  vigie_reply *out = (vigie_reply *)rubbish;
  CHECK(vigie_cmds_exec(NULL, NULL, 0, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", out, vigie_cmds_exec(NULL, list, len, 0, 0, &out, &error));
  REFUSED("commands is NULL", out, vigie_cmds_exec(client, NULL, 5, 0, 0, &out, &error));
  REFUSED("length of commands", out, vigie_cmds_exec(client, list, TOO_LONG, 0, 0, &out, &error));
  REFUSED("length of commands", out, vigie_cmds_exec(client, list, SIZE_MAX, 0, 0, &out, &error));
  REFUSED("flag", out, vigie_cmds_exec(client, list, len, 1u << 22, 0, &out, &error));
  REFUSED("", out, vigie_cmds_exec(client, NULL, 0, 0, 0, &out, &error));
  REFUSED("", out, vigie_cmds_exec(client, "PING\r\n", 6, 0, 0, &out, &error));
  for (size_t cut = 1; cut < len; cut++) REFUSED("", out, vigie_cmds_exec(client, list, cut, 0, 0, &out, &error));
  REFUSED("", out, vigie_cmds_exec(client, "*-1\r\n", 5, 0, 0, &out, &error));
  REFUSED("", out, vigie_cmds_exec(client, "*1\r\n$-1\r\n", 9, 0, 0, &out, &error));
  REFUSED("", out, vigie_cmds_exec(client, "*1\r\n$99999999999999999999\r\n", 27, 0, 0, &out, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_cmds_exec(client, list, len, 0, 0, &out, &error));
}

static void batches(void) {
  const char *ping[] = {"PING"};
  const char *hole[] = {NULL};
  const size_t huge[] = {SIZE_MAX};
  size_t len = 7;
  const void *data;
  vigie_reply *out = NULL;
  vigie_batch *batch = vigie_batch_new();
  vigie_batch_add(NULL, 0, NULL, NULL);
  vigie_batch_clear(NULL);
  vigie_batch_free(NULL);
  CHECK(vigie_batch_data(NULL, NULL) == NULL);
  CHECK(vigie_batch_data(NULL, &len) == NULL && len == 0);
  CHECK(vigie_batch_data((vigie_batch *)rubbish, &len) == NULL && len == 0);
  CHECK(vigie_batch_data(batch, NULL) != NULL);
  for (int wrong = 0; wrong < 5; wrong++) {
    vigie_batch_add(batch, 1, ping, NULL);
    if (wrong == 0) vigie_batch_add(batch, 0, ping, NULL);
    if (wrong == 1) vigie_batch_add(batch, 1, NULL, NULL);
    if (wrong == 2) vigie_batch_add(batch, 1, hole, NULL);
    if (wrong == 3) vigie_batch_add(batch, 1, ping, huge);
    if (wrong == 4) vigie_batch_add(batch, SIZE_MAX, ping, NULL);
    vigie_batch_add(batch, 1, ping, NULL);
    data = vigie_batch_data(batch, &len);
    REFUSED("vigie_batch_add: ", out, vigie_cmds_exec(client, data, len, 0, 0, &out, &error));
    REFUSED("vigie_batch_add: ", out, vigie_batch_exec(client, batch, 0, 0, &out, &error));
    REFUSED("vigie_batch_add: ", NO_OUT, vigie_batch_submit(client, batch, 0, 1000, NULL, 0, &error));
    vigie_batch_clear(batch);
  }
  REFUSED("batch is NULL", out, vigie_batch_exec(client, NULL, 0, 0, &out, &error));
  REFUSED("batch is ", out, vigie_batch_exec(client, (vigie_batch *)client, 0, 0, &out, &error));
  REFUSED("batch is NULL", NO_OUT, vigie_batch_submit(client, NULL, 0, 1000, NULL, 0, &error));
  REFUSED("client is NULL", out, vigie_batch_exec(NULL, batch, 0, 0, &out, &error));
  REFUSED("client is NULL", NO_OUT, vigie_batch_submit(NULL, batch, 0, 1000, NULL, 0, &error));
  REFUSED("queue is NULL", NO_OUT, vigie_batch_submit(client, batch, 0, 1000, NULL, 0, &error));
  REFUSED("flags", out, vigie_batch_exec(client, batch, 1u << 20, 0, &out, &error));
  REFUSED("empty", out, vigie_batch_exec(client, batch, 0, 0, &out, &error));
  data = vigie_batch_data(batch, &len);
  CHECK(len == 0);
  REFUSED("", out, vigie_cmds_exec(client, data, len, 0, 0, &out, &error));
  vigie_batch_free(batch);
}

static void clients(void) {
  vigie_reply *out = (vigie_reply *)rubbish;
  CHECK(vigie_client_topology(NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", out, vigie_client_topology(NULL, &out, &error));
  GIVES(VIGIE_OK, vigie_client_topology(client, NULL, &error));
  CHECK(vigie_client_metrics(NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", out, vigie_client_metrics(NULL, 0, &out, &error));
  REFUSED("flags: 0x4 is unknown", out, vigie_client_metrics(client, 5, &out, &error));
  GIVES(VIGIE_OK, vigie_client_metrics(client, 0, NULL, &error));
  CHECK(vigie_client_stats(NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", out, vigie_client_stats(NULL, &out, &error));
  GIVES(VIGIE_OK, vigie_client_stats(client, NULL, &error));
  CHECK(vigie_client_disconnect(NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", NO_OUT, vigie_client_disconnect(NULL, &error));
  CHECK(vigie_client_close(NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", NO_OUT, vigie_client_close(NULL, INT64_MAX, &error));
}

/* None of these can fail: each has an answer for no reply, for what is no reply, and for a node that is not there. */
static void replies(void) {
  const vigie_reply *none[] = {NULL, (vigie_reply *)rubbish, (vigie_reply *)config, (vigie_reply *)(rubbish + 1), reply};
  const uint32_t nodes[] = {0x7FFFFFFFu, 1000000u, VIGIE_NONE};
  vigie_reply *out = (vigie_reply *)rubbish;
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    for (size_t n = 0; n < sizeof nodes / sizeof *nodes; n++) {
      size_t len = 7;
      CHECK(vigie_reply_type(none[i], nodes[n]) == VIGIE_TYPE_NONE);
      CHECK(vigie_reply_count(none[i], nodes[n]) == 0);
      CHECK(vigie_reply_child(none[i], nodes[n], 0) == VIGIE_NONE);
      CHECK(vigie_reply_find(none[i], nodes[n], "k", 1) == VIGIE_NONE);
      CHECK(vigie_reply_bytes(none[i], nodes[n], &len) == NULL && len == 0);
      CHECK(vigie_reply_bytes(none[i], nodes[n], NULL) == NULL);
      CHECK(vigie_reply_int(none[i], nodes[n], -7) == -7);
      CHECK(vigie_reply_double(none[i], nodes[n], -7.0) < -6.9);
    }
  }
  CHECK(vigie_reply_find(reply, VIGIE_ROOT, NULL, 3) == VIGIE_NONE);
  CHECK(vigie_reply_find(reply, VIGIE_ROOT, "k", SIZE_MAX) == VIGIE_NONE);
  CHECK(vigie_reply_find(reply, VIGIE_ROOT, NULL, 0) == VIGIE_NONE);
  CHECK(vigie_reply_child(reply, VIGIE_ROOT, VIGIE_NONE) == VIGIE_NONE);
  CHECK(vigie_reply_nodes(NULL, NULL, NULL, NULL) == NULL);
  CHECK(vigie_reply_nodes(reply, NULL, NULL, NULL) != NULL);
  CHECK(vigie_reply_json(NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("reply is NULL", out, vigie_reply_json(NULL, &out, &error));
  REFUSED("reply is not a handle", out, vigie_reply_json((vigie_reply *)rubbish, &out, &error));
  GIVES(VIGIE_OK, vigie_reply_json(reply, NULL, &error));
}

static void watches(vigie_queue *queue) {
  const uint32_t unwatchable[] = {1, VIGIE_EVENT_DROPPED, VIGIE_EVENT_TOPOLOGY | VIGIE_EVENT_DROPPED, 1u << 31, UINT32_MAX};
  vigie_sentinel *foreign = (vigie_sentinel *)config;
  REFUSED("sentinel is NULL", NO_OUT, vigie_sentinel_watch(NULL, VIGIE_EVENT_FENCE, queue, 0, &error));
  REFUSED("sentinel is", NO_OUT, vigie_sentinel_watch((vigie_sentinel *)rubbish, VIGIE_EVENT_FENCE, queue, 0, &error));
  REFUSED("sentinel is", NO_OUT, vigie_sentinel_watch(foreign, VIGIE_EVENT_FENCE, queue, 0, &error));
  REFUSED("queue is NULL", NO_OUT, vigie_sentinel_watch(sentinel, VIGIE_EVENT_FENCE, NULL, 0, &error));
  REFUSED("queue is", NO_OUT, vigie_sentinel_watch(sentinel, VIGIE_EVENT_FENCE, (vigie_queue *)rubbish, 0, &error));
  for (size_t i = 0; i < sizeof unwatchable / sizeof *unwatchable; i++)
    REFUSED("event_kinds", NO_OUT, vigie_sentinel_watch(sentinel, unwatchable[i], queue, 0, &error));
  CHECK(vigie_sentinel_watch(NULL, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, 0, queue, 0, &error));
  GIVES(VIGIE_OK, vigie_sentinel_watch(sentinel, VIGIE_EVENT_FENCE, queue, UINT64_MAX, NULL));
}

static void queues(void) {
  vigie_queue *queue = (vigie_queue *)rubbish;
  vigie_event events[2];
  char buffer[2 * sizeof(vigie_packed_event)];
  size_t used = 1;
  CHECK(vigie_queue_create(0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("out is NULL", NO_OUT, vigie_queue_create(1, NULL, &error));
  REFUSED("capacity is 0", queue, vigie_queue_create(0, &queue, &error));
  REFUSED("capacity is 1048577", queue, vigie_queue_create(1048577, &queue, &error));
  REFUSED("capacity is", queue, vigie_queue_create(SIZE_MAX, &queue, &error));
  GIVES(VIGIE_OK, vigie_queue_create(1048576, &queue, &error));
  watches(queue);
  CHECK(vigie_queue_drain(NULL, 0, NULL, 0) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain(NULL, 0, events, 2) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain((vigie_queue *)rubbish, 0, events, 2) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain((vigie_queue *)config, 0, events, 2) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, NULL, 2) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, events, 0) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain(queue, INT64_MIN, events, 2) == 0);
  CHECK(vigie_queue_drain(queue, 0, events, 2) == 0);
  CHECK(vigie_queue_drain_packed(NULL, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed(NULL, 0, buffer, sizeof buffer, &used) == VIGIE_ERR_INVALID_ARG && used == 0);
  CHECK(vigie_queue_drain_packed((vigie_queue *)rubbish, 0, buffer, sizeof buffer, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed((vigie_queue *)config, 0, buffer, sizeof buffer, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_NONE, NULL, sizeof buffer, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_NONE, buffer, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_NONE, buffer, sizeof(vigie_packed_event) - 1, NULL) ==
        VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed(queue, VIGIE_TIMEOUT_NONE, buffer, TOO_LONG, NULL) == VIGIE_ERR_INVALID_ARG);
  CHECK(vigie_queue_drain_packed(queue, INT64_MIN, buffer, sizeof buffer, NULL) == 0);
  CHECK(vigie_queue_fd(NULL) == -1);
  CHECK(vigie_queue_fd((vigie_queue *)rubbish) == -1);
  CHECK(vigie_queue_fd((vigie_queue *)reply) == -1);
  CHECK(vigie_queue_cancel(NULL, 1) == 0);
  CHECK(vigie_queue_cancel((vigie_queue *)rubbish, 1) == 0);
  CHECK(vigie_queue_cancel(queue, 1) == 0);
  REFUSED("client is NULL", NO_OUT, vigie_cmds_submit(NULL, "", 0, 0, 1, queue, 0, &error));
  REFUSED("client is", NO_OUT, vigie_cmds_submit((vigie_client *)rubbish, "", 0, 0, 1, queue, 0, &error));
  vigie_queue_wakeup(NULL);
  vigie_queue_wakeup((vigie_queue *)rubbish);
  vigie_events_clear(NULL, 0);
  vigie_events_clear(NULL, SIZE_MAX);
  vigie_events_clear(events, 0);
  vigie_queue_free(queue);
}

static size_t no_shard(void *user, const void *part, size_t part_len, size_t shard_count) {
  (void)user, (void)part;
  return part_len + shard_count;
}

static void shards(void) {
  const char *const texts[] = {"node_1=redis://127.0.0.1:1", "node_2=redis://127.0.0.1:2"};
  const char *const gap[] = {"node_1=redis://127.0.0.1:1", "node_3=redis://127.0.0.1:2"};
  const char *const null[] = {NULL};
  const char *const service[] = {"node_1=sentinel:s"};
  vigie_client *made = (vigie_client *)rubbish;
  vigie_client *session = (vigie_client *)rubbish;
  vigie_reply *out = (vigie_reply *)rubbish;
  vigie_config *degraded = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(degraded, "shard.degraded", "on", &error));
  CHECK(vigie_shards_for(NULL, NULL, 0, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("out is NULL", NO_OUT, vigie_shards_for(NULL, texts, 2, degraded, NULL, &error));
  REFUSED("shard_count is 0", made, vigie_shards_for(NULL, texts, 0, degraded, &made, &error));
  REFUSED("shard_count is 18446744073709551615", made, vigie_shards_for(NULL, texts, SIZE_MAX, degraded, &made, &error));
  REFUSED("shards is NULL", made, vigie_shards_for(NULL, NULL, 2, degraded, &made, &error));
  REFUSED("one of shards is NULL", made, vigie_shards_for(NULL, null, 1, degraded, &made, &error));
  REFUSED("sentinel is NULL", made, vigie_shards_for(NULL, service, 1, degraded, &made, &error));
  REFUSED("sentinel is not a handle", made, vigie_shards_for((vigie_sentinel *)rubbish, texts, 2, degraded, &made, &error));
  GIVES(VIGIE_ERR_INVALID_ARG, vigie_shards_for(NULL, texts, 2, (vigie_config *)rubbish, &made, &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_shards_for(NULL, gap, 2, degraded, &made, &error));
  REFUSED("hash is NULL", made, vigie_shards_for_hash(NULL, texts, 2, NULL, NULL, degraded, &made, &error));
  REFUSED("out is NULL", NO_OUT, vigie_shards_for_hash(NULL, texts, 2, no_shard, NULL, degraded, NULL, &error));
  REFUSED("shards is NULL", made, vigie_shards_for_hash(NULL, NULL, 2, no_shard, NULL, degraded, &made, &error));
  GIVES(VIGIE_OK, vigie_shards_for_hash(NULL, texts, 2, no_shard, NULL, degraded, &made, &error));
  CHECK(vigie_client_shard_of(made, "foo", 3) == -1);
  REFUSED("gave shard 5 for 'foo', and there are 2", out, vigie_cmd_exec(made, VIGIE_CMD("GET", "foo"), 0, 100, &out, &error));
  vigie_client_free(made);
  GIVES(VIGIE_OK, vigie_shards_for(NULL, texts, 2, degraded, &made, &error));
  CHECK(vigie_client_shard_of(made, "foo", 3) == 1 && vigie_client_shard_of(made, "bar", 3) == 0);
  CHECK(vigie_client_shard_of(made, NULL, 0) == 0 && vigie_client_shard_of(made, NULL, 1) == -1);
  CHECK(vigie_client_shard_of(made, "{a}", 3) == -1 && vigie_client_shard_of(NULL, "a", 1) == -1);
  CHECK(vigie_client_shard_of(client, "a", 1) == -1);
  CHECK(vigie_shards_set(NULL, texts, 2, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", NO_OUT, vigie_shards_set(NULL, texts, 2, &error));
  REFUSED("client has no shards", NO_OUT, vigie_shards_set(client, texts, 2, &error));
  REFUSED("shards is NULL", NO_OUT, vigie_shards_set(made, NULL, 1, &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_shards_set(made, gap, 2, &error));
  REFUSED("key is NULL", session, vigie_session_for(made, NULL, 0, NULL, &session, &error));
  REFUSED("needs a name", out, vigie_cmd_exec(made, VIGIE_CMD(""), 0, 100, &out, &error));
  REFUSED("argv is NULL", out, vigie_cmd_exec(made, 1, NULL, NULL, 0, 100, &out, &error));
  REFUSED("unknown call flags", out, vigie_cmd_exec(made, VIGIE_CMD("GET", "a"), 1u << 22, 100, &out, &error));
  GIVES(VIGIE_ERR_CROSS_SHARD, vigie_cmd_exec(made, VIGIE_CMD("BLPOP", "foo", "bar", "0"), 0, 100, &out, &error));
  GIVES(VIGIE_ERR_UNSUPPORTED, vigie_cmd_exec(made, VIGIE_CMD("MULTI"), 0, 100, &out, &error));
  GIVES(VIGIE_ERR_UNSUPPORTED, vigie_cmd_exec(made, VIGIE_CMD("SOME.MODULE", "a"), 0, 100, &out, &error));
  vigie_config_free(degraded);
  vigie_client_free(made);
}

static void scans(void) {
  vigie_scan *scan = (vigie_scan *)rubbish;
  vigie_reply *out = (vigie_reply *)rubbish;
  CHECK(vigie_scan_for(NULL, 0, NULL, NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("out is NULL", NO_OUT, vigie_scan_for(client, VIGIE_CMD("SCAN", "0"), 0, NULL, &error));
  REFUSED("client is NULL", scan, vigie_scan_for(NULL, VIGIE_CMD("SCAN", "0"), 0, &scan, &error));
  REFUSED("client is not a handle", scan, vigie_scan_for((vigie_client *)rubbish, VIGIE_CMD("SCAN", "0"), 0, &scan, &error));
  REFUSED("argc is 0", scan, vigie_scan_for(client, 0, NULL, NULL, 0, &scan, &error));
  REFUSED("argv is NULL", scan, vigie_scan_for(client, 1, NULL, NULL, 0, &scan, &error));
  REFUSED("runs SCAN, HSCAN", scan, vigie_scan_for(client, VIGIE_CMD("GET", "0"), 0, &scan, &error));
  REFUSED("begins with cursor 0", scan, vigie_scan_for(client, VIGIE_CMD("HSCAN", "h"), 0, &scan, &error));
  GIVES(VIGIE_OK, vigie_scan_for(client, VIGIE_CMD("SCAN", "0"), UINT32_MAX, &scan, &error));
  CHECK(vigie_scan_next(NULL, 1000, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("scan is NULL", out, vigie_scan_next(NULL, 1000, &out, &error));
  REFUSED("scan is a vigie_client", out, vigie_scan_next((vigie_scan *)client, 1000, &out, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_scan_next(scan, 0, &out, &error));
  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(1, &queue, &error));
  CHECK(vigie_scan_submit(NULL, 1000, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("scan is NULL", NO_OUT, vigie_scan_submit(NULL, 1000, queue, 0, &error));
  REFUSED("queue is NULL", NO_OUT, vigie_scan_submit(scan, 1000, NULL, 0, &error));
  REFUSED("queue is a vigie_scan", NO_OUT, vigie_scan_submit(scan, 1000, (vigie_queue *)scan, 0, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_scan_submit(scan, 0, queue, 0, &error));
  vigie_queue_free(queue);
  CHECK(vigie_scan_restarts(scan) == 0 && vigie_scan_restarts(NULL) == 0 && vigie_scan_restarts((vigie_scan *)rubbish) == 0);
  vigie_scan_free(scan);
  vigie_scan_free(NULL);
  vigie_scan_free((vigie_scan *)rubbish);
}

static void calls(void) {
  vigie_call *call = vigie_call_new();
  vigie_reply *out = (vigie_reply *)rubbish;
  CHECK(vigie_call_cmd_exec(NULL, NULL, 0, NULL, NULL, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("call is NULL", out, vigie_call_cmd_exec(NULL, client, VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("call is not a handle", out, vigie_call_cmd_exec((vigie_call *)rubbish, client, VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("client is NULL", out, vigie_call_cmd_exec(call, NULL, VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("client is a vigie_call", out, vigie_call_cmd_exec(call, (vigie_client *)call, VIGIE_CMD("PING"), 0, 1000, &out, &error));
  REFUSED("argc is 0", out, vigie_call_cmd_exec(call, client, 0, NULL, NULL, 0, 1000, &out, &error));
  REFUSED("argv is NULL", out, vigie_call_cmd_exec(call, client, 1, NULL, NULL, 0, 1000, &out, &error));
  CHECK(vigie_call_cmds_exec(NULL, NULL, NULL, 0, 0, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("call is NULL", out, vigie_call_cmds_exec(NULL, client, "", 0, 0, 1000, &out, &error));
  REFUSED("the list is empty", out, vigie_call_cmds_exec(call, client, "", 0, 0, 1000, &out, &error));
  REFUSED("call is NULL", out, vigie_call_wait(NULL, &out, &error));
  REFUSED("call is a vigie_client", out, vigie_call_wait((vigie_call *)client, &out, &error));
  REFUSED("call is NULL", out, vigie_call_times(NULL, &out, &error));
  REFUSED("call is not a handle", out, vigie_call_times((vigie_call *)rubbish, &out, &error));
  REFUSED("call is NULL", NO_OUT, vigie_call_interrupt_every(NULL, 100, &error));
  REFUSED("call is not a handle", NO_OUT, vigie_call_interrupt_every((vigie_call *)rubbish, 100, &error));
  REFUSED("call is NULL", NO_OUT, vigie_call_cancel(NULL, &error));
  REFUSED("call is not a handle", NO_OUT, vigie_call_cancel((vigie_call *)rubbish, &error));
  CHECK(!vigie_call_is_cancelled(NULL) && !vigie_call_is_cancelled((vigie_call *)rubbish));
  CHECK(vigie_client_is_closed(NULL) && vigie_client_is_closed((vigie_client *)rubbish) && !vigie_client_is_closed(client));
  vigie_call_free(NULL);
  vigie_call_free((vigie_call *)rubbish);
  vigie_call_free(call);
}

static void subscriptions(void) {
  vigie_queue *queue = NULL;
  vigie_sub *sub = (vigie_sub *)rubbish;
  const char *nothing[] = {NULL};
  GIVES(VIGIE_OK, vigie_queue_create(4, &queue, &error));
  CHECK(vigie_sub_for(NULL, NULL, 0, NULL, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("out is NULL", NO_OUT, vigie_sub_for(client, queue, 1, NULL, NULL, &error));
  REFUSED("client is NULL", sub, vigie_sub_for(NULL, queue, 1, NULL, &sub, &error));
  REFUSED("client is not a handle", sub, vigie_sub_for((vigie_client *)rubbish, queue, 1, NULL, &sub, &error));
  REFUSED("queue is NULL", sub, vigie_sub_for(client, NULL, 1, NULL, &sub, &error));
  REFUSED("queue is a vigie_client", sub, vigie_sub_for(client, (vigie_queue *)client, 1, NULL, &sub, &error));
  REFUSED("overrides is a vigie_queue", sub, vigie_sub_for(client, queue, 1, (vigie_config *)queue, &sub, &error));
  GIVES(VIGIE_ERR_CONFIG, vigie_sub_for(client, queue, 1, config, &sub, &error));
  CHECK(sub == NULL);
  GIVES(VIGIE_OK, vigie_sub_for(client, queue, UINT64_MAX, NULL, &sub, &error));
  CHECK(vigie_sub_exec(NULL, 0, NULL, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("sub is NULL", NO_OUT, vigie_sub_exec(NULL, VIGIE_CMD("SUBSCRIBE", "a"), 0, &error));
  REFUSED("sub is a vigie_queue", NO_OUT, vigie_sub_exec((vigie_sub *)queue, VIGIE_CMD("SUBSCRIBE", "a"), 0, &error));
  REFUSED("argc is 0", NO_OUT, vigie_sub_exec(sub, 0, NULL, NULL, 0, &error));
  REFUSED("argv is NULL", NO_OUT, vigie_sub_exec(sub, 1, NULL, NULL, 0, &error));
  REFUSED("argv[0] is NULL", NO_OUT, vigie_sub_exec(sub, 1, nothing, NULL, 0, &error));
  REFUSED("names no channel", NO_OUT, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE"), 0, &error));
  GIVES(VIGIE_ERR_UNSUPPORTED, vigie_sub_exec(sub, VIGIE_CMD("GET", "a"), 0, &error));
  /* A wish is noted, server or not; without one it is not answered in time. */
  GIVES(VIGIE_OK, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "a"), 0, &error));
  GIVES(VIGIE_ERR_TIMEOUT, vigie_sub_exec(sub, VIGIE_CMD("SUBSCRIBE", "b"), 20, &error));
  vigie_sub_free(sub);
  vigie_sub_free(NULL);
  vigie_sub_free((vigie_sub *)rubbish);
  vigie_sub_free((vigie_sub *)queue);
  vigie_queue_free(queue);
}

static void workers(void) {
  vigie_jobs *jobs = (vigie_jobs *)rubbish;
  vigie_reply *out = (vigie_reply *)rubbish;
  CHECK(vigie_jobs_for(NULL, NULL, NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("out is NULL", NO_OUT, vigie_jobs_for(client, "q", NULL, 1000, NULL, &error));
  REFUSED("client is NULL", jobs, vigie_jobs_for(NULL, "q", NULL, 1000, &jobs, &error));
  REFUSED("client is not a handle", jobs, vigie_jobs_for((vigie_client *)rubbish, "q", NULL, 1000, &jobs, &error));
  REFUSED("name is NULL", jobs, vigie_jobs_for(client, NULL, NULL, 1000, &jobs, &error));
  REFUSED("name is empty", jobs, vigie_jobs_for(client, "", NULL, 1000, &jobs, &error));
  REFUSED("worker is empty", jobs, vigie_jobs_for(client, "q", "", 1000, &jobs, &error));
  REFUSED("lease_ms", jobs, vigie_jobs_for(client, "q", NULL, 0, &jobs, &error));
  GIVES(VIGIE_OK, vigie_jobs_for(client, "q", NULL, 1000, &jobs, &error));
  CHECK(vigie_jobs_push(NULL, NULL, NULL, NULL, 0, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("client is NULL", NO_OUT, vigie_jobs_push(NULL, "q", NULL, "", 0, 1000, &error));
  REFUSED("name is NULL", NO_OUT, vigie_jobs_push(client, NULL, NULL, "", 0, 1000, &error));
  REFUSED("payload is NULL", NO_OUT, vigie_jobs_push(client, "q", NULL, NULL, 1, 1000, &error));
  REFUSED("id 'a b'", NO_OUT, vigie_jobs_push(client, "q", "a b", "", 0, 1000, &error));
  CHECK(vigie_jobs_take(NULL, 0, NULL, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("jobs is NULL", out, vigie_jobs_take(NULL, 0, &out, &error));
  REFUSED("jobs is a vigie_client", out, vigie_jobs_take((vigie_jobs *)client, 0, &out, &error));
  REFUSED("out is NULL", NO_OUT, vigie_jobs_take(jobs, 0, NULL, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_ack(NULL, "a", 0, &error));
  REFUSED("id is NULL", NO_OUT, vigie_jobs_ack(jobs, NULL, 0, &error));
  GIVES(VIGIE_ERR_INVALID_STATE, vigie_jobs_ack(jobs, "a", 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_return(NULL, "a", 0, &error));
  GIVES(VIGIE_ERR_INVALID_STATE, vigie_jobs_return(jobs, "a", 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_renew(NULL, 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_limit_deliveries(NULL, 1, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_stop(NULL, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_close(NULL, 0, &error));
  CHECK(vigie_jobs_push_submit(NULL, NULL, NULL, NULL, 0, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("queue is NULL", NO_OUT, vigie_jobs_push_submit(client, "q", NULL, "", 0, 1000, NULL, 0, &error));
  CHECK(vigie_jobs_take_submit(NULL, 0, NULL, 0, NULL) == VIGIE_ERR_INVALID_ARG);
  REFUSED("queue is NULL", NO_OUT, vigie_jobs_take_submit(jobs, 1000, NULL, 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_ack_submit(NULL, "a", 1000, NULL, 0, &error));
  REFUSED("queue is NULL", NO_OUT, vigie_jobs_ack_submit(jobs, "a", 1000, NULL, 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_return_submit(NULL, "a", 1000, NULL, 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_renew_submit(NULL, 1000, NULL, 0, &error));
  REFUSED("jobs is NULL", NO_OUT, vigie_jobs_close_submit(NULL, 1000, NULL, 0, &error));
  vigie_jobs_free(jobs);
  vigie_jobs_free(NULL);
  vigie_jobs_free((vigie_jobs *)rubbish);
}

static void errors(void) {
  const vigie_error *none[] = {NULL, (vigie_error *)rubbish, (vigie_error *)reply};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    CHECK(vigie_error_status(none[i]) == VIGIE_OK);
    CHECK(vigie_error_message(none[i])[0] == '\0');
    CHECK(vigie_error_server_code(none[i])[0] == '\0');
    CHECK(vigie_error_endpoint(none[i])[0] == '\0');
    CHECK(vigie_error_flags(none[i]) == 0);
    CHECK(vigie_error_count(none[i]) == -1);
    CHECK(vigie_error_errno(none[i]) == 0);
    CHECK(vigie_error_reply(none[i]) == NULL);
  }
}

static void library(void) {
  CHECK(vigie_has_feature(NULL) == 0 && vigie_has_feature("") == 0 && vigie_has_feature("\xff") == 0);
  CHECK(vigie_status_list(NULL) > 30);
  CHECK(strcmp(vigie_status_name(1), "unknown status code") == 0);
  CHECK(strcmp(vigie_status_name(INT32_MIN), "unknown status code") == 0);
}

/* What is no live handle is left alone. */
static void frees(void) {
  vigie_error_free(NULL);
  vigie_config_free(NULL);
  vigie_sentinel_free(NULL);
  vigie_client_free(NULL);
  vigie_batch_free(NULL);
  vigie_reply_free(NULL);
  vigie_queue_free(NULL);
  vigie_queue_free((vigie_queue *)rubbish);
  vigie_queue_free((vigie_queue *)config);
  vigie_error_free((vigie_error *)rubbish);
  vigie_config_free((vigie_config *)rubbish);
  vigie_sentinel_free((vigie_sentinel *)rubbish);
  vigie_client_free((vigie_client *)config);
  vigie_batch_free((vigie_batch *)config);
  vigie_reply_free((vigie_reply *)config);
}

int main(void) {
  config = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(config, "sentinel.addrs", "127.0.0.1:1", &error));
  GIVES(VIGIE_OK, vigie_sentinel_create(config, 0, &sentinel, &error));
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, "nobody", NULL, &client, &error));
  GIVES(VIGIE_OK, vigie_config_describe(config, &reply, &error));
  library();
  configuration();
  sentinels();
  constructors();
  commands();
  lists();
  batches();
  clients();
  replies();
  queues();
  shards();
  scans();
  calls();
  subscriptions();
  workers();
  errors();
  frees();
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 0, &error));
  vigie_reply_free(reply);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return finish();
}
