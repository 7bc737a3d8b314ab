/* A queue in Node's loop by an N-API addon: a uv_poll_t on its descriptor, completions as JavaScript values. One client and one
 * queue for a process, which is what a test needs.
 *
 * open(uri, capacity, room), exec(resp), submit(resp, token), drain(), watch(readable), unwatch(), close() */
#define _POSIX_C_SOURCE 200809L /* uv.h needs it under -std=c99 */
#define NAPI_VERSION 8
#include <node_api.h>
#include <stdlib.h>
#include <uv.h>
#include <vigie.h>

static struct {
  vigie_client *client;
  vigie_queue *queue;
  vigie_event *events;
  uint32_t room;
  uv_poll_t *poll;
  napi_env env;
  napi_ref readable;
} my;

/* A call of N-API itself that fails is a fault of this file. */
static void must(napi_env env, napi_status status) {
  const napi_extended_error_info *info = NULL;
  if (status == napi_ok) return;
  napi_get_last_error_info(env, &info);
  napi_fatal_error("addon/queue.c", NAPI_AUTO_LENGTH, info != NULL ? info->error_message : "?", NAPI_AUTO_LENGTH);
}

static int failed(napi_env env, vigie_status status, vigie_error *error) {
  if (status == VIGIE_OK) return 0;
  must(env, napi_throw_error(env, vigie_status_name(status), vigie_error_message(error)));
  vigie_error_free(error);
  return 1;
}

static void arguments(napi_env env, napi_callback_info info, napi_value *values, size_t count) {
  size_t given = count;
  must(env, napi_get_cb_info(env, info, &given, values, NULL, NULL));
}

static napi_value integer(napi_env env, int64_t value) {
  napi_value made = NULL;
  must(env, napi_create_int64(env, value, &made));
  return made;
}

static napi_value value_of(napi_env env, const vigie_node *nodes, const char *data, uint64_t at) {
  const vigie_node *node = &nodes[at];
  napi_value made = NULL;
  switch (node->type) {
    case VIGIE_TYPE_NULL:
      must(env, napi_get_null(env, &made));
      return made;
    case VIGIE_TYPE_INT:
    case VIGIE_TYPE_BOOL:
      return integer(env, (int64_t)node->value);
    case VIGIE_TYPE_ARRAY:
      must(env, napi_create_array_with_length(env, node->count, &made));
      for (uint32_t i = 0; i < node->count; i++) {
        napi_handle_scope scope;
        must(env, napi_open_handle_scope(env, &scope));
        must(env, napi_set_element(env, made, i, value_of(env, nodes, data, node->value + i)));
        must(env, napi_close_handle_scope(env, scope));
      }
      return made;
    default:
      must(env, napi_create_string_utf8(env, data + node->value, node->len, &made));
      return made;
  }
}

static napi_value open_client(napi_env env, napi_callback_info info) {
  napi_value given[3];
  char uri[512];
  uint32_t capacity = 0;
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = NULL;
  vigie_config *config = vigie_config_new();
  arguments(env, info, given, 3);
  must(env, napi_get_value_string_utf8(env, given[0], uri, sizeof uri, NULL));
  must(env, napi_get_value_uint32(env, given[1], &capacity));
  must(env, napi_get_value_uint32(env, given[2], &my.room));
  if (!failed(env, vigie_config_set(config, "uri", uri, &error), error) &&
      !failed(env, vigie_sentinel_create(config, 2000, &sentinel, &error), error) &&
      !failed(env, vigie_primary_for(sentinel, NULL, NULL, &my.client, &error), error) &&
      !failed(env, vigie_queue_create(capacity, &my.queue, &error), error))
    my.events = calloc(my.room, sizeof *my.events);
  vigie_config_free(config);
  vigie_sentinel_free(sentinel);
  return NULL;
}

/* The last reply of the list. */
static napi_value exec(napi_env env, napi_callback_info info) {
  napi_value given, made = NULL;
  void *resp = NULL;
  size_t len = 0;
  const char *data = NULL;
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  arguments(env, info, &given, 1);
  must(env, napi_get_buffer_info(env, given, &resp, &len));
  if (failed(env, vigie_cmds_exec(my.client, resp, len, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error), error)) return NULL;
  const vigie_node *nodes = vigie_reply_nodes(reply, NULL, &data, NULL);
  made = value_of(env, nodes, data, nodes->value + nodes->count - 1);
  vigie_reply_free(reply);
  return made;
}

