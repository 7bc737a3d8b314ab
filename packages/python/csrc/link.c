/* Clients and sessions: calls, lists, submits.
 *
 * Promises: the interpreter is free while a call waits; Ctrl-C ends it in the main thread; the hook is told of each call and list that was
 * waited for. Nothing is sent again from here: the library does that where it is right. Leaves to others: names and comfort (Python).
 */
#include "core.h"

#include <strings.h>
#include <time.h>

/* How a call is to be run. */
typedef struct {
  int64_t timeout;
  uint32_t flags;
  bool text;
} manner;

static int set_flag(manner *how, uint32_t flag, PyObject *value, bool wanted) {
  int truth = PyObject_IsTrue(value);
  if (truth < 0) return -1;
  if ((truth != 0) == wanted) how->flags |= flag;
  return 0;
}

static int set_replicas(manner *how, PyObject *value) {
  long count = PyLong_AsLong(value);
  if (count == -1 && PyErr_Occurred()) return -1;
  how->flags |= VIGIE_CALL_REPLICAS(count < 0 ? 256 : count);
  return 0;
}

static int set_keyword(manner *how, PyObject *name, PyObject *value) {
  bool ok = true;
  if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
    how->timeout = timeout_or_default(value, &ok);
    return ok ? 0 : -1;
  }
  if (PyUnicode_CompareWithASCIIString(name, "decode") == 0) {
    if (value != Py_None) how->text = PyObject_IsTrue(value) == 1;
    return 0;
  }
  if (PyUnicode_CompareWithASCIIString(name, "idempotent") == 0) return set_flag(how, VIGIE_CALL_IDEMPOTENT, value, true);
  if (PyUnicode_CompareWithASCIIString(name, "retry") == 0) return set_flag(how, VIGIE_CALL_NO_RETRY, value, false);
  if (PyUnicode_CompareWithASCIIString(name, "on_primary") == 0) return set_flag(how, VIGIE_CALL_ON_PRIMARY, value, true);
  if (PyUnicode_CompareWithASCIIString(name, "slow") == 0) return set_flag(how, VIGIE_CALL_SLOW, value, true);
  if (PyUnicode_CompareWithASCIIString(name, "typed") == 0) return set_flag(how, VIGIE_CALL_TYPED, value, true);
  if (PyUnicode_CompareWithASCIIString(name, "replicas") == 0) return set_replicas(how, value);
  PyErr_Format(PyExc_TypeError, "call() has no keyword %R: timeout, decode, idempotent, retry, on_primary, slow, typed, replicas", name);
  return -1;
}

static int manner_from(manner *how, const link_object *self, PyObject *const *values, PyObject *names) {
  how->timeout = VIGIE_TIMEOUT_DEFAULT;
  how->flags = 0;
  how->text = self->text;
  if (self->client == NULL) {
    PyErr_SetString(PyExc_ValueError, "the client was not opened: its __init__ was not called");
    return -1;
  }
  Py_ssize_t count = names == NULL ? 0 : PyTuple_Size(names);
  for (Py_ssize_t i = 0; i < count; i++) {
    if (set_keyword(how, PyTuple_GetItem(names, i), values[i]) < 0) return -1;
  }
  return 0;
}

/* One run of a call or a list, and the hook that is told of it. */
typedef struct {
  PyObject *hook;   /* NULL: nobody */
  vigie_call *call; /* NULL: the wait cannot be interrupted */
  struct timespec begin;
} run;

/* A session gets a call handle only where the wait may be long: it would not give its connection back afterwards. */
static run run_begin(const link_object *self, bool may_block) {
  run it = {Py_XNewRef(self->hook), NULL, {0, 0}};
  bool wanted = self->session ? may_block && in_main_thread() : it.hook != NULL || in_main_thread();
  if (wanted) it.call = call_handle_take();
  if (it.hook != NULL) clock_gettime(CLOCK_MONOTONIC, &it.begin);
  return it;
}

static void run_end(run *it) {
  call_handle_put(it->call);
  Py_XDECREF(it->hook);
}

/* The node of the last attempt, or NULL. */
static PyObject *endpoint_of(const vigie_call *call) {
  vigie_reply *times = NULL;
  if (call == NULL || vigie_call_times(call, &times, NULL) != VIGIE_OK) return NULL;
  const char *text = vigie_reply_bytes(times, vigie_reply_find(times, VIGIE_ROOT, "endpoint", 8), NULL);
  PyObject *endpoint = text == NULL ? NULL : PyUnicode_FromString(text);
  vigie_reply_free(times);
  return endpoint;
}

