/* Calls in wrong states: after close, with the parent freed, with the session's connection gone; and handles freed in every order. */
#include "common.h"

static vigie_error *error = NULL;

static vigie_status ping(vigie_client *client) {
  return vigie_cmd_exec(client, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error);
}

static vigie_client *open_session(vigie_client *client) {
  vigie_client *session = NULL;
  GIVES(VIGIE_OK, vigie_session_for(client, NULL, 0, NULL, &session, &error));
  return session;
}

static void a_closed_client_refuses_everything(vigie_sentinel *sentinel) {
  vigie_client *client = open_primary(sentinel);
  vigie_client *session = open_session(client);
  vigie_client *other = open_primary(sentinel);
  vigie_client *made = NULL;
  const char list[] = "*1\r\n$4\r\nPING\r\n";
  GIVES(VIGIE_OK, ping(client));
  GIVES(VIGIE_OK, ping(session));
  CHECK(!vigie_client_is_closed(client) && !vigie_client_is_closed(session));
  GIVES(VIGIE_OK, vigie_client_close(client, 1000, &error));
  CHECK(vigie_client_is_closed(client) && vigie_client_is_closed(session) && !vigie_client_is_closed(other));
  CHECK(vigie_client_is_closed(NULL));
  GIVES(VIGIE_OK, vigie_client_close(client, 1000, &error));
  GIVES(VIGIE_OK, vigie_client_close(client, VIGIE_TIMEOUT_NONE, &error));
  GIVES(VIGIE_ERR_CLOSED, ping(client));
  GIVES(VIGIE_ERR_CLOSED, ping(session));
  GIVES(VIGIE_ERR_CLOSED, vigie_cmds_exec(client, list, sizeof list - 1, 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_session_for(client, NULL, 0, NULL, &made, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_client_disconnect(client, &error));
  GIVES(VIGIE_OK, ping(other));
  vigie_client_free(session);
  vigie_client_free(client);
  vigie_client_free(other);
}

static void a_closed_sentinel_closes_its_clients(void) {
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  vigie_client *session = open_session(client);
  vigie_client *unused = open_primary(sentinel);
  vigie_client *made = NULL;
  GIVES(VIGIE_OK, ping(client));
  GIVES(VIGIE_OK, ping(session));
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 0, &error));
  CHECK(vigie_client_is_closed(client) && vigie_client_is_closed(session) && vigie_client_is_closed(unused));
  GIVES(VIGIE_OK, vigie_sentinel_close(sentinel, 0, &error));
  GIVES(VIGIE_ERR_CLOSED, ping(client));
  GIVES(VIGIE_ERR_CLOSED, ping(session));
  GIVES(VIGIE_ERR_CLOSED, ping(unused));
  GIVES(VIGIE_ERR_CLOSED, vigie_primary_for(sentinel, service(), NULL, &made, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_replica_for(sentinel, service(), NULL, &made, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_split_for(sentinel, service(), NULL, &made, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_refresh(sentinel, service(), 1000, NULL, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_exec(sentinel, VIGIE_CMD("PING"), 0, 1000, NULL, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_services(sentinel, 0, 1000, NULL, &error));
  vigie_queue *queue = NULL;
  GIVES(VIGIE_OK, vigie_queue_create(1, &queue, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_submit(sentinel, VIGIE_CMD("PING"), 0, 1000, queue, 1, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_services_submit(sentinel, 0, 1000, queue, 1, &error));
  vigie_queue_free(queue);
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_stats(sentinel, NULL, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_metrics(sentinel, 0, NULL, &error));
  GIVES(VIGIE_ERR_CLOSED, vigie_sentinel_configure(sentinel, "db", "0", &error));
  GIVES(VIGIE_OK, vigie_client_close(client, 0, &error));
  vigie_client_free(unused);
  vigie_client_free(session);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
}

static void children_live_without_their_parents(void) {
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  vigie_client *session = open_session(client);
  vigie_sentinel_free(sentinel);
  GIVES(VIGIE_OK, ping(client));
  vigie_client_free(client);
  GIVES(VIGIE_OK, ping(session));
  vigie_client_free(session);
}

/* The server's number of a session's connection; not inside MULTI, where it would be queued. */
static long long connection_of(vigie_client *session) {
  vigie_reply *reply = RUN(session, "CLIENT", "ID");
  long long id = vigie_reply_int(reply, VIGIE_ROOT, -1);
  vigie_reply_free(reply);
  return id;
}

/* Takes a connection away, as a network or an operator would. */
static void kill_connection(vigie_client *client, long long number) {
  char id[32];
  snprintf(id, sizeof id, "%lld", number);
  vigie_reply *reply = RUN(client, "CLIENT", "KILL", "ID", id);
  CHECK(vigie_reply_int(reply, VIGIE_ROOT, 0) == 1);
  vigie_reply_free(reply);
}

static void a_lost_session_stays_lost(vigie_client *client) {
  vigie_client *session = open_session(client);
  long long connection = connection_of(session);
  vigie_reply_free(RUN(session, "WATCH", "states:w"));
  vigie_reply_free(RUN(session, "MULTI"));
  vigie_reply_free(RUN(session, "INCR", "states:w"));
  kill_connection(client, connection);
  GIVES(VIGIE_ERR_TXN_ABORTED, vigie_cmd_exec(session, VIGIE_CMD("EXEC"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_ERR_IO, vigie_cmd_exec(session, VIGIE_CMD("GET", "states:w"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_ERR_IO, ping(session));
  vigie_client_free(session);
  session = open_session(client);
  kill_connection(client, connection_of(session));
  GIVES(VIGIE_ERR_IO, ping(session));
  vigie_client_free(session);
  GIVES(VIGIE_OK, ping(client));
}

static void what_needs_a_session_is_refused_outside(vigie_client *client) {
  GIVES(VIGIE_ERR_UNSUPPORTED, vigie_cmd_exec(client, VIGIE_CMD("WATCH", "k"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_ERR_UNSUPPORTED, vigie_cmd_exec(client, VIGIE_CMD("MULTI"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_ERR_UNSUPPORTED, vigie_cmd_exec(client, VIGIE_CMD("SELECT", "1"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, ping(client));
}

enum { CONFIG, SENTINEL, CLIENT, SESSION, REPLY, ERROR, HANDLES };

static void *handles[HANDLES];

static void open_all(void) {
  vigie_config *config = config_of_deployment();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client, *session;
  vigie_error *wrong = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_create(config, 0, &sentinel, &error));
  client = open_primary(sentinel);
  session = open_session(client);
  CHECK(vigie_cmd_exec(session, VIGIE_CMD("NONSENSE"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &wrong) == VIGIE_ERR_SERVER);
  handles[CONFIG] = config;
  handles[SENTINEL] = sentinel;
  handles[CLIENT] = client;
  handles[SESSION] = session;
  handles[REPLY] = RUN(client, "PING");
  handles[ERROR] = wrong;
}

/* Frees one handle; what is still there has to work on. */
static void free_one(int which) {
  void *handle = handles[which];
  handles[which] = NULL;
  switch (which) {
    case CONFIG: vigie_config_free(handle); break;
    case SENTINEL: vigie_sentinel_free(handle); break;
    case REPLY: vigie_reply_free(handle); break;
    case ERROR: vigie_error_free(handle); break;
    default: vigie_client_free(handle); break;
  }
  if (handles[CLIENT] != NULL) GIVES(VIGIE_OK, ping(handles[CLIENT]));
  if (handles[SESSION] != NULL) GIVES(VIGIE_OK, ping(handles[SESSION]));
  if (handles[REPLY] != NULL) CHECK(text_is(handles[REPLY], VIGIE_ROOT, "PONG"));
  if (handles[ERROR] != NULL) CHECK(vigie_error_status(handles[ERROR]) == VIGIE_ERR_SERVER);
}

/* All orders of n handles; every `stride`-th is tried. */
static int orders(int *order, int n, int number, int stride) {
  if (n == HANDLES) {
    if (number % stride == 0) {
      open_all();
      for (int i = 0; i < HANDLES; i++) free_one(order[i]);
    }
    return number + 1;
  }
  for (int i = n; i < HANDLES; i++) {
    int kept = order[n];
    order[n] = order[i];
    order[i] = kept;
    number = orders(order, n + 1, number, stride);
    order[i] = order[n];
    order[n] = kept;
  }
  return number;
}

int main(void) {
  int order[HANDLES] = {CONFIG, SENTINEL, CLIENT, SESSION, REPLY, ERROR};
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  a_closed_client_refuses_everything(sentinel);
  a_closed_sentinel_closes_its_clients();
  children_live_without_their_parents();
  a_lost_session_stays_lost(client);
  what_needs_a_session_is_refused_outside(client);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  CHECK(orders(order, 0, 0, environment_number("VIGIE_TEST_STRIDE", 1)) == 720);
  return finish();
}
