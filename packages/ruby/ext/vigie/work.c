/* Scans and lists of jobs: operations of several commands each, of which the library has forms that do not wait.
 *
 * Promises: each is submitted to a queue of its own and waited for, so that an interrupt ends the wait. Leaves to others: iteration and
 * names (Ruby).
 */
#include "core.h"

static VALUE outcome(vigie_queue *queue, vigie_status status, vigie_error *error) {
  if (status == VIGIE_OK) return wait_for_completion(queue);
  private_queue_put(queue);
  error_raise(status, error);
}

/* ---- scans ---- */

static void scan_free(void *it) { vigie_scan_free(it); }
static const rb_data_type_t scan_type = {
    "Vigie::Core::Scan", {NULL, scan_free, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE scan_alloc(VALUE class) { return TypedData_Wrap_Struct(class, &scan_type, NULL); }

static VALUE scan_initialize(VALUE self, VALUE link, VALUE list, VALUE restarts) {
  command words;
  vigie_scan *scan = NULL;
  vigie_error *error = NULL;
  uint32_t most = NUM2UINT(restarts);
  vigie_client *client = link_from(link)->client;
  Check_Type(list, T_ARRAY);
  command_from_call(&words, (int)RARRAY_LEN(list), (VALUE *)RARRAY_CONST_PTR(list), Qnil);
  command_finish(&words);
  vigie_status status = vigie_scan_for(client, words.count, command_argv(&words), command_lengths(&words), most, &scan, &error);
  if (status != VIGIE_OK) error_raise(status, error);
  RTYPEDDATA_DATA(self) = scan;
  return Qnil;
}

static vigie_scan *scan_from(VALUE self) {
  vigie_scan *it = rb_check_typeddata(self, &scan_type);
  if (it == NULL) rb_raise(rb_eArgError, "the scan was not opened");
  return it;
}

/* The next page; nil at the end. */
static VALUE scan_next(VALUE self, VALUE seconds) {
  int64_t timeout = timeout_from(seconds);
  vigie_scan *scan = scan_from(self);
  vigie_queue *queue = private_queue_take();
  vigie_error *error = NULL;
  vigie_status status = vigie_scan_submit(scan, timeout, queue, 1, &error);
  VALUE page = outcome(queue, status, error);
  RB_GC_GUARD(self);
  return page;
}

static VALUE scan_restarts(VALUE self) { return UINT2NUM(vigie_scan_restarts(scan_from(self))); }

/* ---- jobs ---- */

static void jobs_free(void *it) { vigie_jobs_free(it); }
static const rb_data_type_t jobs_type = {
    "Vigie::Core::Jobs", {NULL, jobs_free, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE jobs_alloc(VALUE class) { return TypedData_Wrap_Struct(class, &jobs_type, NULL); }

static VALUE jobs_initialize(VALUE self, VALUE link, VALUE name, VALUE worker, VALUE lease) {
  vigie_jobs *jobs = NULL;
  vigie_error *error = NULL;
  vigie_status status =
      vigie_jobs_for(link_from(link)->client, StringValueCStr(name), text_or_null(&worker), timeout_from(lease), &jobs, &error);
  if (status != VIGIE_OK) error_raise(status, error);
  RTYPEDDATA_DATA(self) = jobs;
  return Qnil;
}

static vigie_jobs *jobs_from(VALUE self) {
  vigie_jobs *it = rb_check_typeddata(self, &jobs_type);
  if (it == NULL) rb_raise(rb_eArgError, "the worker was not opened");
  return it;
}

static vigie_status submit(vigie_jobs *jobs, const char *what, const char *id, int64_t timeout, vigie_queue *queue, vigie_error **error) {
  if (strcmp(what, "take") == 0) return vigie_jobs_take_submit(jobs, timeout, queue, 1, error);
  if (strcmp(what, "ack") == 0) return vigie_jobs_ack_submit(jobs, id, timeout, queue, 1, error);
  if (strcmp(what, "return") == 0) return vigie_jobs_return_submit(jobs, id, timeout, queue, 1, error);
  if (strcmp(what, "renew") == 0) return vigie_jobs_renew_submit(jobs, timeout, queue, 1, error);
  return vigie_jobs_close_submit(jobs, timeout, queue, 1, error);
}

/* run(what, id, timeout): take, ack, return, renew or close. */
static VALUE jobs_run(VALUE self, VALUE what, VALUE id, VALUE seconds) {
  int64_t timeout = timeout_from(seconds);
  vigie_jobs *jobs = jobs_from(self);
  const char *word = StringValueCStr(what), *name = text_or_null(&id);
  vigie_queue *queue = private_queue_take();
  vigie_error *error = NULL;
  vigie_status status = submit(jobs, word, name, timeout, queue, &error);
  VALUE value = outcome(queue, status, error);
  RB_GC_GUARD(self);
  RB_GC_GUARD(what);
  RB_GC_GUARD(id);
  return value;
}

static VALUE jobs_stop(VALUE self) {
  vigie_error *error = NULL;
  vigie_status status = vigie_jobs_stop(jobs_from(self), &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

static VALUE jobs_limit(VALUE self, VALUE count) {
  vigie_error *error = NULL;
  vigie_status status = vigie_jobs_limit_deliveries(jobs_from(self), NUM2UINT(count), &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return Qnil;
}

/* push_job(link, name, id, payload, timeout): the length of the list. */
static VALUE push_job(VALUE module, VALUE link, VALUE name, VALUE id, VALUE payload, VALUE seconds) {
  command words;
  int64_t timeout = timeout_from(seconds);
  vigie_client *client = link_from(link)->client;
  const char *list = StringValueCStr(name), *key = text_or_null(&id);
  command_init(&words);
  command_add(&words, payload);
  vigie_queue *queue = private_queue_take();
  vigie_error *error = NULL;
  vigie_status status = vigie_jobs_push_submit(client, list, key, words.text.data, words.text.len, timeout, queue, 1, &error);
  (void)module;
  RB_GC_GUARD(name);
  RB_GC_GUARD(id);
  RB_GC_GUARD(words.text.holder);
  return outcome(queue, status, error);
}

void work_register(void) {
  VALUE scan = rb_define_class_under(core_module, "Scan", rb_cObject);
  rb_define_alloc_func(scan, scan_alloc);
  rb_undef_method(scan, "initialize_copy");
  rb_define_method(scan, "initialize", scan_initialize, 3);
  rb_define_method(scan, "next", scan_next, 1);
  rb_define_method(scan, "restarts", scan_restarts, 0);
  VALUE jobs = rb_define_class_under(core_module, "Jobs", rb_cObject);
  rb_define_alloc_func(jobs, jobs_alloc);
  rb_undef_method(jobs, "initialize_copy");
  rb_define_method(jobs, "initialize", jobs_initialize, 4);
  rb_define_method(jobs, "run", jobs_run, 3);
  rb_define_method(jobs, "stop", jobs_stop, 0);
  rb_define_method(jobs, "limit", jobs_limit, 1);
  rb_define_singleton_method(core_module, "push_job", push_job, 5);
}
