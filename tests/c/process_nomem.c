/* A process without memory for what a call needs: the call fails with a status, nothing is written, and everything else goes on. */
#include "common.h"

#include <pthread.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static size_t limit = SIZE_MAX; /* from this size on there is no memory */
static pthread_t limited;       /* for this thread */

static int refused(size_t size) { return size >= limit && pthread_equal(pthread_self(), limited); }

/* These stand in for the C library's, for the library under test too. */
void *malloc(size_t size) { return refused(size) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return refused(n * size) ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return refused(size) ? NULL : __libc_realloc(old, size); }

enum { LARGE = 3 << 20, MANY = 200000, MIB = 1 << 20 };

static vigie_error *error;
static vigie_client *client;
static char large[LARGE + 1], *list;

#define UNDER(most, status, call)  \
  do {                             \
    limit = (most);                \
    vigie_status got = (call);     \
    limit = SIZE_MAX;              \
    GIVES((status), got);          \
    CHECK(run_ok());               \
  } while (0)

static int run_ok(void) {
  vigie_reply_free(RUN(client, "SET", "nomem", "v"));
  vigie_reply *reply = RUN(client, "GET", "nomem");
  int same = text_is(reply, VIGIE_ROOT, "v");
  vigie_reply_free(reply);
  return same;
}

static void batches(vigie_queue *queue) {
  vigie_batch *batch = vigie_batch_new();
  vigie_batch_add(batch, VIGIE_CMD("PING"));
  limit = MIB;
  vigie_batch_add(batch, VIGIE_CMD("SET", "nomem", large));
  limit = SIZE_MAX;
  GIVES(VIGIE_ERR_LIMIT, vigie_batch_exec(client, batch, 0, 20000, NULL, &error));
  GIVES(VIGIE_ERR_LIMIT, vigie_batch_submit(client, batch, 0, 20000, queue, 1, &error));
  vigie_batch_clear(batch);
  vigie_batch_add(batch, VIGIE_CMD("PING"));
  GIVES(VIGIE_OK, vigie_batch_exec(client, batch, 0, 20000, NULL, &error));
  vigie_batch_free(batch);
}

static void encoding(void) {
  static const char *argv[MANY];
  vigie_status got;
  for (int i = 0; i < MANY; i++) argv[i] = "DEL";
  UNDER(MIB, VIGIE_ERR_LIMIT, vigie_cmd_exec(client, MANY, argv, NULL, 0, 20000, NULL, &error));
  /* Each too small to be sent from where it is, and together large. */
  large[10000] = '\0';
  argv[0] = "MSET";
  for (int i = 1; i <= 200; i++) argv[i] = i % 2 ? "nomem:many" : large;
  UNDER(MIB / 2, VIGIE_ERR_LIMIT, vigie_cmd_exec(client, 201, argv, NULL, 0, 20000, NULL, &error));
  large[10000] = 'x';
  /* Sent from where it is, it needs memory only if the socket does not take it at once and another has to send the rest. */
  limit = MIB;
  got = vigie_cmd_exec(client, VIGIE_CMD("SET", "nomem:large", large), 0, 20000, NULL, &error);
  limit = SIZE_MAX;
  CHECK(got == VIGIE_OK || got == VIGIE_ERR_LIMIT);
  vigie_error_free(error);
  error = NULL;
  UNDER(MIB, VIGIE_ERR_LIMIT, vigie_cmd_exec(client, VIGIE_CMD("SET", "nomem:d", large), VIGIE_CALL_REPLICAS(1), 20000, NULL, &error));
  CHECK(run_ok());
}

static void submits(vigie_queue *queue) {
  size_t len = strlen(list);
  UNDER(MIB, VIGIE_ERR_LIMIT, vigie_cmds_submit(client, list, len, 0, 20000, queue, 7, &error));
  UNDER(MIB, VIGIE_ERR_LIMIT, vigie_cmds_submit(client, list, len, VIGIE_CALL_EACH, 20000, queue, 7, &error));
  CHECK(vigie_queue_drain(queue, 0, &(vigie_event){0}, 1) == 0);
}

static void replies(vigie_sentinel *sentinel) {
  vigie_reply *reply = NULL, *json = NULL;
  memset(large, '\001', LARGE);
  vigie_reply_free(RUN(client, "SET", "nomem:json", large));
  reply = RUN(client, "GET", "nomem:json");
  UNDER(LARGE + MIB, VIGIE_ERR_LIMIT, vigie_reply_json(reply, &json, &error));
  CHECK(json == NULL);
  vigie_reply_free(reply);
  reply = NULL;
  UNDER(MIB, VIGIE_ERR_LIMIT, vigie_cmd_exec(client, VIGIE_CMD("GET", "nomem:json"), 0, 20000, &reply, &error));
  /* Of a write whose answer finds no memory nothing is said but that it may have run; it has. */
  limit = MIB;
  vigie_status got = vigie_cmd_exec(client, VIGIE_CMD("GETDEL", "nomem:json"), 0, 20000, &reply, &error);
  limit = SIZE_MAX;
  CHECK(got == VIGIE_ERR_LIMIT && reply == NULL);
  CHECK(vigie_error_flags(error) & VIGIE_EF_MAYBE_EXECUTED);
  CHECK(!(vigie_error_flags(error) & VIGIE_EF_RETRYABLE));
  vigie_error_free(error);
  error = NULL;
  CHECK(run_ok());
  reply = RUN(client, "EXISTS", "nomem:json");
  CHECK(vigie_reply_int(reply, VIGIE_ROOT, -1) == 0);
  vigie_reply_free(reply);
  reply = NULL;
  UNDER(1024, VIGIE_ERR_LIMIT, vigie_client_stats(client, &reply, &error));
  UNDER(1024, VIGIE_ERR_LIMIT, vigie_sentinel_topology(sentinel, NULL, &reply, &error));
  CHECK(reply == NULL);
}

int main(void) {
  limited = pthread_self();
  memset(large, 'x', LARGE);
  list = malloc(MANY * 14 + 1);
  for (int i = 0; i < MANY; i++) memcpy(list + i * 14, "*1\r\n$4\r\nPING\r\n", 15);
  vigie_queue *queue = NULL;
  vigie_sentinel *sentinel = open_sentinel();
  client = open_primary(sentinel);
  GIVES(VIGIE_OK, vigie_queue_create(MANY * 2, &queue, &error));
  CHECK(run_ok());
  batches(queue);
  encoding();
  submits(queue);
  replies(sentinel);
  free(list);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_queue_free(queue);
  return finish();
}
