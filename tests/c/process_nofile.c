/* A process that may have fewer descriptors than it has: poll(2) fails there. Calls go on, and nothing spins. */
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

static vigie_queue *queue;

static double cpu(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void submit(vigie_client *client, const char *list, uint64_t token) {
  vigie_error *error = NULL;
  GIVES(VIGIE_OK, vigie_cmds_submit(client, list, strlen(list), VIGIE_CALL_EACH, 60000, queue, token, &error));
}

static void *drain(void *timeout) {
  vigie_event event;
  if (vigie_queue_drain(queue, (intptr_t)timeout, &event, 1) != 1) return NULL;
  void *token = (void *)(intptr_t)event.token;
  CHECK(event.status == VIGIE_OK);
  vigie_events_clear(&event, 1);
  return token;
}

int main(void) {
  enum { TIME = 1500 };
  const struct rlimit none = {0, 0};
  pthread_t drainer;
  vigie_error *error = NULL;
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  GIVES(VIGIE_OK, vigie_queue_create(16, &queue, &error));
  /* Connections for everything below; the blocking command keeps somebody waiting for its reply. */
  vigie_reply_free(RUN(client, "DEL", "process:nofile"));
  submit(client, "*1\r\n$4\r\nPING\r\n", 1);
  CHECK(drain((void *)20000) == (void *)1);
  submit(client, "*3\r\n$5\r\nBLPOP\r\n$14\r\nprocess:nofile\r\n$1\r\n0\r\n", 2);
  vigie_reply_free(RUN(client, "GET", "x"));
  while (vigie_queue_drain(queue, 50, &(vigie_event){0}, 1) != 0) CHECK(0);
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  CHECK(poll(&(struct pollfd){.fd = 0, .events = POLLIN}, 1, 0) == -1);
  double before = cpu();
  CHECK(pthread_create(&drainer, NULL, drain, (void *)TIME) == 0);
  poll(NULL, 0, TIME);
  CHECK(pthread_join(drainer, NULL) == 0);
  poll(NULL, 0, TIME);
  double used = cpu() - before;
  if (used > TIME / 4) {
    fprintf(stderr, "%.0f ms of processor time while nothing happened\n", used);
    return 1;
  }
  vigie_reply_free(RUN(client, "RPUSH", "process:nofile", "v"));
  CHECK(drain((void *)20000) == (void *)2);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_queue_free(queue);
  return finish();
}
