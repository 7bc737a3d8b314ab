/* The extension's entry: Vigie::Core, of which lib/vigie.rb makes what users see.
 *
 * Promises: a library of another version than the header's is refused at load. Nothing but Init_vigie is exported.
 */
#include "core.h"

VALUE core_module, core_errors;

/* The library's statuses by number. */
static VALUE statuses(VALUE module) {
  const vigie_status *codes;
  size_t count = vigie_status_list(&codes);
  VALUE map = rb_hash_new();
  (void)module;
  for (size_t i = 0; i < count; i++) rb_hash_aset(map, INT2NUM(codes[i]), rb_utf8_str_new_cstr(vigie_status_name(codes[i])));
  return map;
}

static VALUE version(VALUE module) {
  (void)module;
  return rb_utf8_str_new_cstr(vigie_version());
}

RUBY_FUNC_EXPORTED void Init_vigie(void) {
  if (vigie_version_number() >> 8 != VIGIE_VERSION_NUMBER >> 8) {
    rb_raise(rb_eLoadError, "this gem was built for version %d.%d of libvigie, and %s was found", VIGIE_VERSION_MAJOR, VIGIE_VERSION_MINOR,
             vigie_version());
  }
  VALUE module = rb_define_module("Vigie");
  core_module = rb_define_module_under(module, "Core");
  core_errors = rb_define_module_under(module, "Errors");
  rb_define_singleton_method(core_module, "statuses", statuses, 0);
  rb_define_singleton_method(core_module, "version", version, 0);
  wait_init();
  link_register();
  handle_register();
  batch_register();
  queue_register();
  work_register();
}
