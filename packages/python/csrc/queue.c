/* Queues: completions, messages of subscriptions, events of a watch; and subscriptions, which speak through a queue.
 *
 * Promises: each event is decoded in one pass and freed; a batch costs one call of the library. Leaves to others: the event loop (_aio.py).
 */
#include "core.h"

enum { BATCH = 64 };

static PyObject *name_pop, *name_set_result, *name_set_exception;

static int queue_init(queue_object *self, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"capacity", "text", NULL};
  unsigned long capacity;
  int text;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "kp", names, &capacity, &text)) return -1;
  vigie_error *error = NULL;
  self->text = text;
  vigie_status status = self->queue == NULL ? vigie_queue_create(capacity, &self->queue, &error) : VIGIE_ERR_INVALID_STATE;
  if (status == VIGIE_OK) return 0;
  error_raise(status, error);
  return -1;
}

static PyObject *value_of_event(const vigie_event *event, bool text) {
  if (event->node_count == 0) Py_RETURN_NONE;
  tree it = {event->nodes, event->node_count, event->data, text};
  return value_at(&it, 0);
}

/* The error of an event as an exception; the event does not own it afterwards. */
static PyObject *error_of_event(vigie_event *event, bool text) {
  vigie_error *error = event->error;
  event->error = NULL;
  return error_take(event->status, error, text);
}

/* (kind, token, error or None, value or None) */
static PyObject *event_as_tuple(vigie_event *event, bool text) {
  PyObject *error = event->status == VIGIE_OK ? Py_NewRef(Py_None) : error_of_event(event, text);
  PyObject *value = error == NULL ? NULL : value_of_event(event, text);
  if (value == NULL) {
    Py_XDECREF(error);
    return NULL;
  }
  return Py_BuildValue("IKNN", (unsigned)event->kind, (unsigned long long)event->token, error, value);
}

static int append_events(PyObject *list, vigie_event *events, int32_t count, bool text) {
  for (int32_t i = 0; i < count; i++) {
    PyObject *item = event_as_tuple(&events[i], text);
    int status = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    if (status < 0) return -1;
  }
  return 0;
}

/* Waits in slices in the main thread, so that Ctrl-C ends the wait. */
static int32_t drain_patiently(queue_object *self, int64_t timeout, vigie_event *events) {
  bool slices = in_main_thread() && timeout > 100;
  int64_t left = timeout;
  for (;;) {
    int64_t now = slices && left > 100 ? 100 : left;
    PyThreadState *thread = PyEval_SaveThread();
    int32_t count = vigie_queue_drain(self->queue, now, events, BATCH);
    PyEval_RestoreThread(thread);
    if (count != 0 || !slices) return count;
    if (PyErr_CheckSignals() < 0) return -1;
    if (left != VIGIE_TIMEOUT_NONE && (left -= now) <= 0) return 0;
  }
}

/* drain(timeout): a list of events; it is empty when the time is over, and after wakeup(). */
static PyObject *drain(queue_object *self, PyObject *seconds) {
  bool ok;
  int64_t timeout = seconds == Py_None ? VIGIE_TIMEOUT_NONE : timeout_from(seconds, &ok);
  if (seconds != Py_None && !ok) return NULL;
  vigie_event events[BATCH];
  int32_t count = drain_patiently(self, timeout, events);
  if (count < 0) return PyErr_Occurred() ? NULL : error_raise(count, NULL);
  PyObject *list = PyList_New(0);
  if (list != NULL && append_events(list, events, count, self->text) < 0) Py_CLEAR(list);
  vigie_events_clear(events, (size_t)count);
  return list;
}

/* The exception that is set, which is so no longer. */
static PyObject *exception_taken(void) {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return value;
}

/* Settles the future of one completion, unless it is gone. A reply that cannot be decoded is the error of its own future alone. */
static void settle(PyObject *futures, vigie_event *event, bool text) {
  PyObject *token = PyLong_FromUnsignedLongLong(event->token);
  PyObject *future = token == NULL ? NULL : PyObject_CallMethodObjArgs(futures, name_pop, token, Py_None, NULL);
  Py_XDECREF(token);
  if (future == NULL) PyErr_WriteUnraisable(futures);
  if (future == NULL || future == Py_None) {
    Py_XDECREF(future);
    return;
  }
  bool failed = event->status != VIGIE_OK;
  PyObject *value = failed ? error_of_event(event, text) : value_of_event(event, text);
  if (value == NULL) {
    value = exception_taken();
    failed = true;
  }
  PyObject *result = PyObject_CallMethodObjArgs(future, failed ? name_set_exception : name_set_result, value, NULL);
  if (result == NULL) PyErr_WriteUnraisable(future);
  Py_XDECREF(value);
  Py_XDECREF(result);
  Py_DECREF(future);
}

