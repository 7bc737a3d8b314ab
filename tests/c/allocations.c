/* What the library costs: an open client is small, and a call is one allocation, the reply's own. */
#include "common.h"

#include <dirent.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static size_t allocations;
static pthread_t counted; /* only this thread's: the workers look after pools at moments of their own */

static void count(void) { allocations += pthread_equal(pthread_self(), counted) != 0; }

/* These stand in for the C library's, for the library under test too. */
void *malloc(size_t size) {
  count();
  return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
  count();
  return __libc_calloc(n, size);
}
void *realloc(void *old, size_t size) {
  count();
  return __libc_realloc(old, size);
}

static void get(vigie_client *client) {
  vigie_reply *reply = RUN(client, "GET", "allocations");
  size_t len = 0;
  CHECK(vigie_reply_bytes(reply, VIGIE_ROOT, &len) != NULL && len == 64);
  vigie_reply_free(reply);
}

static int threads(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/task");
  CHECK(dir != NULL);
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) n += entry->d_name[0] != '.';
  closedir(dir);
  return n;
}

static size_t heap(void) {
  struct mallinfo2 m = mallinfo2();
  return m.uordblks + m.hblkhd;
}

int main(void) {
  enum { CALLS = 1000 };
  int threads_before = threads();
  size_t heap_before = heap();
  counted = pthread_self();
  vigie_sentinel *sentinel = open_sentinel();
  vigie_client *client = open_primary(sentinel);
  vigie_reply_free(RUN(client, "SET", "allocations", "0123456789012345678901234567890123456789012345678901234567890123"));
  get(client);
  CHECK(heap() - heap_before < 100000);
  /* What was started at once for the first call goes again within moments. */
  for (int i = 0; i < 500 && threads() - threads_before > 2; i++) poll(NULL, 0, 10);
  CHECK(threads() - threads_before <= 2);
  size_t before = allocations;
  for (int i = 0; i < CALLS; i++) get(client);
  /* A worker that looks after the connection may share it for a moment; who reads then is open. */
  if (allocations - before > CALLS + CALLS / 100) {
    fprintf(stderr, "%zu allocations for %d calls\n", allocations - before, CALLS);
    return 1;
  }
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  return finish();
}
