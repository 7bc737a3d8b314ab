/* From Ruby's values to the bytes that a command is made of.
 *
 * Promises: strings, symbols, integers and floats are taken; arrays and hashes among the words are flattened once, and keywords become flags.
 * Anything else is a TypeError that names the word: no silent "nil". The bytes are a copy, because strings may change while a call runs.
 */
#include <math.h>
#include <stdio.h>

#include "core.h"

void bytes_init(bytes *it) {
  it->data = it->inside;
  it->len = 0;
  it->room = BYTES_INLINE;
  it->holder = Qnil;
}

void bytes_add(bytes *it, const void *data, size_t len) {
  if (it->len + len > it->room) {
    size_t room = it->room * 2 > it->len + len ? it->room * 2 : it->len + len;
    VALUE holder = rb_str_new(NULL, (long)room);
    memcpy(RSTRING_PTR(holder), it->data, it->len);
    it->holder = holder;
    it->data = RSTRING_PTR(holder);
    it->room = room;
  }
  memcpy(it->data + it->len, data, len);
  it->len += len;
}

void command_init(command *it) {
  it->count = 0;
  bytes_init(&it->text);
  bytes_init(&it->lengths);
  bytes_init(&it->pointers);
}

static void add_word(command *it, const char *data, size_t len) {
  bytes_add(&it->text, data, len);
  bytes_add(&it->lengths, &len, sizeof len);
  it->count++;
}

static void add_string(command *it, VALUE text) {
  add_word(it, RSTRING_PTR(text), (size_t)RSTRING_LEN(text));
  RB_GC_GUARD(text);
}

static void add_float(command *it, VALUE number) {
  double value = RFLOAT_VALUE(number);
  if (isnan(value)) rb_raise(rb_eTypeError, "word %zu of the command is a float that is no number (NaN)", it->count);
  if (isinf(value)) add_word(it, value > 0 ? "inf" : "-inf", value > 0 ? 3 : 4);
  else add_string(it, rb_obj_as_string(number));
}

/* Adds one word; what is no word is refused. */
void command_add(command *it, VALUE value) {
  char digits[24];
  if (RB_FIXNUM_P(value)) {
    add_word(it, digits, (size_t)snprintf(digits, sizeof digits, "%ld", FIX2LONG(value)));
  } else if (RB_TYPE_P(value, T_STRING)) {
    add_string(it, value);
  } else if (RB_SYMBOL_P(value)) {
    add_string(it, rb_sym2str(value));
  } else if (RB_FLOAT_TYPE_P(value)) {
    add_float(it, value);
  } else if (RB_TYPE_P(value, T_BIGNUM)) {
    add_string(it, rb_big2str(value, 10));
  } else {
    rb_raise(rb_eTypeError,
             "word %zu of the command is of the class %" PRIsVALUE
             ": give a String, Symbol, Integer or Float, and say yourself how anything else is written",
             it->count, rb_obj_class(value));
  }
}

static int add_pair(VALUE key, VALUE value, VALUE it) {
  command_add((command *)it, key);
  command_add((command *)it, value);
  return ST_CONTINUE;
}

void command_add_all(command *it, int argc, const VALUE *argv) {
  for (int i = 0; i < argc; i++) {
    if (RB_TYPE_P(argv[i], T_ARRAY)) {
      for (long at = 0; at < RARRAY_LEN(argv[i]); at++) command_add(it, RARRAY_AREF(argv[i], at));
    } else if (RB_TYPE_P(argv[i], T_HASH)) {
      rb_hash_foreach(argv[i], add_pair, (VALUE)it);
    } else {
      command_add(it, argv[i]);
    }
  }
}

/* A keyword: true is the bare flag, nil and false are no flag, anything else follows its name. */
void command_add_flag(command *it, VALUE name, VALUE value) {
  if (!RTEST(value)) return;
  command_add(it, name);
  if (value != Qtrue) command_add(it, value);
}

static int add_flag(VALUE name, VALUE value, VALUE it) {
  command_add_flag((command *)it, name, value);
  return ST_CONTINUE;
}

/* A whole command. flags: nil or a hash of keywords. */
void command_from_call(command *it, int argc, VALUE *argv, VALUE flags) {
  command_init(it);
  command_add_all(it, argc, argv);
  if (!NIL_P(flags)) rb_hash_foreach(flags, add_flag, (VALUE)it);
  if (it->count == 0) rb_raise(rb_eArgError, "a command needs a name: call(\"GET\", key)");
}

/* The words have their places from now on, and none may be added. */
void command_finish(command *it) {
  const char *at = it->text.data;
  for (size_t i = 0; i < it->count; i++) {
    bytes_add(&it->pointers, &at, sizeof at);
    at += command_lengths(it)[i];
  }
}

const char *const *command_argv(const command *it) { return (const char *const *)(const void *)it->pointers.data; }
const size_t *command_lengths(const command *it) { return (const size_t *)(const void *)it->lengths.data; }

static void append_head(VALUE to, char mark, size_t number) {
  char head[28];
  rb_str_cat(to, head, snprintf(head, sizeof head, "%c%zu\r\n", mark, number));
}

void command_append_resp(const command *it, VALUE to) {
  const char *at = it->text.data;
  append_head(to, '*', it->count);
  for (size_t i = 0; i < it->count; i++) {
    size_t len = command_lengths(it)[i];
    append_head(to, '$', len);
    rb_str_cat(to, at, (long)len);
    rb_str_cat(to, "\r\n", 2);
    at += len;
  }
}

/* nil: the default. Infinity: no limit. At most 24 days are told from that. */
int64_t timeout_from(VALUE seconds) {
  if (NIL_P(seconds)) return VIGIE_TIMEOUT_DEFAULT;
  double value = NUM2DBL(seconds);
  if (isnan(value)) rb_raise(rb_eArgError, "a timeout is a number of seconds, not NaN");
  if (value <= 0) return 0;
  if (value >= 2147483.0) return VIGIE_TIMEOUT_NONE;
  return (int64_t)ceil(value * 1000);
}

/* The C text of a string, or NULL for nil; the string is kept in *value. */
const char *text_or_null(VALUE *value) { return NIL_P(*value) ? NULL : StringValueCStr(*value); }

static int set_option(VALUE key, VALUE value, VALUE config) {
  VALUE name = rb_obj_as_string(key), text = rb_obj_as_string(value);
  vigie_error *error = NULL;
  vigie_status status = vigie_config_set((vigie_config *)config, StringValueCStr(name), StringValueCStr(text), &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return ST_CONTINUE;
}

typedef struct {
  VALUE options;
  vigie_config *config;
} filling;

static VALUE fill(VALUE it) {
  filling *now = (filling *)it;
  Check_Type(now->options, T_HASH);
  rb_hash_foreach(now->options, set_option, (VALUE)now->config);
  return Qnil;
}

/* A configuration with these options; the caller frees it. */
vigie_config *config_from(VALUE options) {
  int state = 0;
  filling it = {options, vigie_config_new()};
  rb_protect(fill, (VALUE)&it, &state);
  if (state != 0) {
    vigie_config_free(it.config);
    rb_jump_tag(state);
  }
  return it.config;
}
