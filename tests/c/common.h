/* What the C tests share: checks that say where and why, and handles to the deployment that the runner started. */
#ifndef VIGIE_TEST_COMMON_H
#define VIGIE_TEST_COMMON_H

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vigie.h"

/* What a call may take under valgrind on a loaded machine. */
#define CALL_PATIENCE "60000"

/* The text goes out even when another thread or a fork is on its way to the end. */
#define CHECK(condition)                                                                        \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #condition);       \
      _Exit(1);                                                                                 \
    }                                                                                           \
  } while (0)

/* The call gives this status, and the error that goes with it is complete; `error` is NULL afterwards. */
#define GIVES(expected, call) gives(__FILE__, __LINE__, #call, (expected), (call), &error)

static inline void gives(const char *file, int line, const char *call, vigie_status expected, vigie_status got,
                         vigie_error **error) {
  if (got != expected || vigie_error_status(*error) != expected || (*error == NULL) != (expected == VIGIE_OK)) {
    fprintf(stderr, "%s:%d: %s gave %s (%s), not %s: %s\n", file, line, call, vigie_status_name(got),
            vigie_status_name(vigie_error_status(*error)), vigie_status_name(expected), vigie_error_message(*error));
    _Exit(1);
  }
  if (*error != NULL) CHECK(vigie_error_message(*error)[0] != '\0');
  vigie_error_free(*error);
  *error = NULL;
}

static inline const char *environment(const char *name) {
  const char *value = getenv(name);
  if (value == NULL) {
    fprintf(stderr, "%s is not set: run this program through `cargo test --test it c_api::`\n", name);
    _Exit(1);
  }
  return value;
}

static inline int environment_number(const char *name, int if_not) {
  const char *value = getenv(name);
  return value == NULL ? if_not : atoi(value);
}

static inline const char *service(void) { return environment("VIGIE_TEST_SERVICE"); }

static inline vigie_config *config_of_deployment(void) {
  vigie_error *error = NULL;
  vigie_config *config = vigie_config_new();
  GIVES(VIGIE_OK, vigie_config_set(config, "sentinel.addrs", environment("VIGIE_TEST_SENTINELS"), &error));
  GIVES(VIGIE_OK, vigie_config_set(config, "timeout.call", CALL_PATIENCE, &error));
  if (getenv("VIGIE_TEST_TLS_CA") != NULL) {
    GIVES(VIGIE_OK, vigie_config_set(config, "tls", "on", &error));
    GIVES(VIGIE_OK, vigie_config_set(config, "sentinel.tls", "on", &error));
    GIVES(VIGIE_OK, vigie_config_set(config, "tls.ca", getenv("VIGIE_TEST_TLS_CA"), &error));
  }
  return config;
}

static inline vigie_sentinel *open_sentinel(void) {
  vigie_error *error = NULL;
  vigie_config *config = config_of_deployment();
  vigie_sentinel *sentinel = NULL;
  GIVES(VIGIE_OK, vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &error));
  vigie_config_free(config);
  return sentinel;
}

static inline vigie_client *open_primary(vigie_sentinel *sentinel) {
  vigie_error *error = NULL;
  vigie_client *client = NULL;
  GIVES(VIGIE_OK, vigie_primary_for(sentinel, service(), NULL, &client, &error));
  return client;
}

/* A command of texts that has to succeed; its reply. */
#define RUN(client, ...) run_command(__FILE__, __LINE__, (client), VIGIE_CMD(__VA_ARGS__))

static inline vigie_reply *run_command(const char *file, int line, vigie_client *client, size_t argc,
                                       const char *const *argv, const size_t *argvlen) {
  vigie_error *error = NULL;
  vigie_reply *reply = NULL;
  vigie_status got = vigie_cmd_exec(client, argc, argv, argvlen, 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error);
  gives(file, line, argv[0], VIGIE_OK, got, &error);
  return reply;
}

static inline int text_is(const vigie_reply *reply, uint32_t node, const char *text) {
  size_t len = 0;
  const char *bytes = vigie_reply_bytes(reply, node, &len);
  return bytes != NULL && len == strlen(text) && memcmp(bytes, text, len + 1) == 0;
}

/* Waits until no thread of the library is left, so that a leak checker sees the end of everything. */
static inline int finish(void) {
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
  return 0;
}

#endif
