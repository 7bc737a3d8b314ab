/* examples-c/service_loop.c as it is written with hiredis: the same service on one event loop, without a thread that waits.
 * ./service_loop mymaster 127.0.0.1:26379 127.0.0.1:26380
 *
 * It keeps three connections to the primary, for orders, for the worker and for the subscriber. Each of them finds the primary by any of the
 * Sentinels, believes a node only after its ROLE, and begins anew when it is lost or silent. It has no fence: a planned failover can take
 * back what a replica had acknowledged. "stop" on standard input ends the program, which then says what it did. */
#define _POSIX_C_SOURCE 200809L
#include "poll_loop.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ORDERS "service:orders"
#define MINE "{service:orders}:processing:loop"
enum { CONNECT_MS = 1000, CALL_MS = 5000, PAUSE_MS = 50, BEAT_MS = 1000, SILENT_MS = 3000 };

typedef enum { NOT_RUN, UNKNOWN, DONE } outcome;

/* A connection to whichever node is the primary. */
typedef struct {
  redisAsyncContext *c;        /* NULL: between two attempts */
  int ready, sentinel;         /* it is the primary; the Sentinel that is asked next */
  long long until;             /* when what is under way has failed, or the next attempt begins; 0: neither */
  void (*found)(void);         /* may be NULL */
  void (*ended)(outcome with); /* a transaction */
} link;

static void start_listening(void);
static void order_ended(outcome with);
static void job_ended(outcome with);

static const char *service;
static char **sentinels;
static int sentinel_count;
static link orders = {.ended = order_ended}, worker = {.ended = job_ended}, news = {.found = start_listening};
static long number, booked, unknown, done, again, heard, gaps;
static int booking, repeats, working, doubt = 1, listened, stopping, over;
static long long next_beat;

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- connections ---- */

/* Gives a connection up: the callbacks of what was under way get no reply. */
static void drop(link *l) {
  redisAsyncContext *c = l->c;
  l->c = NULL;
  l->ready = 0;
  l->until = now() + PAUSE_MS;
  if (c != NULL) redisAsyncFree(c);
}

static void on_disconnect(const redisAsyncContext *c, int status) {
  link *l = c->data;
  (void)status;
  if (l->c != c) return;
  l->c = NULL; /* hiredis frees it */
  drop(l);
}

static void on_connect(const redisAsyncContext *c, int status) {
  if (status != REDIS_OK) on_disconnect(c, status);
}

/* Connects, and sends the first command. */
static void dial(link *l, const char *host, int port, redisCallbackFn *then, const char *command, const char *argument) {
  redisAsyncContext *c = redisAsyncConnect(host, port);
  drop(l);
  if (c == NULL) return;
  if (c->err || poll_loop_attach(c) != REDIS_OK) {
    redisAsyncFree(c);
    return;
  }
  c->data = l;
  l->c = c;
  l->until = now() + CONNECT_MS;
  redisAsyncSetConnectCallback(c, on_connect);
  redisAsyncSetDisconnectCallback(c, on_disconnect);
  if (redisAsyncCommand(c, then, l, command, argument) != REDIS_OK) drop(l);
}

/* Old primaries go on answering, so the node itself is asked. */
static void got_role(redisAsyncContext *c, void *r, void *data) {
  link *l = data;
  redisReply *reply = r;
  if (c != l->c || reply == NULL) return;
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0 || strcmp(reply->element[0]->str, "master") != 0) {
    drop(l);
    return;
  }
  l->ready = 1;
  l->until = 0;
  if (l->found != NULL) l->found();
}

static void got_address(redisAsyncContext *c, void *r, void *data) {
  link *l = data;
  redisReply *reply = r;
  if (c != l->c || reply == NULL) return;
  if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
    dial(l, reply->element[0]->str, atoi(reply->element[1]->str), got_role, "ROLE", NULL);
  else drop(l);
}

/* Asks the next Sentinel. */
static void seek(link *l) {
  char host[256] = "";
  const char *address = sentinels[l->sentinel++ % sentinel_count], *colon = strrchr(address, ':');
  if (colon != NULL && (size_t)(colon - address) < sizeof host) memcpy(host, address, (size_t)(colon - address));
  dial(l, host, colon != NULL ? atoi(colon + 1) : 0, got_address, "SENTINEL get-master-addr-by-name %s", service);
}

static void look_at_clock(link *l) {
  if (l->until == 0 || now() < l->until) return;
  if (l->c != NULL) drop(l);
  else seek(l);
}

/* ---- transactions: EXEC is not sent before all is accepted ---- */

static void end(link *l, outcome with) {
  l->until = 0;
  if (with != DONE) drop(l);
  l->ended(with);
}

static void copied(redisAsyncContext *c, void *r, void *data) {
  redisReply *reply = r;
  (void)c;
  end(data, reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer >= 1 ? DONE : UNKNOWN);
}

static void executed(redisAsyncContext *c, void *r, void *data) {
  redisReply *reply = r;
  if (reply == NULL) end(data, UNKNOWN);
  else if (reply->type != REDIS_REPLY_ARRAY) end(data, NOT_RUN);
  else if (redisAsyncCommand(c, copied, data, "WAIT 1 4000") != REDIS_OK) end(data, UNKNOWN);
}

