/* Interrupting: waits for work in a list, and Ctrl-C ends the wait without losing an element.
 * ./interrupt redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [LIST] */
#define _POSIX_C_SOURCE 200809L /* sigaction() */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

static volatile sig_atomic_t stopped = 0;

static void on_signal(int number) {
  (void)number;
  stopped = 1;
}

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

int main(int argc, char **argv) {
  const char *list = argc > 2 ? argv[2] : "jobs";
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_call *call = vigie_call_new();
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  vigie_status status;
  struct sigaction action;

  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, NULL);

  if (argc < 2) {
    fprintf(stderr, "usage: interrupt URI\n");
    return 2;
  }
  if (vigie_config_set(config, "uri", argv[1], &err) != VIGIE_OK) die("uri", err);
  if (vigie_sentinel_create(config, 5000, &sentinel, &err) != VIGIE_OK) die("sentinel", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);

  printf("waiting for %s\n", list);
  fflush(stdout);
  for (;;) {
    status = vigie_call_cmd_exec(call, client, VIGIE_CMD("BLPOP", list, "0"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err);
    while (status == VIGIE_ERR_INTERRUPTED) {
      vigie_error_free(err);
      if (stopped) vigie_call_cancel(call, NULL); /* another signal: go on waiting */
      status = vigie_call_wait(call, &reply, &err);
    }
    if (status != VIGIE_OK) break;
    /* Also an element that came while the call was being cancelled is here. */
    printf("took %s\n", vigie_reply_bytes(reply, vigie_reply_child(reply, VIGIE_ROOT, 1), NULL));
    fflush(stdout);
    vigie_reply_free(reply);
  }
  if (status != VIGIE_ERR_CANCELLED) die("BLPOP", err);
  printf("stopped: %s\n", vigie_error_message(err));

  vigie_error_free(err);
  vigie_call_free(call);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
