/* Shards by a hash function of the program: here the number in a key, as in user:17, says where it is.
 *
 *   cc shards_hash.c $(pkg-config --cflags --libs vigie) -o shards_hash && ./shards_hash redis://127.0.0.1:7001 redis://127.0.0.1:7002 ...
 *
 * All programs that use the data need the same function, in whatever language they are written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { MOST = 16 };

static void check(vigie_status status, vigie_error **err, const char *what) {
  if (status == VIGIE_OK) return;
  fprintf(stderr, "%s: %s\n", what, vigie_error_message(*err));
  exit(1);
}

/* Only the bytes of the key count, so every process and every thread gets the same answer. A key without a number is on no shard:
 * its calls are refused with VIGIE_ERR_INVALID_ARG, and nothing is sent. */
static size_t by_number(void *user, const void *part, size_t part_len, size_t shard_count) {
  const unsigned char *text = part;
  size_t number = 0, digits = 0, i;
  (void)user;
  for (i = 0; i < part_len; i++) {
    if (text[i] < '0' || text[i] > '9') continue;
    number = (number * 10 + (size_t)(text[i] - '0')) % shard_count;
    digits++;
  }
  return digits > 0 ? number : shard_count;
}

/* A list, without waiting: each command goes to the shard of its key. */
static void submit(vigie_client *client) {
  vigie_queue *queue = NULL;
  vigie_error *err = NULL;
  vigie_batch *batch = vigie_batch_new();
  vigie_event events[4];
  size_t i, count = 0;
  check(vigie_queue_create(8, &queue, &err), &err, "a queue");
  for (i = 0; i < 3; i++) {
    char key[16];
    snprintf(key, sizeof key, "user:%u", (unsigned)i);
    vigie_batch_add(batch, VIGIE_CMD("INCR", key));
  }
  check(vigie_batch_submit(client, batch, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, queue, 1, &err), &err, "a submit");
  while (count < 3) {
    size_t drained = vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, events, 4);
    count += drained;
    vigie_events_clear(events, drained);
  }
  vigie_batch_free(batch);
  vigie_queue_free(queue);
}

int main(int argc, char **argv) {
  static char texts[MOST][256];
  const char *shards[MOST];
  vigie_client *client = NULL, *session = NULL;
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  size_t i, count = argc > 1 ? (size_t)argc - 1 : 0;
  if (count < 2 || count > MOST) {
    fprintf(stderr, "usage: %s URI URI...\n", argv[0]);
    return 2;
  }
  for (i = 0; i < count; i++) {
    snprintf(texts[i], sizeof texts[i], "node_%u=%s", (unsigned)i + 1, argv[i + 1]);
    shards[i] = texts[i];
  }
  check(vigie_shards_for_hash(NULL, shards, count, by_number, NULL, NULL, &client, &err), &err, "the shards");

  check(vigie_cmd_exec(client, VIGIE_CMD("MSET", "user:0", "0", "user:1", "1", "user:2", "2"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err),
        &err, "MSET");
  submit(client);
  check(vigie_session_for(client, "user:1", 6, NULL, &session, &err), &err, "a session");
  check(vigie_cmd_exec(session, VIGIE_CMD("INCR", "user:1"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err), &err, "INCR");
  vigie_client_free(session);
  check(vigie_cmd_exec(client, VIGIE_CMD("MGET", "user:0", "user:1", "user:2"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err), &err, "MGET");
  for (i = 0; i < 3; i++) {
    char key[16];
    snprintf(key, sizeof key, "user:%u", (unsigned)i);
    printf("%s is on node_%d: %s\n", key, (int)vigie_client_shard_of(client, key, strlen(key)) + 1,
           vigie_reply_bytes(reply, vigie_reply_child(reply, VIGIE_ROOT, i), NULL));
  }
  vigie_reply_free(reply);

  /* A key without a number, alone and in a list. */
  if (vigie_cmd_exec(client, VIGIE_CMD("MSET", "user:0", "lost", "nobody", "x"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, &err) ==
      VIGIE_ERR_INVALID_ARG)
    printf("%s\n", vigie_error_message(err));
  vigie_error_free(err);

  /* One shard less: the function is asked with the new number. */
  check(vigie_shards_set(client, shards, count - 1, &err), &err, "other shards");
  printf("of %u shards user:%u is on node_%d\n", (unsigned)count - 1, (unsigned)count - 1,
         (int)vigie_client_shard_of(client, &"0123456789"[count - 1], 1) + 1);
  vigie_client_free(client);
  return 0;
}