/* Calls the hook; what it raises is reported, and does not become the outcome of a call that has run. */
static void tell_hook(const run *it, PyObject *name, PyObject *error) {
  PyObject *hook = it->hook, *endpoint = endpoint_of(it->call);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double seconds = (double)(now.tv_sec - it->begin.tv_sec) + (double)(now.tv_nsec - it->begin.tv_nsec) / 1e9;
  PyObject *result = PyObject_CallFunction(hook, "OOdO", name, endpoint == NULL ? Py_None : endpoint, seconds, error);
  if (result == NULL) PyErr_WriteUnraisable(hook);
  Py_XDECREF(result);
  Py_XDECREF(endpoint);
}

/* The outcome of a run as a value or an exception, and the hook is told. */
static PyObject *outcome(const run *it, PyObject *name, vigie_status status, vigie_reply *reply, vigie_error *error, bool text) {
  if (name == NULL) {
    PyErr_Clear();
    return status == VIGIE_OK ? value_take(reply, text) : error_raise_text(status, error, text);
  }
  PyObject *value = status == VIGIE_OK ? value_take(reply, text) : error_take(status, error, text);
  if (value == NULL) return NULL;
  tell_hook(it, name, status == VIGIE_OK ? Py_None : value);
  if (status == VIGIE_OK) return value;
  PyErr_SetObject((PyObject *)Py_TYPE(value), value);
  Py_DECREF(value);
  return NULL;
}

/* Whether a command may wait at the server, as far as its first letters tell; a session that is wrong about it opens one connection more. */
static bool may_block(const command *it) {
  static const char *const heads[] = {"b", "xread", "wait"};
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    size_t len = strlen(heads[i]);
    if (it->lengths[0] >= len && strncasecmp(it->argv[0], heads[i], len) == 0) return true;
  }
  return false;
}

static vigie_status exec_command(const link_object *self, const run *now, const command *it, const manner *how, vigie_reply **reply,
                                 vigie_error **error) {
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status =
      now->call == NULL ? vigie_cmd_exec(self->client, it->count, it->argv, it->lengths, how->flags, how->timeout, reply, error)
                        : vigie_call_cmd_exec(now->call, self->client, it->count, it->argv, it->lengths, how->flags, how->timeout, reply,
                                              error);
  PyEval_RestoreThread(thread);
  return status;
}

static PyObject *call(link_object *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  manner how;
  command it;
  if (manner_from(&how, self, args + count, names) < 0 || command_from(&it, args, count) < 0) return NULL;
  run now = run_begin(self, may_block(&it) || how.timeout == VIGIE_TIMEOUT_NONE);
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  bool raised = false;
  vigie_status status = exec_command(self, &now, &it, &how, &reply, &error);
  if (status == VIGIE_ERR_INTERRUPTED) status = call_go_on(now.call, status, &reply, &error, &raised);
  PyObject *name = NULL, *result = NULL;
  if (now.hook != NULL && !raised) name = PyUnicode_DecodeUTF8(it.argv[0], (Py_ssize_t)it.lengths[0], "replace");
  if (!raised) result = outcome(&now, name, status, reply, error, how.text);
  Py_XDECREF(name);
  command_clear(&it);
  run_end(&now);
  return result;
}

static PyObject *run_batch(link_object *self, const batch_object *batch, const manner *how) {
  run now = run_begin(self, how->timeout == VIGIE_TIMEOUT_NONE);
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  bool raised = false;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status =
      now.call == NULL ? vigie_cmds_exec(self->client, batch->data, batch->len, how->flags, how->timeout, &reply, &error)
                       : vigie_call_cmds_exec(now.call, self->client, batch->data, batch->len, how->flags, how->timeout, &reply, &error);
  PyEval_RestoreThread(thread);
  if (status == VIGIE_ERR_INTERRUPTED) status = call_go_on(now.call, status, &reply, &error, &raised);
  PyObject *name = NULL, *result = NULL;
  if (now.hook != NULL && !raised) name = PyUnicode_FromString(how->flags & VIGIE_CALL_ATOMIC ? "MULTI" : "PIPELINE");
  if (!raised) result = outcome(&now, name, status, reply, error, how->text);
  Py_XDECREF(name);
  run_end(&now);
  return result;
}