/* Each command completes by itself, with token, token + 1 and so on. False: the queue is full, nothing was taken. */
static napi_value submit(napi_env env, napi_callback_info info) {
  napi_value given[2], made = NULL;
  void *resp = NULL;
  size_t len = 0;
  int64_t token = 0;
  vigie_error *error = NULL;
  arguments(env, info, given, 2);
  must(env, napi_get_buffer_info(env, given[0], &resp, &len));
  must(env, napi_get_value_int64(env, given[1], &token));
  vigie_status status =
      vigie_cmds_submit(my.client, resp, len, VIGIE_CALL_EACH, VIGIE_TIMEOUT_DEFAULT, my.queue, (uint64_t)token, &error);
  if (status == VIGIE_ERR_QUEUE_FULL) vigie_error_free(error);
  else if (failed(env, status, error)) return NULL;
  must(env, napi_get_boolean(env, status == VIGIE_OK, &made));
  return made;
}

/* What is there, at most `room`: an array of token, value, token, value and so on. */
static napi_value drain(napi_env env, napi_callback_info info) {
  napi_value made = NULL;
  int32_t count = vigie_queue_drain(my.queue, 0, my.events, my.room);
  (void)info;
  if (failed(env, count < 0 ? count : VIGIE_OK, NULL)) return NULL;
  must(env, napi_create_array_with_length(env, 2 * (size_t)count, &made));
  for (int32_t i = 0; i < count; i++) {
    const vigie_event *event = &my.events[i];
    napi_value value = NULL;
    napi_handle_scope scope;
    must(env, napi_open_handle_scope(env, &scope));
    if (event->status == VIGIE_OK) value = value_of(env, event->nodes, event->data, 0);
    else must(env, napi_create_string_utf8(env, vigie_error_message(event->error), NAPI_AUTO_LENGTH, &value));
    must(env, napi_set_element(env, made, (uint32_t)(2 * i), integer(env, (int64_t)event->token)));
    must(env, napi_set_element(env, made, (uint32_t)(2 * i + 1), value));
    must(env, napi_close_handle_scope(env, scope));
  }
  vigie_events_clear(my.events, (size_t)count);
  return made;
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  napi_handle_scope scope;
  napi_value readable, global;
  (void)poll, (void)status, (void)events;
  must(my.env, napi_open_handle_scope(my.env, &scope));
  must(my.env, napi_get_global(my.env, &global));
  must(my.env, napi_get_reference_value(my.env, my.readable, &readable));
  /* An exception in there is reported by Node, as from any callback of its own. */
  napi_status called = napi_make_callback(my.env, NULL, global, readable, 0, NULL, NULL);
  if (called == napi_pending_exception) {
    napi_value exception;
    must(my.env, napi_get_and_clear_last_exception(my.env, &exception));
    must(my.env, napi_fatal_exception(my.env, exception));
  } else {
    must(my.env, called);
  }
  must(my.env, napi_close_handle_scope(my.env, scope));
}

static napi_value watch(napi_env env, napi_callback_info info) {
  napi_value readable;
  uv_loop_t *loop = NULL;
  arguments(env, info, &readable, 1);
  must(env, napi_create_reference(env, readable, 1, &my.readable));
  must(env, napi_get_uv_event_loop(env, &loop));
  my.env = env;
  my.poll = malloc(sizeof *my.poll);
  if (my.poll == NULL || uv_poll_init(loop, my.poll, vigie_queue_fd(my.queue)) != 0 ||
      uv_poll_start(my.poll, UV_READABLE, on_readable) != 0)
    must(env, napi_throw_error(env, NULL, "the descriptor cannot be polled"));
  return NULL;
}

static void give_back(uv_handle_t *handle) { free(handle); }

static napi_value unwatch(napi_env env, napi_callback_info info) {
  (void)info;
  uv_close((uv_handle_t *)my.poll, give_back);
  must(env, napi_delete_reference(env, my.readable));
  return NULL;
}

static napi_value close_client(napi_env env, napi_callback_info info) {
  (void)env, (void)info;
  vigie_queue_free(my.queue);
  vigie_client_free(my.client);
  free(my.events);
  return NULL;
}

NAPI_MODULE_INIT() {
  const napi_property_descriptor functions[] = {
      {"open", NULL, open_client, NULL, NULL, NULL, napi_default, NULL},
      {"exec", NULL, exec, NULL, NULL, NULL, napi_default, NULL},
      {"submit", NULL, submit, NULL, NULL, NULL, napi_default, NULL},
      {"drain", NULL, drain, NULL, NULL, NULL, napi_default, NULL},
      {"watch", NULL, watch, NULL, NULL, NULL, napi_default, NULL},
      {"unwatch", NULL, unwatch, NULL, NULL, NULL, napi_default, NULL},
      {"close", NULL, close_client, NULL, NULL, NULL, napi_default, NULL},
  };
  must(env, napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions));
  return exports;
}
