/* An event loop by poll() for asynchronous contexts of hiredis, as its newer versions have one for a single context. It stands for the
 * adapters that come with hiredis, and so it is not counted as a part of the program. */
#ifndef POLL_LOOP_H
#define POLL_LOOP_H

#include <hiredis/async.h>
#include <poll.h>
#include <stddef.h>

enum { POLL_LOOP_ROOM = 16 };

typedef struct {
  redisAsyncContext *c; /* NULL: free */
  short events;
} poll_loop_entry;

static poll_loop_entry poll_loop_entries[POLL_LOOP_ROOM];

static void poll_loop_add_read(void *entry) { ((poll_loop_entry *)entry)->events |= POLLIN; }
static void poll_loop_del_read(void *entry) { ((poll_loop_entry *)entry)->events &= ~POLLIN; }
static void poll_loop_add_write(void *entry) { ((poll_loop_entry *)entry)->events |= POLLOUT; }
static void poll_loop_del_write(void *entry) { ((poll_loop_entry *)entry)->events &= ~POLLOUT; }
static void poll_loop_cleanup(void *entry) { ((poll_loop_entry *)entry)->c = NULL; }

/* Right after redisAsyncConnect(). */
static int poll_loop_attach(redisAsyncContext *c) {
  for (int i = 0; i < POLL_LOOP_ROOM; i++) {
    poll_loop_entry *entry = &poll_loop_entries[i];
    if (entry->c != NULL) continue;
    entry->c = c;
    entry->events = 0;
    c->ev.data = entry;
    c->ev.addRead = poll_loop_add_read;
    c->ev.delRead = poll_loop_del_read;
    c->ev.addWrite = poll_loop_add_write;
    c->ev.delWrite = poll_loop_del_write;
    c->ev.cleanup = poll_loop_cleanup;
    return REDIS_OK;
  }
  return REDIS_ERR;
}

/* Waits for the contexts and for one descriptor of the program, and serves the contexts. As poll(): 0 is that the time is over. */
static int poll_loop_wait(struct pollfd *own, int timeout_ms) {
  struct pollfd ready[POLL_LOOP_ROOM + 1];
  redisAsyncContext *contexts[POLL_LOOP_ROOM];
  int found;

  for (int i = 0; i < POLL_LOOP_ROOM; i++) {
    poll_loop_entry *entry = &poll_loop_entries[i];
    contexts[i] = entry->c;
    ready[i] = (struct pollfd){.fd = entry->c != NULL ? entry->c->c.fd : -1, .events = entry->events};
  }
  ready[POLL_LOOP_ROOM] = *own;
  found = poll(ready, POLL_LOOP_ROOM + 1, timeout_ms);
  own->revents = found > 0 ? ready[POLL_LOOP_ROOM].revents : 0;
  for (int i = 0; i < POLL_LOOP_ROOM && found > 0; i++) {
    poll_loop_entry *entry = &poll_loop_entries[i];
    short came = ready[i].revents;
    /* A context may end in a callback of another one, or of its own. */
    if (came & ~POLLOUT && contexts[i] != NULL && entry->c == contexts[i] && entry->events & POLLIN) redisAsyncHandleRead(entry->c);
    if (came & ~POLLIN && contexts[i] != NULL && entry->c == contexts[i] && entry->events & POLLOUT) redisAsyncHandleWrite(entry->c);
  }
  return found;
}

#endif