/* calls(commands, atomic, **manner): one list. */
static PyObject *calls(link_object *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  manner how;
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "calls() takes the commands and whether they are one transaction");
    return NULL;
  }
  if (manner_from(&how, self, args + count, names) < 0 || set_flag(&how, VIGIE_CALL_ATOMIC, args[1], true) < 0) return NULL;
  PyObject *batch = batch_from(args[0]);
  if (batch == NULL) return NULL;
  PyObject *result = run_batch(self, (batch_object *)batch, &how);
  Py_DECREF(batch);
  return result;
}

static int unsigned_from(PyObject *value, unsigned long long *out) {
  *out = PyLong_AsUnsignedLongLong(value);
  return *out == (unsigned long long)-1 && PyErr_Occurred() ? -1 : 0;
}

/* submit(batch, queue, token, flags, timeout): None; the completions come on the queue. */
static PyObject *submit(link_object *self, PyObject *const *args, Py_ssize_t count) {
  manner how;
  unsigned long long token, flags;
  bool ok;
  if (count != 5 || !Py_IS_TYPE(args[0], type_batch) || !Py_IS_TYPE(args[1], type_queue)) {
    PyErr_SetString(PyExc_TypeError, "submit(batch, queue, token, flags, timeout)");
    return NULL;
  }
  if (manner_from(&how, self, NULL, NULL) < 0 || unsigned_from(args[2], &token) < 0 || unsigned_from(args[3], &flags) < 0) return NULL;
  int64_t timeout = timeout_or_default(args[4], &ok);
  if (!ok) return NULL;
  batch_object *batch = (batch_object *)args[0];
  vigie_error *error = NULL;
  vigie_status status =
      vigie_cmds_submit(self->client, batch->data, batch->len, (uint32_t)flags, timeout, ((queue_object *)args[1])->queue, token, &error);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

/* flags(**manner): the flags that these keywords stand for, and the timeout and the form of texts. */
static PyObject *flags_of(link_object *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
  manner how;
  if (manner_from(&how, self, args + count, names) < 0) return NULL;
  return PyLong_FromUnsignedLong(how.flags);
}

static PyObject *looked(vigie_status status, vigie_reply *reply, vigie_error *error) {
  return status == VIGIE_OK ? value_take(reply, true) : error_raise_text(status, error, true);
}

static PyObject *topology(link_object *self, PyObject *Py_UNUSED(none)) {
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_client_topology(self->client, &reply, &error);
  return looked(status, reply, error);
}

static PyObject *stats(link_object *self, PyObject *Py_UNUSED(none)) {
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_client_stats(self->client, &reply, &error);
  return looked(status, reply, error);
}

static PyObject *metrics(link_object *self, PyObject *const *args, Py_ssize_t count) {
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  uint32_t flags = count > 0 && PyObject_IsTrue(args[0]) == 1 ? VIGIE_METRICS_OPENMETRICS : 0;
  vigie_status status = vigie_client_metrics(self->client, flags, &reply, &error);
  return looked(status, reply, error);
}

static PyObject *disconnect(link_object *self, PyObject *Py_UNUSED(none)) {
  vigie_error *error = NULL;
  vigie_status status = vigie_client_disconnect(self->client, &error);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static PyObject *close_link(link_object *self, PyObject *const *args, Py_ssize_t count) {
  bool ok;
  int64_t timeout = timeout_or_default(count > 0 ? args[0] : NULL, &ok);
  if (!ok) return NULL;
  if (self->client == NULL) Py_RETURN_NONE;
  vigie_error *error = NULL;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = vigie_client_close(self->client, timeout, &error);
  PyEval_RestoreThread(thread);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

static PyObject *is_closed(link_object *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(vigie_client_is_closed(self->client)); }

static PyObject *get_text(link_object *self, void *Py_UNUSED(closure)) { return PyBool_FromLong(self->text); }

static PyObject *get_hook(link_object *self, void *Py_UNUSED(closure)) { return Py_NewRef(self->hook == NULL ? Py_None : self->hook); }

static int set_hook(link_object *self, PyObject *value, void *Py_UNUSED(closure)) {
  PyObject *before = self->hook;
  if (value != NULL && value != Py_None && !PyCallable_Check(value)) {
    PyErr_SetString(PyExc_TypeError, "a hook is called with (name, endpoint, seconds, error); None takes it away");
    return -1;
  }
  self->hook = value == NULL || value == Py_None ? NULL : Py_NewRef(value);
  Py_XDECREF(before);
  return 0;
}

static PyObject *shard_of(link_object *self, PyObject *key) {
  command it;
  if (command_from(&it, &key, 1) < 0) return NULL;
  int32_t index = vigie_client_shard_of(self->client, it.argv[0], it.lengths[0]);
  command_clear(&it);
  return PyLong_FromLong(index);
}

/* The texts of a list of str; the list keeps them alive. NULL with an exception. */
static const char **texts_of(PyObject *list, size_t *count) {
  *count = (size_t)PyList_Size(list);
  const char **texts = PyMem_Calloc(*count + 1, sizeof(char *));
  for (size_t i = 0; texts != NULL && i < *count; i++) {
    texts[i] = PyUnicode_AsUTF8AndSize(PyList_GetItem(list, (Py_ssize_t)i), NULL);
    if (texts[i] == NULL) {
      PyMem_Free(texts);
      return NULL;
    }
  }
  if (texts == NULL) PyErr_NoMemory();
  return texts;
}

static PyObject *shards_set(link_object *self, PyObject *list) {
  size_t count;
  if (!PyList_Check(list)) {
    PyErr_SetString(PyExc_TypeError, "the shards are a list of str");
    return NULL;
  }
  const char **texts = texts_of(list, &count);
  if (texts == NULL) return NULL;
  vigie_error *error = NULL;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = vigie_shards_set(self->client, texts, count, &error);
  PyEval_RestoreThread(thread);
  PyMem_Free(texts);
  if (status != VIGIE_OK) return error_raise(status, error);
  Py_RETURN_NONE;
}

/* ---- opening ---- */

typedef vigie_status (*opener)(vigie_sentinel *, const char *, const vigie_config *, vigie_client **, vigie_error **);

static vigie_status open_shards(link_object *self, PyObject *parent, PyObject *what, vigie_config *overrides, vigie_error **error) {
  size_t count;
  const char **texts = texts_of(what, &count);
  if (texts == NULL) return VIGIE_ERR_INVALID_ARG;
  vigie_sentinel *sentinel = parent == Py_None ? NULL : ((handle_object *)parent)->sentinel;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = vigie_shards_for(sentinel, texts, count, overrides, &self->client, error);
  PyEval_RestoreThread(thread);
  PyMem_Free(texts);
  return status;
}

static vigie_status open_session(link_object *self, PyObject *parent, PyObject *key, vigie_config *overrides, vigie_error **error) {
  vigie_client *client = ((link_object *)parent)->client;
  if (key == Py_None) return vigie_session_for(client, NULL, 0, overrides, &self->client, error);
  command it;
  if (command_from(&it, &key, 1) < 0) return VIGIE_ERR_INVALID_ARG;
  vigie_status status = vigie_session_for(client, it.argv[0], it.lengths[0], overrides, &self->client, error);
  command_clear(&it);
  return status;
}

static vigie_status open_service(link_object *self, PyObject *parent, opener open, PyObject *service, vigie_config *overrides,
                                 vigie_error **error) {
  const char *name = NULL;
  if (service != Py_None && (name = PyUnicode_AsUTF8AndSize(service, NULL)) == NULL) return VIGIE_ERR_INVALID_ARG;
  PyThreadState *thread = PyEval_SaveThread();
  vigie_status status = open(((handle_object *)parent)->sentinel, name, overrides, &self->client, error);
  PyEval_RestoreThread(thread);
  return status;
}

static vigie_status open_kind(link_object *self, const char *kind, PyObject *parent, PyObject *what, vigie_config *overrides,
                              vigie_error **error) {
  bool from_handle = Py_IS_TYPE(parent, type_handle), from_link = PyObject_TypeCheck(parent, type_link);
  self->session = strcmp(kind, "session") == 0;
  if (self->session && from_link) return open_session(self, parent, what, overrides, error);
  if (strcmp(kind, "shards") == 0 && (from_handle || parent == Py_None) && PyList_Check(what)) {
    return open_shards(self, parent, what, overrides, error);
  }
  if (strcmp(kind, "primary") == 0 && from_handle) return open_service(self, parent, vigie_primary_for, what, overrides, error);
  if (strcmp(kind, "replica") == 0 && from_handle) return open_service(self, parent, vigie_replica_for, what, overrides, error);
  if (strcmp(kind, "split") == 0 && from_handle) return open_service(self, parent, vigie_split_for, what, overrides, error);
  PyErr_Format(PyExc_ValueError, "no client of the kind %s is made from this: primary, replica, split, shards, or session of a client", kind);
  return VIGIE_ERR_INVALID_ARG;
}

static int init(link_object *self, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"kind", "parent", "what", "overrides", "text", NULL};
  const char *kind;
  PyObject *parent, *what, *overrides;
  int text;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sOOO!p", names, &kind, &parent, &what, &PyDict_Type, &overrides, &text)) return -1;
  if (self->client != NULL) {
    PyErr_SetString(PyExc_ValueError, "the client is open already");
    return -1;
  }
  vigie_config *config = config_from(overrides);
  if (config == NULL) return -1;
  vigie_error *error = NULL;
  self->text = text;
  vigie_status status = open_kind(self, kind, parent, what, config, &error);
  vigie_config_free(config);
  if (status == VIGIE_OK) return 0;
  if (!PyErr_Occurred()) error_raise(status, error);
  return -1;
}

static int traverse(link_object *self, visitproc visit, void *arg) {
  Py_VISIT((PyObject *)Py_TYPE((PyObject *)self));
  Py_VISIT(self->hook);
  return 0;
}

static int clear(link_object *self) {
  PyObject *before = self->hook;
  self->hook = NULL;
  Py_XDECREF(before);
  return 0;
}

static void dealloc(link_object *self) {
  PyObject_GC_UnTrack(self);
  clear(self);
  vigie_client_free(self->client);
  core_dealloc((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"call", (PyCFunction)(void (*)(void))call, METH_FASTCALL | METH_KEYWORDS,
     "call(*args, timeout=None, decode=None, idempotent=False, retry=True, on_primary=False, slow=False, typed=False, replicas=0)\n"
     "--\n\n"
     "Runs one command and returns its reply.\n\n"
     "Arguments are str, bytes, int or float. timeout is the whole budget in seconds, retries and failovers included: None is the option\n"
     "timeout.call, math.inf no limit. idempotent: it may be sent again after an unknown outcome. retry=False: sent once at most.\n"
     "on_primary: a read goes to the primary. slow: not on a connection that other calls share. typed: ROLE and INFO in parsed form.\n"
     "replicas: done when so many replicas have it. Raises vigie_redis.Error; vigie_redis.MaybeExecuted if it was sent and not answered."},
    {"calls", (PyCFunction)(void (*)(void))calls, METH_FASTCALL | METH_KEYWORDS, "calls(commands, atomic, **manner): runs one list."},
    METHOD_FAST("submit", submit, "submit(batch, queue, token, flags, timeout): runs a list without waiting."),
    {"flags", (PyCFunction)(void (*)(void))flags_of, METH_FASTCALL | METH_KEYWORDS, "The flags that keywords of call() stand for."},
    {"topology", (PyCFunction)topology, METH_NOARGS, "What the client knows now: service, primary, replicas. Asks nobody."},
    {"stats", (PyCFunction)stats, METH_NOARGS, "What the client has done, as a dict of counters."},
    METHOD_FAST("metrics", metrics, "metrics(openmetrics=False): the counters as text for Prometheus."),
    {"disconnect", (PyCFunction)disconnect, METH_NOARGS, "Closes idle connections now and busy ones after their calls."},
    METHOD_FAST("close", close_link, "close(timeout=None): no new calls; running ones have so many seconds. A second close does nothing."),
    {"shard_of", (PyCFunction)shard_of, METH_O, "The index of the shard that a key is on; -1 without shards."},
    {"set_shards", (PyCFunction)shards_set, METH_O, "Gives a client of shards other shards."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef fields[] = {
    {"closed", (getter)is_closed, NULL, "Whether the client was closed.", NULL},
    {"decode_responses", (getter)get_text, NULL, "Whether texts are str; else bytes.", NULL},
    {"hook", (getter)get_hook, (setter)set_hook, "Called after each call and list with (name, endpoint, seconds, error).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A client or a session of the library."},
    {Py_tp_init, init},
    {Py_tp_methods, methods},
    {Py_tp_getset, fields},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {"vigie_redis._core.Link", sizeof(link_object), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
PyTypeObject *type_link;

int link_register(PyObject *module) { return (type_link = core_type(module, &spec)) == NULL ? -1 : 0; }
