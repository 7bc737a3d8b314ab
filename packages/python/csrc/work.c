/* Scans and lists of jobs: operations of several commands each, of which the library has forms that do not wait.
 *
 * Promises: with a queue the outcome is one completion on it; without one the function waits for it, and Ctrl-C ends the wait in the main
 * thread. Leaves to others: iteration and names (Python).
 */
#include "core.h"

/* Where an operation's completion goes. */
typedef struct {
  vigie_queue *queue;
  uint64_t token;
  bool own; /* the caller waits */
} target;

static int target_from(target *out, PyObject *queue, unsigned long long token) {
  out->own = queue == Py_None;
  out->token = out->own ? 1 : token;
  if (!out->own && !Py_IS_TYPE(queue, type_queue)) {
    PyErr_SetString(PyExc_TypeError, "the queue is a Queue, or None to wait");
    return -1;
  }
  out->queue = out->own ? private_queue_take() : ((queue_object *)queue)->queue;
  return out->queue == NULL ? -1 : 0;
}

static PyObject *target_outcome(target *it, vigie_status status, vigie_error *error, bool text) {
  PyObject *result;
  if (status != VIGIE_OK) result = error_raise(status, error);
  else if (it->own) result = wait_for_completion(it->queue, text);
  else result = Py_NewRef(Py_None);
  if (it->own) private_queue_put(it->queue);
  return result;
}

/* ---- scans ---- */

typedef struct {
  PyObject_HEAD
  vigie_scan *scan;
  bool text;
} scan_object;

static int scan_init(scan_object *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
  PyObject *link, *sequence, *fast;
  unsigned restarts;
  command it;
  if (!PyArg_ParseTuple(args, "O!OI", type_link, &link, &sequence, &restarts)) return -1;
  if (self->scan != NULL || command_from_sequence(&it, sequence, &fast) < 0) return -1;
  vigie_error *error = NULL;
  self->text = ((link_object *)link)->text;
  vigie_status status = vigie_scan_for(((link_object *)link)->client, it.count, it.argv, it.lengths, restarts, &self->scan, &error);
  command_clear(&it);
  Py_DECREF(fast);
  if (status == VIGIE_OK) return 0;
  error_raise(status, error);
  return -1;
}

/* next(timeout, queue, token): the next page; None at the end. */
static PyObject *scan_next(scan_object *self, PyObject *args) {
  PyObject *seconds, *queue = Py_None;
  unsigned long long token = 1;
  target to;
  bool ok;
  if (!PyArg_ParseTuple(args, "O|OK", &seconds, &queue, &token)) return NULL;
  int64_t timeout = timeout_or_default(seconds, &ok);
  if (!ok || target_from(&to, queue, token) < 0) return NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_scan_submit(self->scan, timeout, to.queue, to.token, &error);
  return target_outcome(&to, status, error, self->text);
}

static PyObject *scan_restarts(scan_object *self, void *Py_UNUSED(closure)) {
  return PyLong_FromUnsignedLong(vigie_scan_restarts(self->scan));
}

static void scan_dealloc(scan_object *self) {
  vigie_scan_free(self->scan);
  core_dealloc((PyObject *)self);
}

