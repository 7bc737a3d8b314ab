/* Waiting that a signal can end, and the handles that it takes.
 *
 * Promises: Ctrl-C ends a wait of the main thread, where alone Python runs signal handlers; the call is cancelled and waited for, and its
 * outcome is the cause of the exception, so that nothing that a server gave is lost unseen. Other threads wait without a look at signals.
 * Handles are kept for the next wait, a few of each kind. Leaves to others: what is waited for.
 */
#include "core.h"

enum { KEPT = 8, SLICE_MS = 100, PRIVATE_CAPACITY = 4 };

static vigie_call *kept_calls[KEPT];
static int kept_call_count;
static vigie_queue *kept_queues[KEPT];
static int kept_queue_count;

bool in_main_thread(void) { return PyThread_get_thread_ident() == core_main_thread; }

/* Python's handler only sets a flag, so a signal just before a wait would go unseen until the next one: the wait ends in slices. */
vigie_call *call_handle_take(void) {
  if (kept_call_count) return kept_calls[--kept_call_count];
  vigie_call *call = vigie_call_new();
  (void)vigie_call_interrupt_every(call, SLICE_MS, NULL);
  return call;
}

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

/* In a forked child: the handles are the parent's, and are left alone. */
void waiters_forget(void) {
  kept_call_count = 0;
  kept_queue_count = 0;
}

/* Gives the exception that is set a cause: the error of the call that it has ended, or one that holds the reply that came all the same. */
static void set_cause(vigie_status status, vigie_reply *reply, vigie_error *error, bool text) {
  PyObject *type, *value, *trace, *cause;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (status != VIGIE_OK) {
    cause = error_take(status, error, text);
  } else {
    PyObject *got = value_take(reply, text);
    cause = got == NULL ? NULL
                        : PyObject_CallFunction(core_make_error, "iIsssLiO", (int)VIGIE_ERR_CANCELLED, (unsigned)VIGIE_EF_MAYBE_EXECUTED,
                                                "the call was over when it was cancelled: its reply is in the attribute reply", "", "",
                                                -1LL, 0, got);
    Py_XDECREF(got);
  }
  if (cause != NULL && value != NULL) PyException_SetCause(value, cause);
  else Py_XDECREF(cause);
  PyErr_Clear();
  PyErr_Restore(type, value, trace);
}

static vigie_status cancel_and_wait(vigie_call *call, vigie_reply **out, vigie_error **err) {
  vigie_status status;
  (void)vigie_call_cancel(call, NULL);
  do {
    vigie_error_free(*err);
    status = vigie_call_wait(call, out, err);
  } while (status == VIGIE_ERR_INTERRUPTED);
  return status;
}

/* Goes on with a call while signals interrupt it. *raised: a handler has raised, the call is cancelled and over, and nothing is left. */
vigie_status call_go_on(vigie_call *call, vigie_status status, vigie_reply **out, vigie_error **err, bool *raised) {
  *raised = false;
  while (status == VIGIE_ERR_INTERRUPTED) {
    vigie_error_free(*err);
    *err = NULL;
    bool stop = PyErr_CheckSignals() < 0;
    PyThreadState *thread = PyEval_SaveThread();
    status = stop ? cancel_and_wait(call, out, err) : vigie_call_wait(call, out, err);
    PyEval_RestoreThread(thread);
    if (stop) {
      set_cause(status, *out, *err, false);
      *raised = true;
      return status;
    }
  }
  return status;
}

static int32_t drain_one(vigie_queue *queue, int64_t timeout, vigie_event *event) {
  PyThreadState *thread = PyEval_SaveThread();
  int32_t count = vigie_queue_drain(queue, timeout, event, 1);
  PyEval_RestoreThread(thread);
  return count;
}

/* The value of the one completion, with token 1, that is due on a queue of one's own. Signals end it as they end a call. */
PyObject *wait_for_completion(vigie_queue *queue, bool text) {
  bool main_thread = in_main_thread();
  vigie_event event = {0};
  for (;;) {
    int32_t count = drain_one(queue, main_thread ? SLICE_MS : VIGIE_TIMEOUT_NONE, &event);
    if (count < 0) return error_raise(count, NULL);
    if (count > 0) break;
    if (main_thread && PyErr_CheckSignals() < 0) {
      vigie_queue_cancel(queue, 1);
      while (drain_one(queue, VIGIE_TIMEOUT_NONE, &event) == 0) continue;
      set_cause(event.status, event.reply, event.error, text);
      return NULL;
    }
  }
  if (event.status != VIGIE_OK) return error_raise_text(event.status, event.error, text);
  return value_take(event.reply, text);
}
