/* The library as a plugin: opened, used, closed, and again. This program is not linked with it. */
#include "common.h"

#include <dlfcn.h>

typedef vigie_config *config_new(void);
typedef vigie_status config_set(vigie_config *, const char *, const char *, vigie_error **);
typedef void config_free(vigie_config *);
typedef vigie_status sentinel_create(const vigie_config *, int64_t, vigie_sentinel **, vigie_error **);
typedef vigie_status primary_for(vigie_sentinel *, const char *, const vigie_config *, vigie_client **, vigie_error **);
typedef vigie_status cmd_exec(vigie_client *, size_t, const char *const *, const size_t *, uint32_t, int64_t, vigie_reply **,
                              vigie_error **);
typedef void sentinel_free(vigie_sentinel *);
typedef void client_free(vigie_client *);

/* ISO C has no conversion from an object's address to a function's; POSIX asks for this way. */
#define FIND(name) \
  name *name##_ = NULL; \
  *(void **)&name##_ = dlsym(library, "vigie_" #name); \
  CHECK(name##_ != NULL)

static void use(void *library) {
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_config *config;
  FIND(config_new);
  FIND(config_set);
  FIND(config_free);
  FIND(primary_for);
  FIND(cmd_exec);
  FIND(sentinel_free);
  FIND(client_free);
  FIND(sentinel_create);
  config = config_new_();
  CHECK(config_set_(config, "sentinel.addrs", environment("VIGIE_TEST_SENTINELS"), NULL) == VIGIE_OK);
  CHECK(config_set_(config, "timeout.call", CALL_PATIENCE, NULL) == VIGIE_OK);
  CHECK(sentinel_create_(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, NULL) == VIGIE_OK);
  CHECK(primary_for_(sentinel, service(), NULL, &client, NULL) == VIGIE_OK);
  CHECK(cmd_exec_(client, VIGIE_CMD("PING"), 0, VIGIE_TIMEOUT_DEFAULT, NULL, NULL) == VIGIE_OK);
  config_free_(config);
  client_free_(client);
  sentinel_free_(sentinel);
}

int main(void) {
  for (int i = 0; i < 3; i++) {
    void *library = dlopen(environment("VIGIE_TEST_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    use(library);
    CHECK(dlclose(library) == 0);
  }
  return 0;
}