static PyMethodDef scan_methods[] = {
    {"next", (PyCFunction)scan_next, METH_VARARGS, "next(timeout, queue=None, token=1): the next page, None at the end."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef scan_fields[] = {
    {"restarts", (getter)scan_restarts, NULL, "How often the scan has begun anew.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot scan_slots[] = {
    {Py_tp_doc, "A scan: Scan(link, args, max_restarts)."}, {Py_tp_init, scan_init},       {Py_tp_methods, scan_methods},
    {Py_tp_getset, scan_fields},                            {Py_tp_dealloc, scan_dealloc}, {0, NULL},
};
static PyType_Spec scan_spec = {"vigie_redis._core.Scan", sizeof(scan_object), 0, Py_TPFLAGS_DEFAULT, scan_slots};
PyTypeObject *type_scan;

/* ---- jobs ---- */

typedef struct {
  PyObject_HEAD
  vigie_jobs *jobs;
  bool text;
} jobs_object;

static int jobs_init(jobs_object *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
  PyObject *link, *lease;
  const char *name, *worker;
  bool ok;
  if (!PyArg_ParseTuple(args, "O!szO", type_link, &link, &name, &worker, &lease)) return -1;
  int64_t lease_ms = timeout_or_default(lease, &ok);
  if (!ok || self->jobs != NULL) return -1;
  vigie_error *error = NULL;
  self->text = ((link_object *)link)->text;
  vigie_status status = vigie_jobs_for(((link_object *)link)->client, name, worker, lease_ms, &self->jobs, &error);
  if (status == VIGIE_OK) return 0;
  error_raise(status, error);
  return -1;
}

static vigie_status jobs_submit(vigie_jobs *jobs, const char *what, const char *id, int64_t timeout, const target *to, vigie_error **error) {
  if (strcmp(what, "take") == 0) return vigie_jobs_take_submit(jobs, timeout, to->queue, to->token, error);
  if (strcmp(what, "ack") == 0) return vigie_jobs_ack_submit(jobs, id, timeout, to->queue, to->token, error);
  if (strcmp(what, "return") == 0) return vigie_jobs_return_submit(jobs, id, timeout, to->queue, to->token, error);
  if (strcmp(what, "renew") == 0) return vigie_jobs_renew_submit(jobs, timeout, to->queue, to->token, error);
  return vigie_jobs_close_submit(jobs, timeout, to->queue, to->token, error);
}

/* run(what, id, timeout, queue, token): take, ack, return, renew or close. */
static PyObject *jobs_run(jobs_object *self, PyObject *args) {
  const char *what, *id;
  PyObject *seconds, *queue = Py_None;
  unsigned long long token = 1;
  target to;
  bool ok;
  if (!PyArg_ParseTuple(args, "szO|OK", &what, &id, &seconds, &queue, &token)) return NULL;
  int64_t timeout = timeout_or_default(seconds, &ok);
  if (!ok || target_from(&to, queue, token) < 0) return NULL;
  vigie_error *error = NULL;
  vigie_status status = jobs_submit(self->jobs, what, id, timeout, &to, &error);
  return target_outcome(&to, status, error, self->text);
}

static PyObject *jobs_stop(jobs_object *self, PyObject *Py_UNUSED(none)) {
  vigie_error *error = NULL;
  vigie_status status = vigie_jobs_stop(self->jobs, &error);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static PyObject *jobs_limit(jobs_object *self, PyObject *count) {
  unsigned long number = PyLong_AsUnsignedLong(count);
  if (PyErr_Occurred()) return NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_jobs_limit_deliveries(self->jobs, (uint32_t)number, &error);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static void jobs_dealloc(jobs_object *self) {
  vigie_jobs_free(self->jobs);
  core_dealloc((PyObject *)self);
}

static PyMethodDef jobs_methods[] = {
    {"run", (PyCFunction)jobs_run, METH_VARARGS, "run(what, id, timeout, queue=None, token=1)"},
    {"stop", (PyCFunction)jobs_stop, METH_NOARGS, "Ends the take under way and all later ones."},
    {"limit", (PyCFunction)jobs_limit, METH_O, "Puts jobs aside that were handed out so often."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot jobs_slots[] = {
    {Py_tp_doc, "A worker of a list of jobs: Jobs(link, name, worker, lease)."},
    {Py_tp_init, jobs_init},
    {Py_tp_methods, jobs_methods},
    {Py_tp_dealloc, jobs_dealloc},
    {0, NULL},
};
static PyType_Spec jobs_spec = {"vigie_redis._core.Jobs", sizeof(jobs_object), 0, Py_TPFLAGS_DEFAULT, jobs_slots};
PyTypeObject *type_jobs;

/* push(link, name, id, payload, timeout, queue, token): the length of the list. */
static PyObject *push(PyObject *Py_UNUSED(module), PyObject *args) {
  PyObject *link, *payload, *seconds, *queue = Py_None;
  const char *name, *id;
  unsigned long long token = 1;
  target to;
  bool ok;
  command it;
  if (!PyArg_ParseTuple(args, "O!szOO|OK", type_link, &link, &name, &id, &payload, &seconds, &queue, &token)) return NULL;
  int64_t timeout = timeout_or_default(seconds, &ok);
  if (!ok || command_from(&it, &payload, 1) < 0) return NULL;
  PyObject *result = NULL;
  if (target_from(&to, queue, token) == 0) {
    vigie_error *error = NULL;
    vigie_status status = vigie_jobs_push_submit(((link_object *)link)->client, name, id, it.argv[0], it.lengths[0], timeout, to.queue,
                                                 to.token, &error);
    result = target_outcome(&to, status, error, ((link_object *)link)->text);
  }
  command_clear(&it);
  return result;
}

static PyMethodDef functions[] = {
    {"push_job", push, METH_VARARGS, "push_job(link, name, id, payload, timeout, queue=None, token=1)"},
    {NULL, NULL, 0, NULL},
};

int work_register(PyObject *module) {
  if ((type_scan = core_type(module, &scan_spec)) == NULL || (type_jobs = core_type(module, &jobs_spec)) == NULL) return -1;
  return PyModule_AddFunctions(module, functions);
}
