/* Waiting that Thread#kill, Thread#raise, Timeout.timeout and signals can end.
 *
 * Promises: the lock of the interpreter is free while a call waits. An interrupt ends the wait; if it raises or kills the thread, the call is
 * cancelled by its handle and waited for, so that its outcome is known, and becomes the cause of the exception. An interrupt that does
 * neither (a trap that returns, Thread#wakeup) ends no call: it is waited for again. Handles are kept for the next call.
 * Leaves to others: what is waited for.
 */
#include <pthread.h>

#include "core.h"

enum { KEPT = 32, PRIVATE_CAPACITY = 4 };

static vigie_call *kept_calls[KEPT];
static int kept_call_count;
static vigie_queue *kept_queues[KEPT];
static int kept_queue_count;

/* In a forked child: the handles are the parent's, and are left alone. */
static void forget(void) {
  kept_call_count = 0;
  kept_queue_count = 0;
}

void wait_init(void) { pthread_atfork(NULL, NULL, forget); }

vigie_call *call_handle_take(void) { return kept_call_count ? kept_calls[--kept_call_count] : vigie_call_new(); }

/* A handle that was cancelled stays so, and serves no other call. */
void call_handle_put(vigie_call *call) {
  if (call == NULL) return;
  if (kept_call_count < KEPT && !vigie_call_is_cancelled(call)) kept_calls[kept_call_count++] = call;
  else vigie_call_free(call);
}

vigie_queue *private_queue_take(void) {
  if (kept_queue_count) return kept_queues[--kept_queue_count];
  vigie_queue *queue = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_queue_create(PRIVATE_CAPACITY, &queue, &error);
  if (status != VIGIE_OK) error_raise(status, error);
  return queue;
}

void private_queue_put(vigie_queue *queue) {
  if (kept_queue_count < KEPT) kept_queues[kept_queue_count++] = queue;
  else vigie_queue_free(queue);
}

/* For what cannot be ended and is bounded by its timeout. */
void without_gvl(void *(*function)(void *), void *argument) { rb_thread_call_without_gvl2(function, argument, NULL, NULL); }

static VALUE check_interrupts(VALUE nothing) {
  rb_thread_check_ints();
  return nothing;
}

static void first_step(run *it) {
  const command *words = it->command;
  if (it->call == NULL && words != NULL) {
    it->status = vigie_cmd_exec(it->client, words->count, command_argv(words), command_lengths(words), it->flags, it->timeout, &it->reply,
                                &it->error);
  } else if (it->call == NULL) {
    it->status = vigie_cmds_exec(it->client, it->list, it->list_len, it->flags, it->timeout, &it->reply, &it->error);
  } else if (words != NULL) {
    it->status = vigie_call_cmd_exec(it->call, it->client, words->count, command_argv(words), command_lengths(words), it->flags,
                                     it->timeout, &it->reply, &it->error);
  } else {
    it->status = vigie_call_cmds_exec(it->call, it->client, it->list, it->list_len, it->flags, it->timeout, &it->reply, &it->error);
  }
}

static void *step(void *argument) {
  run *it = argument;
  it->ran = true;
  if (it->begun) {
    it->status = vigie_call_wait(it->call, &it->reply, &it->error);
  } else {
    it->begun = true;
    first_step(it);
  }
  return NULL;
}

static void *cancelled_step(void *argument) {
  run *it = argument;
  it->ran = true;
  (void)vigie_call_cancel(it->call, NULL);
  do {
    vigie_error_free(it->error);
    it->error = NULL;
    it->status = vigie_call_wait(it->call, &it->reply, &it->error);
  } while (it->status == VIGIE_ERR_INTERRUPTED);
  return NULL;
}

/* Runs a call to its end. Not 0: an interrupt has ended it, and raise_interrupt() goes on with that; the outcome is known all the same,
 * but for a call that was not begun, whose status is VIGIE_ERR_CANCELLED without an error. */
