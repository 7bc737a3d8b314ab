/* Clients and sessions: calls, lists, submits, and what can be asked of them.
 *
 * Promises: the hook is told of each call and list that was waited for. Nothing is sent again from here: the library does that where it is
 * right. Leaves to others: names and comfort (Ruby).
 */
#include <strings.h>
#include <time.h>

#include "core.h"

static VALUE class_link;

static void link_mark(void *it) { rb_gc_mark(((link_object *)it)->hook); }
static void link_free(void *it) {
  vigie_client_free(((link_object *)it)->client);
  xfree(it);
}
static const rb_data_type_t link_type = {
    "Vigie::Core::Link", {link_mark, link_free, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE link_alloc(VALUE class) {
  link_object *it;
  VALUE self = TypedData_Make_Struct(class, link_object, &link_type, it);
  it->hook = Qnil;
  return self;
}

link_object *link_from(VALUE self) {
  link_object *it = rb_check_typeddata(self, &link_type);
  if (it->client == NULL) rb_raise(rb_eArgError, "the client was not opened: its initialize was not called");
  return it;
}

/* How a call is to be run: what its keywords say, and the other keywords, which are flags of the command. */
typedef struct {
  int64_t timeout;
  uint32_t flags;
  VALUE rest; /* nil, or a hash */
} manner;

static ID id_timeout, id_idempotent, id_retry, id_on_primary, id_slow, id_typed, id_replicas;

static void set_flag(manner *how, uint32_t flag, bool wanted) {
  if (wanted) how->flags |= flag;
}

static void set_replicas(manner *how, VALUE value) {
  long count = NIL_P(value) ? 0 : NUM2LONG(value);
  how->flags |= VIGIE_CALL_REPLICAS(count < 0 ? 256 : count);
}

static int set_keyword(VALUE name, VALUE value, VALUE argument) {
  manner *how = (manner *)argument;
  ID id = RB_SYMBOL_P(name) ? SYM2ID(name) : 0;
  if (id == id_timeout) how->timeout = timeout_from(value);
  else if (id == id_idempotent) set_flag(how, VIGIE_CALL_IDEMPOTENT, RTEST(value));
  else if (id == id_retry) set_flag(how, VIGIE_CALL_NO_RETRY, !RTEST(value));
  else if (id == id_on_primary) set_flag(how, VIGIE_CALL_ON_PRIMARY, RTEST(value));
  else if (id == id_slow) set_flag(how, VIGIE_CALL_SLOW, RTEST(value));
  else if (id == id_typed) set_flag(how, VIGIE_CALL_TYPED, RTEST(value));
  else if (id == id_replicas) set_replicas(how, value);
  else {
    if (NIL_P(how->rest)) how->rest = rb_hash_new();
    rb_hash_aset(how->rest, name, value);
  }
  return ST_CONTINUE;
}

static manner manner_from(VALUE keywords) {
  manner how = {VIGIE_TIMEOUT_DEFAULT, 0, Qnil};
  if (!NIL_P(keywords)) rb_hash_foreach(keywords, set_keyword, (VALUE)&how);
  return how;
}

static void refuse_rest(const manner *how) {
  if (NIL_P(how->rest)) return;
  rb_raise(rb_eArgError,
           "unknown keywords %" PRIsVALUE ": timeout, idempotent, retry, on_primary, slow, typed and replicas are known, and flags of a "
           "command belong to call",
           rb_inspect(rb_funcall(how->rest, rb_intern("keys"), 0)));
}

/* Whether a command may wait at the server, as far as its first letters tell; a session that is wrong about it opens one connection more. */
static bool may_block(const command *it) {
  static const char *const heads[] = {"b", "xread", "wait"};
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    size_t len = strlen(heads[i]);
    if (command_lengths(it)[0] >= len && strncasecmp(it->text.data, heads[i], len) == 0) return true;
  }
  return false;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* The node of the last attempt, or nil. */
static VALUE endpoint_of(const vigie_call *call) {
  vigie_reply *times = NULL;
  vigie_error *error = NULL;
  if (call == NULL) return Qnil;
  if (vigie_call_times(call, &times, &error) != VIGIE_OK) {
    vigie_error_free(error);
    return Qnil;
  }
  const char *text = vigie_reply_bytes(times, vigie_reply_find(times, VIGIE_ROOT, "endpoint", 8), NULL);
  char copy[256];
  snprintf(copy, sizeof copy, "%s", text == NULL ? "" : text);
  vigie_reply_free(times);
  return *copy ? rb_utf8_str_new_cstr(copy) : Qnil;
}

static VALUE call_hook(VALUE args) {
  return rb_funcallv(RARRAY_AREF(args, 0), rb_intern("call"), 4, RARRAY_CONST_PTR(args) + 1);
}

/* What a hook raises becomes a warning, and not the outcome of a call that has run. */
static void tell_hook(VALUE hook, VALUE name, VALUE endpoint, double seconds, VALUE error) {
  int state = 0;
  rb_protect(call_hook, rb_ary_new_from_args(5, hook, name, endpoint, DBL2NUM(seconds), error), &state);
  if (state == 0) return;
  VALUE raised = rb_errinfo();
  if (!RTEST(rb_obj_is_kind_of(raised, rb_eStandardError))) rb_jump_tag(state);
  rb_set_errinfo(Qnil);
  rb_warning("the hook of a Vigie::Client raised %" PRIsVALUE, rb_inspect(raised));
}

/* Runs a call and gives its value, or raises; name is told to the hook. */
static VALUE run_and_tell(link_object *self, run *it, VALUE name) {
  VALUE hook = self->hook, endpoint = Qnil, error = Qnil;
  double begin = NIL_P(hook) ? 0 : now();
  int state = run_to_end(it);
  if (!NIL_P(hook)) endpoint = endpoint_of(it->call);
  call_handle_put(it->call);
  if (it->status != VIGIE_OK) {
    error = error_take(it->status, it->error);
  } else if (state != 0) {
    error = rb_funcall(core_errors, rb_intern("late"), 1, value_take(it->reply));
  }
  if (!NIL_P(hook)) tell_hook(hook, name, endpoint, now() - begin, error);
  if (state != 0) raise_interrupt(state, error);
  if (!NIL_P(error)) rb_exc_raise(error);
  return value_take(it->reply);
}

/* Fibers of a scheduler wait together on a queue: lib/vigie/fibers.rb. */
static VALUE run_in_fiber(VALUE self, const run *it, VALUE list) {
  return rb_funcall(self, rb_intern("call_in_fiber"), 3, list, UINT2NUM(it->flags), LL2NUM(it->timeout));
}

static VALUE run_command(VALUE self, command *words, const manner *how) {
  link_object *link = link_from(self);
  run it = {.client = link->client, .command = words, .flags = how->flags, .timeout = how->timeout};
  if (!link->session && !NIL_P(rb_fiber_scheduler_current())) {
    VALUE list = rb_str_buf_new(64);
    command_append_resp(words, list);
    it.flags |= VIGIE_CALL_EACH;
    return run_in_fiber(self, &it, list);
  }
  command_finish(words);
  VALUE name = NIL_P(link->hook) ? Qnil : rb_utf8_str_new(words->text.data, (long)command_lengths(words)[0]);
  /* A session gets a call handle only where the wait may be long: it would not give its connection back afterwards. */
  if (!link->session || may_block(words) || how->timeout == VIGIE_TIMEOUT_NONE) it.call = call_handle_take();
  VALUE value = run_and_tell(link, &it, name);
  RB_GC_GUARD(self);
  RB_GC_GUARD(words->text.holder);
  RB_GC_GUARD(words->lengths.holder);
  RB_GC_GUARD(words->pointers.holder);
  return value;
}

static VALUE cast(VALUE value) { return rb_block_given_p() ? rb_yield(value) : value; }

static VALUE call_with(int argc, VALUE *argv, VALUE self, uint32_t flags) {
  VALUE keywords = rb_keyword_given_p() ? argv[--argc] : Qnil;
  manner how = manner_from(keywords);
  command words;
  command_from_call(&words, argc, argv, how.rest);
  how.flags |= flags;
  return cast(run_command(self, &words, &how));
}

static VALUE link_call(int argc, VALUE *argv, VALUE self) { return call_with(argc, argv, self, 0); }
static VALUE link_call_once(int argc, VALUE *argv, VALUE self) { return call_with(argc, argv, self, VIGIE_CALL_NO_RETRY); }

static VALUE call_words(int argc, VALUE *argv, VALUE self, uint32_t flags) {
  VALUE list, keywords;
  rb_scan_args(argc, argv, "1:", &list, &keywords);
  manner how = manner_from(keywords);
  refuse_rest(&how);
  Check_Type(list, T_ARRAY);
  command words;
  command_from_call(&words, (int)RARRAY_LEN(list), (VALUE *)RARRAY_CONST_PTR(list), Qnil);
  how.flags |= flags;
  return cast(run_command(self, &words, &how));
}

static VALUE link_call_v(int argc, VALUE *argv, VALUE self) { return call_words(argc, argv, self, 0); }
static VALUE link_call_once_v(int argc, VALUE *argv, VALUE self) { return call_words(argc, argv, self, VIGIE_CALL_NO_RETRY); }

/* run_list(batch, atomic, **manner): the replies of a list. */
static VALUE link_run_list(int argc, VALUE *argv, VALUE self) {
  VALUE list, atomic, keywords;
  rb_scan_args(argc, argv, "2:", &list, &atomic, &keywords);
  link_object *link = link_from(self);
  manner how = manner_from(keywords);
  refuse_rest(&how);
  VALUE resp = batch_from(list)->list;
  run it = {.client = link->client, .list = RSTRING_PTR(resp), .list_len = (size_t)RSTRING_LEN(resp)};
  it.flags = how.flags | (RTEST(atomic) ? VIGIE_CALL_ATOMIC : 0);
  it.timeout = how.timeout;
  if (!link->session && !NIL_P(rb_fiber_scheduler_current())) return run_in_fiber(self, &it, resp);
  /* Nobody else may change the bytes while they are read without the lock. */
  if (!link->session || how.timeout == VIGIE_TIMEOUT_NONE) it.call = call_handle_take();
  VALUE value = run_and_tell(link, &it, rb_utf8_str_new_cstr(RTEST(atomic) ? "MULTI" : "PIPELINE"));
  RB_GC_GUARD(resp);
  RB_GC_GUARD(self);
  return value;
}

/* submit(list, queue, token, flags, timeout in ms): nil; the completions come on the queue. */
static VALUE link_submit(VALUE self, VALUE list, VALUE queue, VALUE token, VALUE flags, VALUE timeout) {
  vigie_error *error = NULL;
  Check_Type(list, T_STRING);
  vigie_status status = vigie_cmds_submit(link_from(self)->client, RSTRING_PTR(list), (size_t)RSTRING_LEN(list), NUM2UINT(flags),
                                          NUM2LL(timeout), queue_from(queue), NUM2ULL(token), &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

static VALUE looked(vigie_status status, vigie_reply *reply, vigie_error *error) {
  if (status != VIGIE_OK) error_raise(status, error);
  return value_take(reply);
}

static VALUE link_topology(VALUE self) {
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_client_topology(link_from(self)->client, &reply, &error);
  return looked(status, reply, error);
}

static VALUE link_stats(VALUE self) {
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_client_stats(link_from(self)->client, &reply, &error);
  return looked(status, reply, error);
}

static VALUE link_metrics(int argc, VALUE *argv, VALUE self) {
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  VALUE open = Qnil;
  rb_scan_args(argc, argv, "01", &open);
  vigie_status status = vigie_client_metrics(link_from(self)->client, RTEST(open) ? VIGIE_METRICS_OPENMETRICS : 0, &reply, &error);
  return looked(status, reply, error);
}

static VALUE link_disconnect(VALUE self) {
  vigie_error *error = NULL;
  vigie_status status = vigie_client_disconnect(link_from(self)->client, &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

typedef struct {
  link_object *link;
  int64_t timeout;
  vigie_status status;
  vigie_error *error;
} closing;

static void *close_step(void *argument) {
  closing *it = argument;
  it->status = vigie_client_close(it->link->client, it->timeout, &it->error);
  return NULL;
}

static VALUE link_close(int argc, VALUE *argv, VALUE self) {
  VALUE seconds;
  rb_scan_args(argc, argv, "01", &seconds);
  closing it = {link_from(self), timeout_from(seconds), VIGIE_OK, NULL};
  without_gvl(close_step, &it);
  if (it.status != VIGIE_OK) error_raise(it.status, it.error);
  return Qnil;
}

static VALUE link_closed(VALUE self) { return vigie_client_is_closed(link_from(self)->client) ? Qtrue : Qfalse; }

static VALUE link_shard_of(VALUE self, VALUE key) {
  StringValue(key);
  return INT2NUM(vigie_client_shard_of(link_from(self)->client, RSTRING_PTR(key), (size_t)RSTRING_LEN(key)));
}

/* The texts of the shards, kept by the array that goes with them. */
static const char **shards_from(VALUE list, VALUE *keep) {
  Check_Type(list, T_ARRAY);
  long count = RARRAY_LEN(list);
  *keep = rb_str_new(NULL, (long)sizeof(char *) * (count + 1));
  const char **texts = (const char **)(void *)RSTRING_PTR(*keep);
  for (long i = 0; i < count; i++) {
    VALUE text = RARRAY_AREF(list, i);
    texts[i] = StringValueCStr(text);
  }
  return texts;
}

static VALUE link_set_shards(VALUE self, VALUE list) {
  VALUE keep;
  vigie_error *error = NULL;
  const char **texts = shards_from(list, &keep);
  vigie_status status = vigie_shards_set(link_from(self)->client, texts, (size_t)RARRAY_LEN(list), &error);
  RB_GC_GUARD(keep);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

static VALUE link_get_hook(VALUE self) { return link_from(self)->hook; }

static VALUE link_set_hook(VALUE self, VALUE hook) {
  if (!NIL_P(hook) && !rb_respond_to(hook, rb_intern("call"))) rb_raise(rb_eTypeError, "a hook responds to call(name, endpoint, seconds, error)");
  return link_from(self)->hook = hook;
}

/* ---- opening ---- */

typedef struct {
  link_object *link;
  const char *kind, *service;
  vigie_sentinel *sentinel;
  vigie_client *parent;
  const char **shards;
  size_t shard_count;
  VALUE key;
  vigie_config *overrides;
  vigie_status status;
  vigie_error *error;
} opening;

static void *open_step(void *argument) {
  opening *it = argument;
  vigie_client **out = &it->link->client;
  if (it->parent != NULL) {
    const void *key = NIL_P(it->key) ? NULL : RSTRING_PTR(it->key);
    size_t len = NIL_P(it->key) ? 0 : (size_t)RSTRING_LEN(it->key);
    it->status = vigie_session_for(it->parent, key, len, it->overrides, out, &it->error);
  } else if (it->shards != NULL) {
    it->status = vigie_shards_for(it->sentinel, it->shards, it->shard_count, it->overrides, out, &it->error);
  } else if (strcmp(it->kind, "replica") == 0) {
    it->status = vigie_replica_for(it->sentinel, it->service, it->overrides, out, &it->error);
  } else if (strcmp(it->kind, "split") == 0) {
    it->status = vigie_split_for(it->sentinel, it->service, it->overrides, out, &it->error);
  } else {
    it->status = vigie_primary_for(it->sentinel, it->service, it->overrides, out, &it->error);
  }
  return NULL;
}

/* open(kind, parent, what, overrides): primary, replica or split of a handle and a service; shards of a handle or nil and their texts;
 * session of a client and a key. */
static VALUE link_open(VALUE self, VALUE kind, VALUE parent, VALUE what, VALUE overrides) {
  link_object *link = rb_check_typeddata(self, &link_type);
  VALUE keep = Qnil;
  opening it = {.link = link, .kind = StringValueCStr(kind), .key = Qnil};
  if (link->client != NULL) rb_raise(rb_eArgError, "the client is open already");
  if (strcmp(it.kind, "session") == 0) {
    it.parent = link_from(parent)->client;
    it.key = NIL_P(what) ? Qnil : rb_str_new_frozen(StringValue(what));
    link->session = true;
  } else {
    if (!NIL_P(parent)) it.sentinel = sentinel_from(parent);
    if (strcmp(it.kind, "shards") == 0) it.shards = shards_from(what, &keep), it.shard_count = (size_t)RARRAY_LEN(what);
    else if (strcmp(it.kind, "primary") != 0 && strcmp(it.kind, "replica") != 0 && strcmp(it.kind, "split") != 0)
      rb_raise(rb_eArgError, "no client reads from %s: primary, replica or split", it.kind);
    else it.service = text_or_null(&what);
  }
  it.overrides = config_from(overrides);
  it.status = VIGIE_ERR_CANCELLED;
  without_gvl(open_step, &it);
  vigie_config_free(it.overrides);
  RB_GC_GUARD(keep);
  RB_GC_GUARD(what);
  RB_GC_GUARD(kind);
  if (it.status != VIGIE_OK) {
    rb_thread_check_ints();
    error_raise(it.status, it.error);
  }
  return self;
}

static void define_calls(void) {
  rb_define_method(class_link, "call", link_call, -1);
  rb_define_method(class_link, "call_once", link_call_once, -1);
  rb_define_method(class_link, "call_v", link_call_v, -1);
  rb_define_method(class_link, "call_once_v", link_call_once_v, -1);
  rb_define_method(class_link, "run_list", link_run_list, -1);
  rb_define_method(class_link, "submit", link_submit, 5);
}

void link_register(void) {
  id_timeout = rb_intern("timeout");
  id_idempotent = rb_intern("idempotent");
  id_retry = rb_intern("retry");
  id_on_primary = rb_intern("on_primary");
  id_slow = rb_intern("slow");
  id_typed = rb_intern("typed");
  id_replicas = rb_intern("replicas");
  class_link = rb_define_class_under(core_module, "Link", rb_cObject);
  rb_define_alloc_func(class_link, link_alloc);
  rb_undef_method(class_link, "initialize_copy");
  define_calls();
  rb_define_method(class_link, "open", link_open, 4);
  rb_define_method(class_link, "topology", link_topology, 0);
  rb_define_method(class_link, "stats", link_stats, 0);
  rb_define_method(class_link, "metrics", link_metrics, -1);
  rb_define_method(class_link, "disconnect", link_disconnect, 0);
  rb_define_method(class_link, "close", link_close, -1);
  rb_define_method(class_link, "closed?", link_closed, 0);
  rb_define_method(class_link, "shard_of", link_shard_of, 1);
  rb_define_method(class_link, "shards=", link_set_shards, 1);
  rb_define_method(class_link, "hook", link_get_hook, 0);
  rb_define_method(class_link, "hook=", link_set_hook, 1);
}
