/* Queues: completions, messages of subscriptions, events of a watch; and subscriptions, which speak through a queue.
 *
 * Promises: a batch of events costs one call of the library, and each is decoded and freed once. Leaves to others: loops and fibers (Ruby).
 */
#include "core.h"

enum { BATCH = 64 };

static void queue_free(void *it) { vigie_queue_free(it); }
static const rb_data_type_t queue_type = {
    "Vigie::Core::Queue", {NULL, queue_free, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE queue_alloc(VALUE class) { return TypedData_Wrap_Struct(class, &queue_type, NULL); }

vigie_queue *queue_from(VALUE self) {
  vigie_queue *it = rb_check_typeddata(self, &queue_type);
  if (it == NULL) rb_raise(rb_eArgError, "the queue was not opened");
  return it;
}

static VALUE queue_initialize(VALUE self, VALUE capacity) {
  vigie_queue *queue = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_queue_create(NUM2SIZET(capacity), &queue, &error);
  if (status != VIGIE_OK) error_raise(status, error);
  RTYPEDDATA_DATA(self) = queue;
  return Qnil;
}

typedef struct {
  vigie_event *events;
  int32_t count;
} taken;

static VALUE event_as_array(vigie_event *event) {
  VALUE error = Qnil;
  if (event->status != VIGIE_OK) {
    vigie_error *owned = event->error;
    event->error = NULL;
    error = error_take(event->status, owned);
  }
  return rb_ary_new_from_args(4, UINT2NUM(event->kind), ULL2NUM(event->token), error, value_of_event(event));
}

static VALUE events_as_array(VALUE argument) {
  taken *it = (taken *)argument;
  VALUE list = rb_ary_new_capa(it->count);
  for (int32_t i = 0; i < it->count; i++) rb_ary_push(list, event_as_array(&it->events[i]));
  return list;
}

/* drain(timeout): [kind, token, error or nil, value] of each event; empty when the time is over, and after wakeup. nil: no limit. */
static VALUE queue_drain(VALUE self, VALUE seconds) {
  vigie_event events[BATCH];
  int state = 0;
  int64_t timeout = NIL_P(seconds) ? VIGIE_TIMEOUT_NONE : timeout_from(seconds);
  taken it = {events, drain_to_end(queue_from(self), timeout, events, BATCH, &state)};
  if (state != 0) rb_jump_tag(state);
  if (it.count < 0) error_raise(it.count, NULL);
  VALUE list = rb_protect(events_as_array, (VALUE)&it, &state);
  vigie_events_clear(events, (size_t)it.count);
  RB_GC_GUARD(self);
  if (state != 0) rb_jump_tag(state);
  return list;
}

static VALUE queue_cancel(VALUE self, VALUE token) { return SIZET2NUM(vigie_queue_cancel(queue_from(self), NUM2ULL(token))); }

static VALUE queue_wakeup(VALUE self) {
  vigie_queue_wakeup(queue_from(self));
  return Qnil;
}

static VALUE queue_fileno(VALUE self) { return INT2NUM(vigie_queue_fd(queue_from(self))); }

/* ---- subscriptions ---- */

static void sub_free(void *it) { vigie_sub_free(it); }
static const rb_data_type_t sub_type = {
    "Vigie::Core::Sub", {NULL, sub_free, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE sub_alloc(VALUE class) { return TypedData_Wrap_Struct(class, &sub_type, NULL); }

static VALUE sub_initialize(VALUE self, VALUE link, VALUE queue, VALUE token, VALUE overrides) {
  vigie_sub *sub = NULL;
  vigie_error *error = NULL;
  vigie_client *client = link_from(link)->client;
  vigie_queue *to = queue_from(queue);
  uint64_t number = NUM2ULL(token);
  vigie_config *config = config_from(overrides);
  vigie_status status = vigie_sub_for(client, to, number, config, &sub, &error);
  vigie_config_free(config);
  if (status != VIGIE_OK) error_raise(status, error);
  RTYPEDDATA_DATA(self) = sub;
  return Qnil;
}

/* exec(words): notes the wish; the answers come on the queue. */
static VALUE sub_exec(VALUE self, VALUE list) {
  command words;
  vigie_error *error = NULL;
  vigie_sub *sub = rb_check_typeddata(self, &sub_type);
  if (sub == NULL) rb_raise(rb_eArgError, "the subscription was closed");
  Check_Type(list, T_ARRAY);
  command_from_call(&words, (int)RARRAY_LEN(list), (VALUE *)RARRAY_CONST_PTR(list), Qnil);
  command_finish(&words);
  vigie_status status = vigie_sub_exec(sub, words.count, command_argv(&words), command_lengths(&words), 0, &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

static VALUE sub_close(VALUE self) {
  vigie_sub_free(rb_check_typeddata(self, &sub_type));
  RTYPEDDATA_DATA(self) = NULL;
  return Qnil;
}

void queue_register(void) {
  VALUE queue = rb_define_class_under(core_module, "Queue", rb_cObject);
  rb_define_alloc_func(queue, queue_alloc);
  rb_undef_method(queue, "initialize_copy");
  rb_define_method(queue, "initialize", queue_initialize, 1);
  rb_define_method(queue, "drain", queue_drain, 1);
  rb_define_method(queue, "cancel", queue_cancel, 1);
  rb_define_method(queue, "wakeup", queue_wakeup, 0);
  rb_define_method(queue, "fileno", queue_fileno, 0);
  VALUE sub = rb_define_class_under(core_module, "Sub", rb_cObject);
  rb_define_alloc_func(sub, sub_alloc);
  rb_undef_method(sub, "initialize_copy");
  rb_define_method(sub, "initialize", sub_initialize, 4);
  rb_define_method(sub, "exec", sub_exec, 1);
  rb_define_method(sub, "close", sub_close, 0);
}