int run_to_end(run *it) {
  for (;;) {
    it->ran = false;
    /* The signal that Ruby sends to end a wait is repeated until the wait is over, so that none comes too early. */
    rb_thread_call_without_gvl2(step, it, it->call == NULL ? NULL : RUBY_UBF_IO, NULL);
    if (it->ran && it->status != VIGIE_ERR_INTERRUPTED) return 0;
    vigie_error_free(it->error);
    it->error = NULL;
    int state = 0;
    rb_protect(check_interrupts, Qnil, &state);
    if (state == 0) continue;
    it->status = VIGIE_ERR_CANCELLED;
    it->ran = false;
    if (it->begun) rb_thread_call_without_gvl2(cancelled_step, it, NULL, NULL);
    /* With one more interrupt pending Ruby does not let go of its lock; a cancelled call ends within 50 ms. */
    if (it->begun && !it->ran) cancelled_step(it);
    return state;
  }
}

static VALUE raise_with_cause(VALUE pair) {
  VALUE exception = RARRAY_AREF(pair, 0), keywords = rb_hash_new();
  rb_hash_aset(keywords, ID2SYM(rb_intern("cause")), RARRAY_AREF(pair, 1));
  VALUE args[] = {exception, keywords};
  return rb_funcallv_kw(rb_mKernel, rb_intern("raise"), 2, args, RB_PASS_KEYWORDS);
}

/* Goes on with an interrupt; an exception gets the outcome of the call as its cause. */
void raise_interrupt(int state, VALUE outcome) {
  VALUE raised = rb_errinfo();
  if (RTEST(rb_obj_is_kind_of(raised, rb_eException)) && !NIL_P(outcome) && !OBJ_FROZEN(raised)) {
    rb_set_errinfo(Qnil);
    rb_protect(raise_with_cause, rb_assoc_new(raised, outcome), &state);
  }
  rb_jump_tag(state);
}

typedef struct {
  vigie_queue *queue;
  int64_t timeout;
  vigie_event *events;
  uint32_t capacity;
  int32_t count;
  bool ran;
} drain;

static void *drain_step(void *argument) {
  drain *it = argument;
  it->ran = true;
  it->count = vigie_queue_drain(it->queue, it->timeout, it->events, it->capacity);
  return NULL;
}

static void wake_drain(void *queue) { vigie_queue_wakeup(queue); }

/* Drains once; 0 events also after an interrupt that does not raise. *state: an interrupt that does, with nothing taken. If it is set before,
 * the caller is ending, and drains even if Ruby does not let go of its lock because of one more interrupt. */
int32_t drain_to_end(vigie_queue *queue, int64_t timeout, vigie_event *events, uint32_t capacity, int *state) {
  drain it = {queue, timeout, events, capacity, 0, false};
  bool ending = *state != 0;
  *state = 0;
  rb_thread_call_without_gvl2(drain_step, &it, wake_drain, queue);
  if (!it.ran && ending) drain_step(&it);
  if (it.count == 0) rb_protect(check_interrupts, Qnil, state);
  return it.count;
}

static VALUE value_of_completion(VALUE event) { return value_of_event((vigie_event *)event); }

/* The value of the one completion, with token 1, that is due on a queue of one's own. An interrupt cancels what it is the completion of. */
VALUE wait_for_completion(vigie_queue *queue) {
  vigie_event event;
  int state = 0, interrupt = 0;
  int32_t count;
  while ((count = drain_to_end(queue, VIGIE_TIMEOUT_NONE, &event, 1, &state)) == 0) {
    if (state != 0) interrupt = state;
    if (interrupt != 0) vigie_queue_cancel(queue, 1);
    state = interrupt;
  }
  if (count < 0) error_raise(count, NULL);
  vigie_error *error = event.error;
  vigie_status status = event.status;
  event.error = NULL;
  VALUE outcome = Qnil;
  state = 0;
  if (status != VIGIE_OK) outcome = error_take(status, error);
  else outcome = rb_protect(value_of_completion, (VALUE)&event, &state);
  vigie_events_clear(&event, 1);
  private_queue_put(queue);
  if (interrupt != 0) raise_interrupt(interrupt, status != VIGIE_OK ? outcome : Qnil);
  if (state != 0) rb_jump_tag(state);
  if (status != VIGIE_OK) rb_exc_raise(outcome);
  return outcome;
}
