/* What the files of the extension share: arguments, values, waiting, objects. Each function is described where it is written.
 *
 * Leaves to others: the names that users see and everything that does not wait, which are Ruby's (lib/vigie.rb).
 */
#ifndef VIGIE_RUBY_CORE_H
#define VIGIE_RUBY_CORE_H

#include <ruby.h>
#include <ruby/encoding.h>
#include <ruby/fiber/scheduler.h>
#include <ruby/thread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "vigie.h"

/* ---- vigie.c ---- */

extern VALUE core_module;   /* Vigie::Core */
extern VALUE core_errors;   /* Vigie::Errors, which makes the exceptions */

void link_register(void);
void handle_register(void);
void batch_register(void);
void queue_register(void);
void work_register(void);

/* ---- args.c: from Ruby to bytes ---- */

enum { BYTES_INLINE = 512, WORDS_INLINE = 16 };

/* Bytes that grow. Beyond the room inside, a Ruby string holds them, so that no exception leaks them. */
typedef struct {
  char *data;
  size_t len, room;
  VALUE holder;
  char inside[BYTES_INLINE];
} bytes;

void bytes_init(bytes *it);
void bytes_add(bytes *it, const void *data, size_t len);

/* A copy of the words of a command, which other threads cannot change while the call runs. */
typedef struct {
  size_t count;
  bytes text;
  bytes lengths; /* of size_t */
  bytes pointers; /* of const char *, after command_finish() */
} command;

void command_init(command *it);
void command_add(command *it, VALUE value);
void command_add_all(command *it, int argc, const VALUE *argv);
void command_add_flag(command *it, VALUE name, VALUE value);
void command_finish(command *it);
void command_append_resp(const command *it, VALUE to);
const char *const *command_argv(const command *it);
const size_t *command_lengths(const command *it);

int64_t timeout_from(VALUE seconds);
vigie_config *config_from(VALUE options);
const char *text_or_null(VALUE *value);

/* ---- values.c: from the library to Ruby ---- */

VALUE value_take(vigie_reply *reply);
VALUE value_of_event(vigie_event *event);
VALUE error_take(vigie_status status, vigie_error *error);
NORETURN(void error_raise(vigie_status status, vigie_error *error));

/* ---- wait.c: waiting that Thread#kill, Thread#raise, Timeout and signals can end ---- */

/* One call of the library that may wait. */
typedef struct run {
  vigie_client *client;
  const command *command; /* or, if this is NULL, a list */
  const void *list;
  size_t list_len;
  uint32_t flags;
  int64_t timeout;
  vigie_call *call; /* NULL: nothing ends the wait */
  vigie_status status;
  vigie_reply *reply;
  vigie_error *error;
  bool begun, ran;
} run;

void wait_init(void);
vigie_call *call_handle_take(void);
void call_handle_put(vigie_call *call);
int run_to_end(run *it);
NORETURN(void raise_interrupt(int state, VALUE outcome));
int32_t drain_to_end(vigie_queue *queue, int64_t timeout, vigie_event *events, uint32_t capacity, int *state);
vigie_queue *private_queue_take(void);
void private_queue_put(vigie_queue *queue);
VALUE wait_for_completion(vigie_queue *queue);
void without_gvl(void *(*function)(void *), void *argument);

/* ---- the objects ---- */

typedef struct {
  vigie_client *client;
  VALUE hook; /* nil, or what is called after each call */
  bool session;
} link_object;

typedef struct {
  VALUE list; /* RESP, as a string */
  long count;
  VALUE casts; /* nil, or blocks by place */
} batch_object;

link_object *link_from(VALUE self);
vigie_sentinel *sentinel_from(VALUE self);
vigie_queue *queue_from(VALUE self);
batch_object *batch_from(VALUE self);
void command_from_call(command *it, int argc, VALUE *argv, VALUE flags);

#endif
