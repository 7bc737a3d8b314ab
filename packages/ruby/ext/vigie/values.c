/* From the library's replies and errors to Ruby's values, in one pass over the nodes.
 *
 * Promises: a reply is freed whatever happens. Texts are UTF-8 if they are valid, else binary; both are the caller's to change. An error inside
 * a reply is an exception in its place.
 */
#include "core.h"

typedef struct {
  const vigie_node *nodes;
  size_t count;
  const char *data;
} tree;

static VALUE value_at(const tree *it, size_t index);

static VALUE text_at(const tree *it, const vigie_node *node) {
  VALUE text = rb_utf8_str_new(it->data + node->value, (long)node->len);
  if (rb_enc_str_coderange(text) == ENC_CODERANGE_BROKEN) rb_enc_associate(text, rb_ascii8bit_encoding());
  return text;
}

static VALUE array_at(const tree *it, const vigie_node *node) {
  VALUE list = rb_ary_new_capa(node->count);
  for (uint32_t i = 0; i < node->count; i++) rb_ary_push(list, value_at(it, (size_t)node->value + i));
  return list;
}

static VALUE map_at(const tree *it, const vigie_node *node) {
  VALUE map = rb_hash_new();
  for (uint32_t i = 0; i + 1 < node->count; i += 2) {
    VALUE key = value_at(it, (size_t)node->value + i);
    rb_hash_aset(map, key, value_at(it, (size_t)node->value + i + 1));
  }
  return map;
}

static VALUE double_at(const vigie_node *node) {
  double value;
  memcpy(&value, &node->value, sizeof value);
  return DBL2NUM(value);
}

static VALUE make_error(int status, uint32_t flags, VALUE message, VALUE code, VALUE endpoint, int64_t count, int number, VALUE reply) {
  return rb_funcall(core_errors, rb_intern("make"), 8, INT2NUM(status), UINT2NUM(flags), message, code, endpoint, LL2NUM(count),
                    INT2NUM(number), reply);
}

static VALUE inner_error(const tree *it, const vigie_node *node) {
  VALUE line = text_at(it, node);
  const char *text = it->data + node->value;
  size_t len = 0;
  while (len < node->len && text[len] != ' ') len++;
  return make_error(VIGIE_ERR_SERVER, 0, line, rb_utf8_str_new(text, (long)len), rb_utf8_str_new("", 0), -1, 0, Qnil);
}

static VALUE value_at(const tree *it, size_t index) {
  if (index >= it->count) return Qnil;
  const vigie_node *node = &it->nodes[index];
  switch (node->type) {
    case VIGIE_TYPE_STRING:
    case VIGIE_TYPE_STATUS:
    case VIGIE_TYPE_VERBATIM: return text_at(it, node);
    case VIGIE_TYPE_INT: return LL2NUM((int64_t)node->value);
    case VIGIE_TYPE_DOUBLE: return double_at(node);
    case VIGIE_TYPE_BOOL: return node->value ? Qtrue : Qfalse;
    case VIGIE_TYPE_BIGNUM: return rb_str_to_inum(text_at(it, node), 10, 0);
    case VIGIE_TYPE_MAP: return map_at(it, node);
    case VIGIE_TYPE_ARRAY:
    case VIGIE_TYPE_SET:
    case VIGIE_TYPE_PUSH: return array_at(it, node);
    case VIGIE_TYPE_ERROR: return inner_error(it, node);
    default: return Qnil;
  }
}

static VALUE value_of_tree(VALUE it) { return value_at((const tree *)it, 0); }

static VALUE value_of_reply(VALUE reply) {
  tree it = {NULL, 0, NULL};
  size_t data_len;
  if (reply != 0) it.nodes = vigie_reply_nodes((const vigie_reply *)reply, &it.count, &it.data, &data_len);
  return value_at(&it, 0);
}

/* Frees the reply. */
VALUE value_take(vigie_reply *reply) {
  int state = 0;
  VALUE value = rb_protect(value_of_reply, (VALUE)reply, &state);
  vigie_reply_free(reply);
  if (state != 0) rb_jump_tag(state);
  return value;
}

/* The event keeps its reply; may raise. */
VALUE value_of_event(vigie_event *event) {
  tree it = {event->nodes, (size_t)event->node_count, event->data};
  return value_of_tree((VALUE)&it);
}

typedef struct {
  vigie_status status;
  vigie_error *error;
} failure;

static VALUE exception_of(VALUE argument) {
  failure *it = (failure *)argument;
  const vigie_error *error = it->error;
  VALUE reply = value_of_reply((VALUE)vigie_error_reply(error));
  if (error == NULL) {
    VALUE empty = rb_utf8_str_new("", 0);
    return make_error(it->status, 0, rb_utf8_str_new_cstr(vigie_status_name(it->status)), empty, empty, -1, 0, reply);
  }
  return make_error(vigie_error_status(error), vigie_error_flags(error), rb_utf8_str_new_cstr(vigie_error_message(error)),
                    rb_utf8_str_new_cstr(vigie_error_server_code(error)), rb_utf8_str_new_cstr(vigie_error_endpoint(error)),
                    vigie_error_count(error), vigie_error_errno(error), reply);
}

/* The exception that stands for an error, which is freed. */
VALUE error_take(vigie_status status, vigie_error *error) {
  int state = 0;
  failure it = {status, error};
  VALUE exception = rb_protect(exception_of, (VALUE)&it, &state);
  vigie_error_free(error);
  if (state != 0) rb_jump_tag(state);
  return exception;
}

void error_raise(vigie_status status, vigie_error *error) { rb_exc_raise(error_take(status, error)); }
