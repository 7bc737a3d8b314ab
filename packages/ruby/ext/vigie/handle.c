/* The handle of the Sentinels: opening, asking, watching.
 *
 * Promises: what may wait long is submitted and waited for, so that an interrupt ends it. Leaves to others: names and comfort (Ruby).
 */
#include "core.h"

static void handle_free(void *it) { vigie_sentinel_free(it); }
static const rb_data_type_t handle_type = {
    "Vigie::Core::Handle", {NULL, handle_free, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE handle_alloc(VALUE class) { return TypedData_Wrap_Struct(class, &handle_type, NULL); }

vigie_sentinel *sentinel_from(VALUE self) {
  vigie_sentinel *it = rb_check_typeddata(self, &handle_type);
  if (it == NULL) rb_raise(rb_eArgError, "the handle was not opened");
  return it;
}

/* A step without the lock: what it works on and what it gives. */
typedef struct {
  vigie_sentinel *sentinel;
  vigie_config *config;
  const char *service;
  int64_t timeout;
  vigie_status status;
  vigie_reply *reply;
  vigie_error *error;
} asking;

static void *create_step(void *argument) {
  asking *it = argument;
  it->status = vigie_sentinel_create(it->config, it->timeout, &it->sentinel, &it->error);
  return NULL;
}

static VALUE handle_initialize(VALUE self, VALUE options, VALUE seconds) {
  asking it = {.config = config_from(options), .timeout = VIGIE_TIMEOUT_DEFAULT, .status = VIGIE_ERR_CANCELLED};
  if (!NIL_P(seconds)) it.timeout = timeout_from(seconds);
  without_gvl(create_step, &it);
  vigie_config_free(it.config);
  if (it.status != VIGIE_OK) {
    rb_thread_check_ints();
    error_raise(it.status, it.error);
  }
  RTYPEDDATA_DATA(self) = it.sentinel;
  return Qnil;
}

static VALUE answer(const asking *it) {
  if (it->status != VIGIE_OK) error_raise(it->status, it->error);
  return value_take(it->reply);
}

static VALUE handle_topology(VALUE self, VALUE service) {
  asking it = {.sentinel = sentinel_from(self), .service = text_or_null(&service)};
  it.status = vigie_sentinel_topology(it.sentinel, it.service, &it.reply, &it.error);
  return answer(&it);
}

static void *refresh_step(void *argument) {
  asking *it = argument;
  it->status = vigie_sentinel_refresh(it->sentinel, it->service, it->timeout, &it->reply, &it->error);
  return NULL;
}

static VALUE handle_refresh(VALUE self, VALUE service, VALUE seconds) {
  asking it = {.sentinel = sentinel_from(self), .service = text_or_null(&service), .timeout = timeout_from(seconds)};
  it.status = VIGIE_ERR_CANCELLED;
  without_gvl(refresh_step, &it);
  RB_GC_GUARD(service);
  return answer(&it);
}

static VALUE outcome(vigie_queue *queue, vigie_status status, vigie_error *error) {
  if (status == VIGIE_OK) return wait_for_completion(queue);
  private_queue_put(queue);
  error_raise(status, error);
}

static VALUE handle_services(VALUE self, VALUE follow, VALUE seconds) {
  int64_t timeout = timeout_from(seconds);
  vigie_sentinel *sentinel = sentinel_from(self);
  vigie_queue *queue = private_queue_take();
  vigie_error *error = NULL;
  vigie_status status =
      vigie_sentinel_services_submit(sentinel, RTEST(follow) ? VIGIE_SERVICES_FOLLOW : 0, timeout, queue, 1, &error);
  return outcome(queue, status, error);
}

/* admin(args, at, flags, timeout) */
static VALUE handle_admin(VALUE self, VALUE args, VALUE at, VALUE flags, VALUE seconds) {
  command words;
  int64_t timeout = timeout_from(seconds);
  uint32_t bits = NUM2UINT(flags);
  vigie_sentinel *sentinel = sentinel_from(self);
  const char *address = text_or_null(&at);
  Check_Type(args, T_ARRAY);
  command_from_call(&words, (int)RARRAY_LEN(args), (VALUE *)RARRAY_CONST_PTR(args), Qnil);
  command_finish(&words);
  vigie_queue *queue = private_queue_take();
  vigie_error *error = NULL;
  vigie_status status =
      address == NULL ? vigie_sentinel_submit(sentinel, words.count, command_argv(&words), command_lengths(&words), bits, timeout, queue, 1, &error)
                      : vigie_sentinel_submit_at(sentinel, address, words.count, command_argv(&words), command_lengths(&words), bits, timeout,
                                                 queue, 1, &error);
  RB_GC_GUARD(words.text.holder);
  RB_GC_GUARD(words.pointers.holder);
  RB_GC_GUARD(at);
  return outcome(queue, status, error);
}

static VALUE handle_stats(VALUE self) {
  asking it = {.sentinel = sentinel_from(self)};
  it.status = vigie_sentinel_stats(it.sentinel, &it.reply, &it.error);
  return answer(&it);
}

static VALUE handle_metrics(VALUE self, VALUE open) {
  asking it = {.sentinel = sentinel_from(self)};
  it.status = vigie_sentinel_metrics(it.sentinel, RTEST(open) ? VIGIE_METRICS_OPENMETRICS : 0, &it.reply, &it.error);
  return answer(&it);
}

static VALUE handle_configure(VALUE self, VALUE options) {
  vigie_error *error = NULL;
  vigie_config *config = config_from(options);
  vigie_status status = vigie_sentinel_configure_all(sentinel_from(self), config, &error);
  vigie_config_free(config);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

static VALUE handle_watch(VALUE self, VALUE queue, VALUE kinds, VALUE token) {
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_watch(sentinel_from(self), NUM2UINT(kinds), queue_from(queue), NUM2ULL(token), &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

static void *close_step(void *argument) {
  asking *it = argument;
  it->status = vigie_sentinel_close(it->sentinel, it->timeout, &it->error);
  return NULL;
}

static VALUE handle_close(VALUE self, VALUE seconds) {
  asking it = {.sentinel = sentinel_from(self), .timeout = timeout_from(seconds)};
  without_gvl(close_step, &it);
  if (it.status != VIGIE_OK) error_raise(it.status, it.error);
  return Qnil;
}

void handle_register(void) {
  VALUE class = rb_define_class_under(core_module, "Handle", rb_cObject);
  rb_define_alloc_func(class, handle_alloc);
  rb_undef_method(class, "initialize_copy");
  rb_define_method(class, "initialize", handle_initialize, 2);
  rb_define_method(class, "topology", handle_topology, 1);
  rb_define_method(class, "refresh", handle_refresh, 2);
  rb_define_method(class, "services", handle_services, 2);
  rb_define_method(class, "admin", handle_admin, 4);
  rb_define_method(class, "stats", handle_stats, 0);
  rb_define_method(class, "metrics", handle_metrics, 1);
  rb_define_method(class, "configure", handle_configure, 1);
  rb_define_method(class, "watch", handle_watch, 3);
  rb_define_method(class, "close", handle_close, 1);
}
