/* A list of commands as RESP, which grows command by command.
 *
 * Promises: a command that is refused leaves the list as it was. Leaves to others: running it (link.c).
 */
#include "core.h"

static char *put_head(char *at, char mark, size_t number) {
  char digits[24];
  int n = 0;
  do digits[n++] = (char)('0' + number % 10);
  while (number /= 10);
  *at++ = mark;
  while (n) *at++ = digits[--n];
  *at++ = '\r';
  *at++ = '\n';
  return at;
}

static int reserve(batch_object *self, size_t more) {
  if (self->len + more <= self->room) return 0;
  size_t room = self->room ? self->room * 2 : 512;
  while (room < self->len + more) room *= 2;
  char *data = PyMem_Realloc(self->data, room);
  if (data == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  self->data = data;
  self->room = room;
  return 0;
}

int batch_append(batch_object *self, const command *it) {
  size_t more = 24;
  for (size_t i = 0; i < it->count; i++) more += it->lengths[i] + 28;
  if (reserve(self, more) < 0) return -1;
  char *at = put_head(self->data + self->len, '*', it->count);
  for (size_t i = 0; i < it->count; i++) {
    at = put_head(at, '$', it->lengths[i]);
    memcpy(at, it->argv[i], it->lengths[i]);
    at += it->lengths[i];
    *at++ = '\r';
    *at++ = '\n';
  }
  self->len = (size_t)(at - self->data);
  self->count++;
  return 0;
}

static PyObject *add(batch_object *self, PyObject *const *args, Py_ssize_t count) {
  command it;
  if (command_from(&it, args, count) < 0) return NULL;
  int status = batch_append(self, &it);
  command_clear(&it);
  return status < 0 ? NULL : PyLong_FromSsize_t(self->count - 1);
}

static PyObject *clear(batch_object *self, PyObject *Py_UNUSED(none)) {
  self->len = 0;
  self->count = 0;
  Py_RETURN_NONE;
}

static PyObject *data(batch_object *self, PyObject *Py_UNUSED(none)) {
  return PyBytes_FromStringAndSize(self->data, (Py_ssize_t)self->len);
}

static Py_ssize_t length(batch_object *self) { return self->count; }

static void dealloc(batch_object *self) {
  PyMem_Free(self->data);
  core_dealloc((PyObject *)self);
}

static PyMethodDef methods[] = {
    METHOD_FAST("add", add, "add(*args): adds a command, and gives its place in the list."),
    {"clear", (PyCFunction)clear, METH_NOARGS, "Empties the list."},
    {"data", (PyCFunction)data, METH_NOARGS, "The list as RESP."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A list of commands, as RESP."},
    {Py_tp_methods, methods},
    {Py_sq_length, length},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {"vigie_redis._core.Batch", sizeof(batch_object), 0, Py_TPFLAGS_DEFAULT, slots};
PyTypeObject *type_batch;

int batch_register(PyObject *module) { return (type_batch = core_type(module, &spec)) == NULL ? -1 : 0; }

/* A new reference: the batch itself, or one from any iterable of commands. */
PyObject *batch_from(PyObject *commands) {
  if (Py_IS_TYPE(commands, type_batch)) return Py_NewRef(commands);
  PyObject *iterator = PyObject_GetIter(commands);
  if (iterator == NULL) return NULL;
  PyObject *batch = PyObject_CallNoArgs((PyObject *)type_batch), *item;
  while (batch != NULL && (item = PyIter_Next(iterator)) != NULL) {
    command it;
    PyObject *fast;
    int status = command_from_sequence(&it, item, &fast);
    Py_DECREF(item);
    if (status == 0) {
      status = batch_append((batch_object *)batch, &it);
      command_clear(&it);
      Py_DECREF(fast);
    }
    if (status < 0) Py_CLEAR(batch);
  }
  Py_DECREF(iterator);
  if (PyErr_Occurred()) Py_CLEAR(batch);
  return batch;
}
