/* What the files of the extension share: state, arguments, values, waiting. Each function is described where it is written.
 *
 * Promises: only the limited API of Python 3.11 is used. Leaves to others: the names that users see, which are Python's (src/vigie_redis).
 */
#ifndef VIGIE_PYTHON_CORE_H
#define VIGIE_PYTHON_CORE_H

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "vigie.h"

/* ---- module.c: what the module keeps ---- */

extern PyObject *core_make_error;       /* of _errors: an exception from the parts of an error */
extern unsigned long core_main_thread;  /* Python runs signal handlers in this thread alone */

PyTypeObject *core_type(PyObject *module, PyType_Spec *spec);
void core_dealloc(PyObject *self);

extern PyTypeObject *type_handle, *type_link, *type_queue, *type_batch, *type_sub, *type_scan, *type_jobs;
int handle_register(PyObject *module);
int link_register(PyObject *module);
int queue_register(PyObject *module);
int batch_register(PyObject *module);
int sub_register(PyObject *module);
int work_register(PyObject *module);

/* ---- args.c: from Python to bytes ---- */

enum { ARGS_INLINE = 8, NUMBER_ROOM = 40 };

/* The arguments of one command, as the library takes them. Valid as long as the objects that they were made of. */
typedef struct {
  size_t count;
  const char **argv;
  size_t *lengths;
  PyObject **owned; /* what was made for an argument; NULL elsewhere */
  Py_buffer *buffers;
  size_t buffer_count;
  const char *argv_inline[ARGS_INLINE];
  size_t lengths_inline[ARGS_INLINE];
  PyObject *owned_inline[ARGS_INLINE];
} command;

int command_from(command *out, PyObject *const *args, Py_ssize_t count);
int command_from_sequence(command *out, PyObject *sequence, PyObject **fast);
void command_clear(command *it);

int64_t timeout_from(PyObject *seconds, bool *ok);
int64_t timeout_or_default(PyObject *seconds, bool *ok);
vigie_config *config_from(PyObject *options);

/* A RESP list that grows. */
typedef struct {
  PyObject_HEAD
  char *data;
  size_t len, room;
  Py_ssize_t count;
} batch_object;

int batch_append(batch_object *self, const command *it);
PyObject *batch_from(PyObject *commands);

/* ---- values.c: from the library to Python ---- */

typedef struct {
  const vigie_node *nodes;
  size_t count;
  const char *data;
  bool text; /* texts are str, else bytes */
} tree;

PyObject *value_at(const tree *it, size_t index);
PyObject *value_of_reply(const vigie_reply *reply, bool text);
PyObject *value_take(vigie_reply *reply, bool text);
PyObject *error_take(vigie_status status, vigie_error *error, bool text);
PyObject *error_raise(vigie_status status, vigie_error *error);
PyObject *error_raise_text(vigie_status status, vigie_error *error, bool text);

/* ---- wait.c: waiting that a signal can end ---- */

bool in_main_thread(void);
vigie_call *call_handle_take(void);
void call_handle_put(vigie_call *call);
vigie_status call_go_on(vigie_call *call, vigie_status status, vigie_reply **out, vigie_error **err, bool *raised);
vigie_queue *private_queue_take(void);
void private_queue_put(vigie_queue *queue);
PyObject *wait_for_completion(vigie_queue *queue, bool text);
void waiters_forget(void);

/* ---- the objects ---- */

typedef struct {
  PyObject_HEAD
  vigie_sentinel *sentinel;
} handle_object;

typedef struct {
  PyObject_HEAD
  vigie_client *client;
  PyObject *hook; /* NULL, or what is called after each call */
  bool text, session;
} link_object;

typedef struct {
  PyObject_HEAD
  vigie_queue *queue;
  bool text;
} queue_object;

#define METHOD_FAST(name, function, doc) \
  {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, doc}
#define METHOD_KEYS(name, function, doc) \
  {name, (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS, doc}

#endif
