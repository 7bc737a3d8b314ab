/* What differs between the versions of hiredis, told by its own header: where the fields of its structures are. */
#include <hiredis/hiredis.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *shim_hiredis_version(void) {
  return TEXT(HIREDIS_MAJOR) "." TEXT(HIREDIS_MINOR) "." TEXT(HIREDIS_PATCH);
}

/* NULL: no error. */
const char *shim_hiredis_error(const redisContext *context) {
  if (context == NULL) return "out of memory";
  return context->err ? context->errstr : NULL;
}

int shim_hiredis_type(const redisReply *reply) { return reply->type; }
size_t shim_hiredis_len(const redisReply *reply) { return reply->len; }
size_t shim_hiredis_elements(const redisReply *reply) { return reply->elements; }
