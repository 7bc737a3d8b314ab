/* From replies and errors to Python's values.
 *
 * Promises: one pass over the nodes, no call of the library per node. A map keeps its order; a key that cannot be hashed becomes a tuple.
 * An error inside a reply is an exception in its place. No reply is lost to a text that is no UTF-8: its bytes are surrogate escapes.
 */
#include "core.h"

static PyObject *text_of(const tree *it, const vigie_node *node) {
  const char *data = it->data + node->value;
  if (it->text) return PyUnicode_DecodeUTF8(data, (Py_ssize_t)node->len, "surrogateescape");
  return PyBytes_FromStringAndSize(data, (Py_ssize_t)node->len);
}

static PyObject *bignum_of(const tree *it, const vigie_node *node) {
  PyObject *number = PyLong_FromString(it->data + node->value, NULL, 10);
  if (number == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
    /* Python refuses numbers of more than 4300 digits; the digits are then the value. */
    PyErr_Clear();
    return text_of(it, node);
  }
  return number;
}

/* The server's line as an exception of its class, not raised. */
static PyObject *inner_error(const tree *it, const vigie_node *node) {
  const char *line = it->data + node->value;
  Py_ssize_t len = (Py_ssize_t)node->len, word = 0;
  while (word < len && line[word] != ' ') word++;
  PyObject *message = PyUnicode_DecodeUTF8(line, len, "replace");
  PyObject *code = PyUnicode_DecodeUTF8(line, word, "replace");
  PyObject *error = NULL;
  if (message != NULL && code != NULL) {
    error = PyObject_CallFunction(core_make_error, "iIOOsLiO", (int)VIGIE_ERR_SERVER, 0u, message, code, "", -1LL, 0, Py_None);
  }
  Py_XDECREF(message);
  Py_XDECREF(code);
  return error;
}

static PyObject *list_of(const tree *it, const vigie_node *node) {
  PyObject *list = PyList_New((Py_ssize_t)node->count);
  if (list == NULL) return NULL;
  for (uint32_t i = 0; i < node->count; i++) {
    PyObject *value = value_at(it, (size_t)node->value + i);
    if (value == NULL) {
      Py_DECREF(list);
      return NULL;
    }
    PyList_SetItem(list, (Py_ssize_t)i, value);
  }
  return list;
}

/* A key as it is, or as a tuple of tuples if it is an aggregate. */
static PyObject *hashable(PyObject *key) {
  if (key == NULL || (!PyList_Check(key) && !PyDict_Check(key))) return key;
  PyObject *items = PyDict_Check(key) ? PyDict_Items(key) : Py_NewRef(key);
  Py_DECREF(key);
  if (items == NULL) return NULL;
  Py_ssize_t count = PyList_Size(items);
  PyObject *tuple = PyTuple_New(count);
  for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
    PyObject *part = PyList_GetItem(items, i);
    if (PyTuple_Check(part)) {
      PyObject *pair = PySequence_List(part);
      part = hashable(pair);
    } else {
      part = hashable(Py_NewRef(part));
    }
    if (part == NULL) Py_CLEAR(tuple);
    else PyTuple_SetItem(tuple, i, part);
  }
  Py_DECREF(items);
  return tuple;
}

static PyObject *map_of(const tree *it, const vigie_node *node) {
  PyObject *map = PyDict_New();
  for (uint32_t i = 0; map != NULL && i + 1 < node->count; i += 2) {
    PyObject *key = hashable(value_at(it, (size_t)node->value + i));
    PyObject *value = key == NULL ? NULL : value_at(it, (size_t)node->value + i + 1);
    if (value == NULL || PyDict_SetItem(map, key, value) < 0) Py_CLEAR(map);
    Py_XDECREF(key);
    Py_XDECREF(value);
  }
  return map;
}

static PyObject *aggregate_of(const tree *it, const vigie_node *node) {
  if (Py_EnterRecursiveCall(" while decoding a reply")) return NULL;
  PyObject *value = node->type == VIGIE_TYPE_MAP ? map_of(it, node) : list_of(it, node);
  Py_LeaveRecursiveCall();
  return value;
}

PyObject *value_at(const tree *it, size_t index) {
  const vigie_node *node = &it->nodes[index];
  double number;
  switch (node->type) {
    case VIGIE_TYPE_STRING:
    case VIGIE_TYPE_STATUS:
    case VIGIE_TYPE_VERBATIM:
      return text_of(it, node);
    case VIGIE_TYPE_INT:
      return PyLong_FromLongLong((long long)node->value);
    case VIGIE_TYPE_DOUBLE:
      memcpy(&number, &node->value, sizeof number);
      return PyFloat_FromDouble(number);
    case VIGIE_TYPE_BOOL:
      return PyBool_FromLong(node->value != 0);
    case VIGIE_TYPE_BIGNUM:
      return bignum_of(it, node);
    case VIGIE_TYPE_ERROR:
      return inner_error(it, node);
    case VIGIE_TYPE_ARRAY:
    case VIGIE_TYPE_MAP:
    case VIGIE_TYPE_SET:
    case VIGIE_TYPE_PUSH:
      return aggregate_of(it, node);
    default:
      Py_RETURN_NONE;
  }
}

PyObject *value_of_reply(const vigie_reply *reply, bool text) {
  if (reply == NULL) Py_RETURN_NONE;
  size_t count = 0, data_len = 0;
  tree it = {.text = text};
  it.nodes = vigie_reply_nodes(reply, &count, &it.data, &data_len);
  it.count = count;
  if (count == 0) Py_RETURN_NONE;
  return value_at(&it, 0);
}

/* Frees the reply. */
PyObject *value_take(vigie_reply *reply, bool text) {
  PyObject *value = value_of_reply(reply, text);
  vigie_reply_free(reply);
  return value;
}

/* The exception that stands for an error, which is freed; NULL with another exception if that fails. */
PyObject *error_take(vigie_status status, vigie_error *error, bool text) {
  PyObject *reply = value_of_reply(vigie_error_reply(error), text);
  PyObject *message = NULL, *result = NULL;
  const char *sentence = error == NULL ? vigie_status_name(status) : vigie_error_message(error);
  if (reply != NULL) message = PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace");
  if (message != NULL) {
    result = PyObject_CallFunction(core_make_error, "iIOssLiO", (int)(error == NULL ? status : vigie_error_status(error)),
                                   (unsigned)vigie_error_flags(error), message, vigie_error_server_code(error),
                                   vigie_error_endpoint(error), (long long)vigie_error_count(error), vigie_error_errno(error), reply);
  }
  Py_XDECREF(message);
  Py_XDECREF(reply);
  vigie_error_free(error);
  return result;
}

/* Raises an error, which is freed. Always NULL. */
PyObject *error_raise_text(vigie_status status, vigie_error *error, bool text) {
  PyObject *value = error_take(status, error, text);
  if (value != NULL) {
    PyErr_SetObject((PyObject *)Py_TYPE(value), value);
    Py_DECREF(value);
  }
  return NULL;
}

PyObject *error_raise(vigie_status status, vigie_error *error) { return error_raise_text(status, error, false); }