/* The answer to the last command before EXEC. */
static void queued(redisAsyncContext *c, void *r, void *data) {
  redisReply *reply = r;
  if (reply == NULL || reply->type != REDIS_REPLY_STATUS || redisAsyncCommand(c, executed, data, "EXEC") != REDIS_OK) end(data, NOT_RUN);
}

/* ---- orders ---- */

/* One order: the stock and the job change together, or not at all. */
static void book(void) {
  booking = 1;
  repeats = 0;
  orders.until = now() + CALL_MS;
  redisAsyncCommand(orders.c, NULL, NULL, "MULTI");
  redisAsyncCommand(orders.c, NULL, NULL, "DECR service:stock");
  if (redisAsyncCommand(orders.c, queued, &orders, "LPUSH " ORDERS " %ld", number) != REDIS_OK) end(&orders, NOT_RUN);
}

static void order_ended(outcome with) {
  if (with == NOT_RUN) {
    repeats = 1;
    return;
  }
  booking = 0;
  number++;
  if (with == DONE) booked++;
  else unknown++;
}

/* ---- the worker ---- */

/* Does a job and removes it, both or nothing; to do one twice does no harm. */
static void do_job(const char *order) {
  worker.until = now() + CALL_MS;
  redisAsyncCommand(worker.c, NULL, NULL, "MULTI");
  redisAsyncCommand(worker.c, NULL, NULL, "SADD service:done %s", order);
  redisAsyncCommand(worker.c, NULL, NULL, "LREM " MINE " 1 %s", order);
  if (redisAsyncCommand(worker.c, queued, &worker, "PUBLISH service:news %s", order) != REDIS_OK) end(&worker, NOT_RUN);
}

static void job_ended(outcome with) {
  working = 0;
  if (with == DONE) done++;
  else doubt = 1;
}

/* The job is in the worker's list; it is done when a replica has it there. */
static void held(redisAsyncContext *c, void *r, void *data) {
  char *order = data;
  redisReply *reply = r;
  if (reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer >= 1 && c == worker.c) do_job(order);
  else end(&worker, NOT_RUN);
  free(order);
}

static void took(redisAsyncContext *c, void *r, void *data) {
  redisReply *reply = r;
  char *order;
  (void)data;
  if (reply == NULL || (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_NIL)) {
    end(&worker, NOT_RUN);
  } else if (reply->type == REDIS_REPLY_NIL) {
    over = !doubt && stopping && !booking; /* nothing is left */
    doubt = working = 0;
    worker.until = 0;
  } else if (doubt) {
    again++;
    do_job(reply->str);
  } else {
    order = strdup(reply->str);
    if (order == NULL || redisAsyncCommand(c, held, order, "WAIT 1 4000") != REDIS_OK) {
      free(order);
      end(&worker, NOT_RUN);
    }
  }
}

/* The worker's next step: what it has in hand after something was lost, else the next job. */
static void next_job(void) {
  working = 1;
  worker.until = now() + CALL_MS;
  if (redisAsyncCommand(worker.c, took, NULL, doubt ? "LINDEX " MINE " -1" : "BLMOVE " ORDERS " " MINE " RIGHT LEFT 0.5") != REDIS_OK)
    end(&worker, NOT_RUN);
}

/* ---- the subscriber ---- */

static void came(redisAsyncContext *c, void *r, void *data) {
  redisReply *reply = r;
  (void)data;
  if (c != news.c || reply == NULL) return;
  if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) {
    drop(&news);
    return;
  }
  news.until = now() + SILENT_MS;
  if (strcmp(reply->element[0]->str, "subscribe") == 0) gaps += listened++ > 0;
  else heard += reply->element[2]->len > 0;
}

static void start_listening(void) {
  news.until = now() + SILENT_MS;
  if (redisAsyncCommand(news.c, came, NULL, "SUBSCRIBE service:news") != REDIS_OK) drop(&news);
}

/* An empty message every second shows that the subscription hears the primary. */
static void beat(void) {
  if (now() < next_beat) return;
  next_beat = now() + BEAT_MS;
  redisAsyncCommand(orders.c, NULL, NULL, "PUBLISH service:news %s", "");
}

int main(int argc, char **argv) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  link *links[] = {&orders, &worker, &news};

  if (argc < 3) {
    fprintf(stderr, "%s SERVICE SENTINEL:PORT...\n", argv[0]);
    return 1;
  }
  service = argv[1];
  sentinels = argv + 2;
  sentinel_count = argc - 2;
  signal(SIGPIPE, SIG_IGN); /* hiredis writes to connections that the server has closed */
  for (int i = 0; i < 3; i++) seek(links[i]);
  printf("serving\n");
  fflush(stdout);

  while (!over) {
    int is_free = orders.ready && !booking, is_idle = poll_loop_wait(&input, is_free && !stopping ? 1 : 20) == 0;
    for (int i = 0; i < 3; i++) look_at_clock(links[i]);
    if (orders.ready && !booking) beat();
    if (orders.ready && (repeats || (!booking && !stopping && is_idle))) book();
    if (worker.ready && !working) next_job();
    if (input.revents) stopping = 1, input.fd = -1;
  }
  printf("booked %ld, unknown %ld, done %ld, again %ld, heard %ld, gaps %ld\n", booked, unknown, done, again, heard, gaps);
  for (int i = 0; i < 3; i++)
    if (links[i]->c != NULL) redisAsyncFree(links[i]->c);
  return 0;
}
