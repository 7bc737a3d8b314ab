/* A list of commands that is collected, and run as one: by pipelined and multi.
 *
 * Promises: a command is encoded when it is added, and what is refused leaves the list as it was. Leaves to others: running it (link.c).
 */
#include "core.h"

static void batch_mark(void *it) {
  rb_gc_mark(((batch_object *)it)->list);
  rb_gc_mark(((batch_object *)it)->casts);
}
static const rb_data_type_t batch_type = {
    "Vigie::Core::Batch", {batch_mark, RUBY_DEFAULT_FREE, NULL, NULL, {0}}, NULL, NULL, RUBY_TYPED_FREE_IMMEDIATELY};

static VALUE batch_alloc(VALUE class) {
  batch_object *it;
  VALUE self = TypedData_Make_Struct(class, batch_object, &batch_type, it);
  it->casts = Qnil;
  it->list = Qnil;
  it->list = rb_str_buf_new(256);
  return self;
}

batch_object *batch_from(VALUE self) { return rb_check_typeddata(self, &batch_type); }

static VALUE batch_add(VALUE self, int argc, VALUE *argv, VALUE flags) {
  command words;
  batch_object *it = batch_from(self);
  command_from_call(&words, argc, argv, flags);
  if (OBJ_FROZEN(it->list)) rb_raise(rb_eFrozenError, "the list runs, or has run: a command of it is added before");
  if (rb_block_given_p()) {
    if (NIL_P(it->casts)) it->casts = rb_hash_new();
    rb_hash_aset(it->casts, LONG2NUM(it->count), rb_block_proc());
  }
  command_append_resp(&words, it->list);
  return LONG2NUM(it->count++);
}

static VALUE batch_call(int argc, VALUE *argv, VALUE self) {
  VALUE flags = rb_keyword_given_p() ? argv[--argc] : Qnil;
  return batch_add(self, argc, argv, flags);
}

static VALUE batch_call_v(VALUE self, VALUE list) {
  Check_Type(list, T_ARRAY);
  return batch_add(self, (int)RARRAY_LEN(list), (VALUE *)RARRAY_CONST_PTR(list), Qnil);
}

static VALUE batch_size(VALUE self) { return LONG2NUM(batch_from(self)->count); }
static VALUE batch_casts(VALUE self) { return batch_from(self)->casts; }
static VALUE batch_resp(VALUE self) { return rb_str_dup(batch_from(self)->list); }

/* The bytes are read without the lock of the interpreter from here on. */
static VALUE batch_seal(VALUE self) {
  rb_str_freeze(batch_from(self)->list);
  return self;
}

void batch_register(void) {
  VALUE class = rb_define_class_under(core_module, "Batch", rb_cObject);
  rb_define_alloc_func(class, batch_alloc);
  rb_undef_method(class, "initialize_copy");
  rb_define_method(class, "call", batch_call, -1);
  rb_define_method(class, "call_once", batch_call, -1);
  rb_define_method(class, "call_v", batch_call_v, 1);
  rb_define_method(class, "call_once_v", batch_call_v, 1);
  rb_define_method(class, "size", batch_size, 0);
  rb_define_method(class, "casts", batch_casts, 0);
  rb_define_method(class, "resp", batch_resp, 0);
  rb_define_method(class, "seal", batch_seal, 0);
}