/* settle(futures): gives each completion that is there to the future with its token. How many there were, at most 64. */
static PyObject *settle_all(queue_object *self, PyObject *futures) {
  vigie_event events[BATCH];
  int32_t count = vigie_queue_drain(self->queue, 0, events, BATCH);
  if (count < 0) return error_raise(count, NULL);
  for (int32_t i = 0; i < count; i++) settle(futures, &events[i], self->text);
  vigie_events_clear(events, (size_t)count);
  return PyLong_FromLong(count);
}

static PyObject *cancel(queue_object *self, PyObject *token) {
  unsigned long long number = PyLong_AsUnsignedLongLong(token);
  if (number == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
  return PyLong_FromSize_t(vigie_queue_cancel(self->queue, number));
}

static PyObject *wakeup(queue_object *self, PyObject *Py_UNUSED(none)) {
  vigie_queue_wakeup(self->queue);
  Py_RETURN_NONE;
}

static PyObject *number_of(queue_object *self, PyObject *Py_UNUSED(none)) { return PyLong_FromLong(vigie_queue_fd(self->queue)); }

static void queue_dealloc(queue_object *self) {
  vigie_queue_free(self->queue);
  core_dealloc((PyObject *)self);
}

static PyMethodDef queue_methods[] = {
    {"drain", (PyCFunction)drain, METH_O, "drain(timeout): events, waiting so many seconds for the first; None: without a limit."},
    {"settle", (PyCFunction)settle_all, METH_O, "settle(futures): hands completions to futures by their tokens."},
    {"cancel", (PyCFunction)cancel, METH_O, "cancel(token): ends the calls with this token; their completions still come."},
    {"wakeup", (PyCFunction)wakeup, METH_NOARGS, "Makes one drain return."},
    {"fileno", (PyCFunction)number_of, METH_NOARGS, "The descriptor to poll for reading."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "A queue of events: Queue(capacity, text)."},
    {Py_tp_init, queue_init},
    {Py_tp_methods, queue_methods},
    {Py_tp_dealloc, queue_dealloc},
    {0, NULL},
};

static PyType_Spec queue_spec = {"vigie_redis._core.Queue", sizeof(queue_object), 0, Py_TPFLAGS_DEFAULT, queue_slots};
PyTypeObject *type_queue;

int queue_register(PyObject *module) {
  name_pop = PyUnicode_InternFromString("pop");
  name_set_result = PyUnicode_InternFromString("set_result");
  name_set_exception = PyUnicode_InternFromString("set_exception");
  if (name_pop == NULL || name_set_result == NULL || name_set_exception == NULL) return -1;
  return (type_queue = core_type(module, &queue_spec)) == NULL ? -1 : 0;
}

/* ---- subscriptions ---- */

typedef struct {
  PyObject_HEAD
  vigie_sub *sub;
} sub_object;

static int sub_init(sub_object *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
  PyObject *link, *queue, *overrides;
  unsigned long long token;
  if (!PyArg_ParseTuple(args, "O!O!KO!", type_link, &link, type_queue, &queue, &token, &PyDict_Type, &overrides)) return -1;
  vigie_config *config = config_from(overrides);
  if (config == NULL) return -1;
  vigie_error *error = NULL;
  vigie_status status = self->sub == NULL ? vigie_sub_for(((link_object *)link)->client, ((queue_object *)queue)->queue, token, config,
                                                          &self->sub, &error)
                                          : VIGIE_ERR_INVALID_STATE;
  vigie_config_free(config);
  if (status == VIGIE_OK) return 0;
  error_raise(status, error);
  return -1;
}

/* exec(*args): notes the wish; the answers come on the queue. */
static PyObject *sub_exec(sub_object *self, PyObject *const *args, Py_ssize_t count) {
  command it;
  if (command_from(&it, args, count) < 0) return NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sub_exec(self->sub, it.count, it.argv, it.lengths, 0, &error);
  command_clear(&it);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static PyObject *sub_close(sub_object *self, PyObject *Py_UNUSED(none)) {
  vigie_sub_free(self->sub);
  self->sub = NULL;
  Py_RETURN_NONE;
}

static void sub_dealloc(sub_object *self) {
  vigie_sub_free(self->sub);
  core_dealloc((PyObject *)self);
}

static PyMethodDef sub_methods[] = {
    METHOD_FAST("exec", sub_exec, "exec(*args): changes what is listened to."),
    {"close", (PyCFunction)sub_close, METH_NOARGS, "Ends the subscription."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sub_slots[] = {
    {Py_tp_doc, "A subscription: Sub(link, queue, token, overrides)."},
    {Py_tp_init, sub_init},
    {Py_tp_methods, sub_methods},
    {Py_tp_dealloc, sub_dealloc},
    {0, NULL},
};

static PyType_Spec sub_spec = {"vigie_redis._core.Sub", sizeof(sub_object), 0, Py_TPFLAGS_DEFAULT, sub_slots};
PyTypeObject *type_sub;

int sub_register(PyObject *module) { return (type_sub = core_type(module, &sub_spec)) == NULL ? -1 : 0; }
