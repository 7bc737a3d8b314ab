/* The module vigie_redis._core: its types, its functions, and what it keeps for the process.
 *
 * Promises: a library of another version than the header that this was compiled with is an ImportError. Leaves to others: everything else.
 */
#include "core.h"

PyObject *core_make_error;
unsigned long core_main_thread;

void core_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(self);
  Py_DECREF(type);
}

/* A new type, which is also a name of the module. */
PyTypeObject *core_type(PyObject *module, PyType_Spec *spec) {
  PyObject *type = PyType_FromSpec(spec);
  if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) Py_CLEAR(type);
  return (PyTypeObject *)type;
}

/* set_up(make_error, main_thread): what the module needs of Python's side. */
static PyObject *set_up(PyObject *Py_UNUSED(module), PyObject *args) {
  PyObject *make_error;
  unsigned long main_thread;
  if (!PyArg_ParseTuple(args, "Ok", &make_error, &main_thread)) return NULL;
  PyObject *before = core_make_error;
  core_make_error = Py_NewRef(make_error);
  core_main_thread = main_thread;
  Py_XDECREF(before);
  Py_RETURN_NONE;
}

/* after_fork(main_thread): in the child, which has one thread. */
static PyObject *after_fork(PyObject *Py_UNUSED(module), PyObject *main_thread) {
  unsigned long ident = PyLong_AsUnsignedLong(main_thread);
  if (PyErr_Occurred()) return NULL;
  core_main_thread = ident;
  waiters_forget();
  Py_RETURN_NONE;
}

static PyObject *statuses(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
  const vigie_status *codes;
  size_t count = vigie_status_list(&codes);
  PyObject *map = PyDict_New();
  for (size_t i = 0; map != NULL && i < count; i++) {
    PyObject *code = PyLong_FromLong(codes[i]);
    PyObject *name = PyUnicode_FromString(vigie_status_name(codes[i]));
    if (code == NULL || name == NULL || PyDict_SetItem(map, code, name) < 0) Py_CLEAR(map);
    Py_XDECREF(code);
    Py_XDECREF(name);
  }
  return map;
}

static PyObject *options(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
  vigie_config *config = vigie_config_new();
  vigie_reply *reply = NULL;
  vigie_error *error = NULL;
  vigie_status status = vigie_config_describe(config, &reply, &error);
  vigie_config_free(config);
  return status == VIGIE_OK ? value_take(reply, true) : error_raise(status, error);
}

static PyObject *has_feature(PyObject *Py_UNUSED(module), PyObject *name) {
  const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
  return text == NULL ? NULL : PyBool_FromLong(vigie_has_feature(text));
}

static PyObject *encode(PyObject *Py_UNUSED(module), PyObject *commands) {
  PyObject *batch = batch_from(commands);
  if (batch == NULL) return NULL;
  batch_object *it = (batch_object *)batch;
  PyObject *bytes = PyBytes_FromStringAndSize(it->data, (Py_ssize_t)it->len);
  Py_DECREF(batch);
  return bytes;
}

static PyMethodDef functions[] = {
    {"set_up", set_up, METH_VARARGS, "set_up(make_error, main_thread)"},
    {"after_fork", after_fork, METH_O, "after_fork(main_thread)"},
    {"statuses", statuses, METH_NOARGS, "Every status of the library, as a dict from numbers to names."},
    {"options", options, METH_NOARGS, "Every option of the library."},
    {"has_feature", has_feature, METH_O, "Whether this build of the library has a feature."},
    {"encode", encode, METH_O, "Commands as RESP."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "vigie_redis._core", "The library vigie, for the package vigie_redis.", -1, functions, NULL, NULL, NULL, NULL,
};

static int check_version(void) {
  if (vigie_version_number() >> 8 == VIGIE_VERSION_NUMBER >> 8) return 0;
  PyErr_Format(PyExc_ImportError, "vigie_redis was compiled for vigie %d.%d, and the library is %s", VIGIE_VERSION_MAJOR,
               VIGIE_VERSION_MINOR, vigie_version());
  return -1;
}

__attribute__((visibility("default"))) PyObject *PyInit__core(void) {
  if (check_version() < 0) return NULL;
  PyObject *module = PyModule_Create(&definition);
  if (module == NULL) return NULL;
  if (handle_register(module) < 0 || link_register(module) < 0 || queue_register(module) < 0 || batch_register(module) < 0 ||
      sub_register(module) < 0 || work_register(module) < 0 || PyModule_AddStringConstant(module, "version", vigie_version()) < 0) {
    Py_DECREF(module);
    return NULL;
  }
  return module;
}
