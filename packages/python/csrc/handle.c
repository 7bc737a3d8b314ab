/* The Sentinels of a deployment: settings, topology, administration, watching.
 *
 * Promises: the interpreter is free while a function waits. Leaves to others: clients (link.c), taking events (queue.c).
 */
#include "core.h"

static vigie_sentinel *own(handle_object *self) {
  if (self->sentinel == NULL) PyErr_SetString(PyExc_ValueError, "Handle.__init__ was not called");
  return self->sentinel;
}

static int init(handle_object *self, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"options", "timeout", NULL};
  PyObject *options, *seconds = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|O", names, &PyDict_Type, &options, &seconds)) return -1;
  bool ok;
  int64_t timeout = timeout_or_default(seconds, &ok);
  vigie_config *config = ok && self->sentinel == NULL ? config_from(options) : NULL;
  if (config == NULL) return -1;
  vigie_error *error = NULL;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = vigie_sentinel_create(config, timeout, &self->sentinel, &error);
  vigie_config_free(config);
  PyEval_RestoreThread(thread);
  if (status == VIGIE_OK) return 0;
  error_raise(status, error);
  return -1;
}

/* What the functions that only look have in common. */
static PyObject *looked(vigie_status status, vigie_reply *reply, vigie_error *error) {
  return status == VIGIE_OK ? value_take(reply, true) : error_raise_text(status, error, true);
}

static PyObject *topology(handle_object *self, PyObject *args) {
  const char *service = NULL;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "|z", &service)) return NULL;
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_topology(self->sentinel, service, &reply, &error);
  return looked(status, reply, error);
}

static PyObject *refresh(handle_object *self, PyObject *args) {
  const char *service = NULL;
  PyObject *seconds = Py_None;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "|zO", &service, &seconds)) return NULL;
  bool ok;
  int64_t timeout = timeout_or_default(seconds, &ok);
  if (!ok) return NULL;
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = vigie_sentinel_refresh(self->sentinel, service, timeout, &reply, &error);
  PyEval_RestoreThread(thread);
  return looked(status, reply, error);
}

static PyObject *stats(handle_object *self, PyObject *Py_UNUSED(none)) {
  if (own(self) == NULL) return NULL;
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_stats(self->sentinel, &reply, &error);
  return looked(status, reply, error);
}

static PyObject *metrics(handle_object *self, PyObject *args) {
  int open = 0;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "|p", &open)) return NULL;
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_metrics(self->sentinel, open ? VIGIE_METRICS_OPENMETRICS : 0, &reply, &error);
  return looked(status, reply, error);
}

/* Submits an administration command: at one address, at all of them, or at the first that answers. */
static vigie_status admin_submit(handle_object *self, const command *it, const char *at, unsigned flags, int64_t timeout, vigie_queue *queue,
                                 uint64_t token, vigie_error **error) {
  if (at != NULL) {
    return vigie_sentinel_submit_at(self->sentinel, at, it->count, it->argv, it->lengths, flags, timeout, queue, token, error);
  }
  return vigie_sentinel_submit(self->sentinel, it->count, it->argv, it->lengths, flags, timeout, queue, token, error);
}

/* admin(args, at, flags, timeout, queue=None, token=0): without a queue it waits. */
static PyObject *admin(handle_object *self, PyObject *args) {
  PyObject *sequence, *seconds, *target = Py_None, *fast;
  const char *at;
  unsigned flags;
  unsigned long long token = 1;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "OzIO|OK", &sequence, &at, &flags, &seconds, &target, &token)) return NULL;
  bool ok;
  int64_t timeout = timeout_or_default(seconds, &ok);
  command it;
  if (!ok || command_from_sequence(&it, sequence, &fast) < 0) return NULL;
  vigie_queue *queue = target == Py_None ? private_queue_take() : ((queue_object *)target)->queue;
  PyObject *result = NULL;
  if (queue != NULL) {
    vigie_error *error = NULL;
    vigie_status status = admin_submit(self, &it, at, flags, timeout, queue, token, &error);
    if (status != VIGIE_OK) error_raise(status, error);
    else if (target == Py_None) result = wait_for_completion(queue, true);
    else result = Py_NewRef(Py_None);
    if (target == Py_None) private_queue_put(queue);
  }
  command_clear(&it);
  Py_DECREF(fast);
  return result;
}

static PyObject *services(handle_object *self, PyObject *args) {
  int follow;
  PyObject *seconds;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "pO", &follow, &seconds)) return NULL;
  bool ok;
  int64_t timeout = timeout_or_default(seconds, &ok);
  vigie_queue *queue = ok ? private_queue_take() : NULL;
  if (queue == NULL) return NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_services_submit(self->sentinel, follow ? VIGIE_SERVICES_FOLLOW : 0, timeout, queue, 1, &error);
  PyObject *result = status == VIGIE_OK ? wait_for_completion(queue, true) : error_raise(status, error);
  private_queue_put(queue);
  return result;
}

static PyObject *watch(handle_object *self, PyObject *args) {
  PyObject *queue;
  unsigned kinds;
  unsigned long long token;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "O!IK", type_queue, &queue, &kinds, &token)) return NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_watch(self->sentinel, kinds, ((queue_object *)queue)->queue, token, &error);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static PyObject *configure(handle_object *self, PyObject *args) {
  PyObject *options;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "O!", &PyDict_Type, &options)) return NULL;
  vigie_config *config = config_from(options);
  if (config == NULL) return NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_sentinel_configure_all(self->sentinel, config, &error);
  vigie_config_free(config);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static PyObject *close_handle(handle_object *self, PyObject *args) {
  PyObject *seconds = Py_None;
  if (own(self) == NULL || !PyArg_ParseTuple(args, "|O", &seconds)) return NULL;
  bool ok;
  int64_t timeout = timeout_or_default(seconds, &ok);
  if (!ok) return NULL;
  vigie_error *error = NULL;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = vigie_sentinel_close(self->sentinel, timeout, &error);
  PyEval_RestoreThread(thread);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static void dealloc(handle_object *self) {
  vigie_sentinel_free(self->sentinel);
  core_dealloc((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"topology", (PyCFunction)topology, METH_VARARGS, "What is known now of a service, or of all."},
    {"refresh", (PyCFunction)refresh, METH_VARARGS, "Asks the Sentinels now."},
    {"stats", (PyCFunction)stats, METH_NOARGS, "What the handle and its clients have done."},
    {"metrics", (PyCFunction)metrics, METH_VARARGS, "The figures as text for Prometheus."},
    {"admin", (PyCFunction)admin, METH_VARARGS, "Runs a command at a Sentinel."},
    {"services", (PyCFunction)services, METH_VARARGS, "All services that the Sentinels watch."},
    {"watch", (PyCFunction)watch, METH_VARARGS, "Sends events of these kinds to a queue."},
    {"configure", (PyCFunction)configure, METH_VARARGS, "Changes options while the handle is open."},
    {"close", (PyCFunction)close_handle, METH_VARARGS, "Closes the handle and its clients."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The Sentinels of a deployment: Handle(options, timeout=None)."},
    {Py_tp_init, init},
    {Py_tp_methods, methods},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {"vigie_redis._core.Handle", sizeof(handle_object), 0, Py_TPFLAGS_DEFAULT, slots};
PyTypeObject *type_handle;

int handle_register(PyObject *module) { return (type_handle = core_type(module, &spec)) == NULL ? -1 : 0; }
