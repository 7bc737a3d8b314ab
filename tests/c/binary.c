/* All 256 byte values in keys and values, by argv, by list and by batch; texts with NUL, CR and LF inside; empty arguments. */
#include "common.h"

static vigie_error *error = NULL;

static void round_trip(vigie_client *client, const char *key, size_t key_len, const char *value, size_t value_len) {
  const char *set[] = {"SET", key, value};
  const size_t set_lens[] = {3, key_len, value_len};
  const char *get[] = {"GET", key};
  const size_t get_lens[] = {3, key_len};
  vigie_reply *reply = NULL;
  const char *bytes;
  size_t len = 0;
  GIVES(VIGIE_OK, vigie_cmd_exec(client, 3, set, set_lens, 0, VIGIE_TIMEOUT_DEFAULT, NULL, &error));
  GIVES(VIGIE_OK, vigie_cmd_exec(client, 2, get, get_lens, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  bytes = vigie_reply_bytes(reply, VIGIE_ROOT, &len);
  CHECK(vigie_reply_type(reply, VIGIE_ROOT) == VIGIE_TYPE_STRING && len == value_len);
  CHECK(memcmp(bytes, value_len == 0 ? "" : value, len) == 0 && bytes[len] == '\0');
  vigie_reply_free(reply);
}

/* The same by a list, with key and value as the children of one MGET, and as a field of a map. */
static void by_list(vigie_client *client, const char *all, size_t len) {
  const char *hset[] = {"HSET", "binary:h", all, all};
  const size_t hset_lens[] = {4, 8, len, len};
  const char *hgetall[] = {"HGETALL", "binary:h"};
  vigie_batch *batch = vigie_batch_new();
  vigie_reply *reply = NULL;
  const void *data;
  const char *bytes;
  uint32_t map, value;
  size_t data_len = 0;
  vigie_batch_add(batch, 4, hset, hset_lens);
  vigie_batch_add(batch, 2, hgetall, NULL);
  data = vigie_batch_data(batch, &data_len);
  GIVES(VIGIE_OK, vigie_cmds_exec(client, data, data_len, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error));
  vigie_batch_free(batch);
  map = vigie_reply_child(reply, VIGIE_ROOT, 1);
  value = vigie_reply_find(reply, map, all, len);
  CHECK(value != VIGIE_NONE);
  bytes = vigie_reply_bytes(reply, value, &data_len);
  CHECK(data_len == len && memcmp(bytes, all, len) == 0);
  vigie_reply_free(reply);
}

int main(void) {
  static char all[256], large[300000];
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  for (int i = 0; i < 256; i++) all[i] = (char)i;
  for (size_t i = 0; i < sizeof large; i++) large[i] = all[i * 7 % 256];
  for (int i = 0; i < 256; i++) {
    char key[] = {'b', ':', all[i]};
    round_trip(client, key, sizeof key, &all[i], 1);
  }
  round_trip(client, all, sizeof all, all, sizeof all);
  round_trip(client, all, sizeof all, large, sizeof large);
  round_trip(client, large, 70000, all, sizeof all);
  round_trip(client, "binary:crlf", 11, "$3\r\n\r\n\r\n", 9);
  round_trip(client, "binary:empty", 12, NULL, 0);
  round_trip(client, NULL, 0, "under the empty key", 19);
  by_list(client, all, sizeof all);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
