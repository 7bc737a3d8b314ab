/* From Python's values to the bytes that a command is made of.
 *
 * Promises: text, bytes, integers and floats are taken, and nothing else: what would become a silent "None" is a TypeError that names the
 * argument. Texts are UTF-8; what is no UTF-8 and came as surrogate escapes goes out as the bytes that it was.
 */
#include "core.h"

#include <stdio.h>

static int refuse(PyObject *value, Py_ssize_t place) {
  PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(value), "__name__");
  if (name != NULL) {
    PyErr_Format(PyExc_TypeError,
                 "argument %zd of a command is of type %U: give str, bytes, int or float, and say yourself how anything else is written",
                 place, name);
    Py_DECREF(name);
  }
  return -1;
}

static int set_bytes(command *out, size_t at, PyObject *bytes) {
  char *data;
  Py_ssize_t len;
  if (bytes == NULL || PyBytes_AsStringAndSize(bytes, &data, &len) < 0) {
    Py_XDECREF(bytes);
    return -1;
  }
  out->owned[at] = bytes;
  out->argv[at] = data;
  out->lengths[at] = (size_t)len;
  return 0;
}

static int set_text(command *out, size_t at, PyObject *text) {
  Py_ssize_t len;
  const char *data = PyUnicode_AsUTF8AndSize(text, &len);
  if (data != NULL) {
    out->argv[at] = data;
    out->lengths[at] = (size_t)len;
    return 0;
  }
  PyErr_Clear();
  return set_bytes(out, at, PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape"));
}

/* An int of any size in decimal; subclasses too, whatever their own text is. */
static int set_int(command *out, size_t at, PyObject *number) {
  int overflow;
  long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
  if (!overflow) {
    if (value == -1 && PyErr_Occurred()) return -1;
    char digits[NUMBER_ROOM];
    snprintf(digits, sizeof digits, "%lld", value);
    return set_bytes(out, at, PyBytes_FromString(digits));
  }
  PyObject *text = PyNumber_ToBase(number, 10);
  PyObject *bytes = text == NULL ? NULL : PyUnicode_AsASCIIString(text);
  Py_XDECREF(text);
  return set_bytes(out, at, bytes);
}

static int set_float(command *out, size_t at, PyObject *number) {
  double value = PyFloat_AsDouble(number);
  char *text = PyOS_double_to_string(value, 'r', 0, 0, NULL);
  if (text == NULL) return -1;
  int status = set_bytes(out, at, PyBytes_FromString(text));
  PyMem_Free(text);
  return status;
}

static int set_buffer(command *out, size_t at, PyObject *value) {
  if (out->buffers == NULL) {
    out->buffers = PyMem_Calloc(out->count, sizeof(Py_buffer));
    if (out->buffers == NULL) {
      PyErr_NoMemory();
      return -1;
    }
  }
  Py_buffer *view = &out->buffers[out->buffer_count];
  if (PyObject_GetBuffer(value, view, PyBUF_SIMPLE) < 0) return -1;
  out->buffer_count++;
  out->argv[at] = view->buf;
  out->lengths[at] = (size_t)view->len;
  return 0;
}

static int set_argument(command *out, size_t at, PyObject *value) {
  if (PyUnicode_Check(value)) return set_text(out, at, value);
  if (PyBytes_Check(value)) {
    char *data;
    Py_ssize_t len;
    if (PyBytes_AsStringAndSize(value, &data, &len) < 0) return -1;
    out->argv[at] = data;
    out->lengths[at] = (size_t)len;
    return 0;
  }
  if (PyLong_Check(value) && !PyBool_Check(value)) return set_int(out, at, value);
  if (PyFloat_Check(value)) return set_float(out, at, value);
  if (PyObject_CheckBuffer(value)) return set_buffer(out, at, value);
  return refuse(value, (Py_ssize_t)at);
}

static int room_for(command *out, size_t count) {
  out->count = count;
  out->buffers = NULL;
  out->buffer_count = 0;
  out->argv = out->argv_inline;
  out->lengths = out->lengths_inline;
  out->owned = out->owned_inline;
  if (count <= ARGS_INLINE) {
    memset(out->owned_inline, 0, count * sizeof(PyObject *));
    return 0;
  }
  char *block = PyMem_Calloc(count, sizeof(char *) + sizeof(size_t) + sizeof(PyObject *));
  if (block == NULL) {
    out->count = 0;
    PyErr_NoMemory();
    return -1;
  }
  out->argv = (const char **)block;
  out->lengths = (size_t *)(block + count * sizeof(char *));
  out->owned = (PyObject **)(block + count * (sizeof(char *) + sizeof(size_t)));
  return 0;
}

/* The arguments must outlive the command. After -1 there is nothing to clear. */
int command_from(command *out, PyObject *const *args, Py_ssize_t count) {
  if (count == 0) {
    PyErr_SetString(PyExc_TypeError, "a command needs a name: call(\"GET\", key)");
    return -1;
  }
  if (room_for(out, (size_t)count) < 0) return -1;
  for (Py_ssize_t i = 0; i < count; i++) {
    if (set_argument(out, (size_t)i, args[i]) < 0) {
      command_clear(out);
      return -1;
    }
  }
  return 0;
}

/* From any sequence; *fast keeps its items alive, and is the caller's after 0. */
int command_from_sequence(command *out, PyObject *sequence, PyObject **fast) {
  *fast = NULL;
  if (PyUnicode_Check(sequence) || PyBytes_Check(sequence)) {
    PyErr_SetString(PyExc_TypeError, "a command is a sequence of arguments, such as (\"GET\", key)");
    return -1;
  }
  PyObject *items = PySequence_Tuple(sequence);
  if (items == NULL) return -1;
  Py_ssize_t count = PyTuple_Size(items);
  PyObject **args = PyMem_Malloc((size_t)(count ? count : 1) * sizeof(PyObject *));
  if (args == NULL) {
    Py_DECREF(items);
    PyErr_NoMemory();
    return -1;
  }
  for (Py_ssize_t i = 0; i < count; i++) args[i] = PyTuple_GetItem(items, i);
  int status = command_from(out, args, count);
  PyMem_Free(args);
  if (status < 0) {
    Py_DECREF(items);
    return -1;
  }
  *fast = items;
  return 0;
}

void command_clear(command *it) {
  for (size_t i = 0; i < it->count; i++) Py_XDECREF(it->owned[i]);
  for (size_t i = 0; i < it->buffer_count; i++) PyBuffer_Release(&it->buffers[i]);
  PyMem_Free(it->buffers);
  if (it->argv != it->argv_inline) PyMem_Free((void *)it->argv);
  it->count = 0;
}

/* Seconds, of which a part of a millisecond counts as a whole one. math.inf: no limit. */
int64_t timeout_from(PyObject *seconds, bool *ok) {
  double value = PyFloat_AsDouble(seconds);
  *ok = true;
  if (value == -1.0 && PyErr_Occurred()) {
    *ok = false;
    return 0;
  }
  if (value != value) {
    PyErr_SetString(PyExc_ValueError, "timeout is not a number: give seconds, or math.inf for no limit");
    *ok = false;
    return 0;
  }
  if (value <= 0) return 0;
  if (value >= 2147483.0) return VIGIE_TIMEOUT_NONE;
  int64_t whole = (int64_t)(value * 1000.0);
  return whole + ((double)whole < value * 1000.0 ? 1 : 0);
}

int64_t timeout_or_default(PyObject *seconds, bool *ok) {
  if (seconds == NULL || seconds == Py_None) {
    *ok = true;
    return VIGIE_TIMEOUT_DEFAULT;
  }
  return timeout_from(seconds, ok);
}

static int set_option(vigie_config *config, PyObject *key, PyObject *value) {
  const char *name = PyUnicode_AsUTF8AndSize(key, NULL);
  if (name == NULL) return -1;
  PyObject *text = NULL;
  if (PyBool_Check(value)) text = PyUnicode_FromString(value == Py_True ? "true" : "false");
  else text = PyObject_Str(value);
  const char *word = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, NULL);
  if (word == NULL) {
    Py_XDECREF(text);
    return -1;
  }
  vigie_error *error = NULL;
  vigie_status status = vigie_config_set(config, name, word, &error);
  Py_DECREF(text);
  if (status == VIGIE_OK) return 0;
  error_raise(status, error);
  return -1;
}

/* A config from a dict of options, for vigie_config_free(); NULL with an exception. */
vigie_config *config_from(PyObject *options) {
  vigie_config *config = vigie_config_new();
  PyObject *key, *value;
  Py_ssize_t at = 0;
  while (PyDict_Next(options, &at, &key, &value)) {
    if (set_option(config, key, value) < 0) {
      vigie_config_free(config);
      return NULL;
    }
  }
  return config;
}
