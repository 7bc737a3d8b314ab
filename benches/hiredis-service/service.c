/* examples-c/service.c as it is written with hiredis: transactions, a subscriber and a worker, each on a thread of its own.
 * ./service mymaster 127.0.0.1:26379 127.0.0.1:26380
 *
 * It finds the primary by any of the Sentinels, believes a node only after its ROLE, repeats what certainly did not run, waits for a replica
 * after each write, and keeps the job in hand in a list of its own. It has no fence: a planned failover can take back what a replica had
 * acknowledged. "stop" on standard input ends the program, which then says what it did. */
#define _POSIX_C_SOURCE 200809L
#include <hiredis/hiredis.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDERS "service:orders"
#define MINE "{service:orders}:processing:worker-1"

typedef enum { NOT_RUN, UNKNOWN, DONE } outcome;

static const char *service;
static char **sentinels;
static int sentinel_count;
static atomic_int stopping;
static long booked, unknown, done, again, heard, gaps;

/* NULL: it cannot be had. */
static redisContext *dial(const char *host, int port, int timeout_ms) {
  struct timeval connecting = {0, 500000}, waiting = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
  redisContext *c = redisConnectWithTimeout(host, port, connecting);
  if (c != NULL && !c->err && redisSetTimeout(c, waiting) == REDIS_OK) return c;
  if (c != NULL) redisFree(c);
  return NULL;
}

/* Old primaries go on answering, so the node itself is asked. */
static int is_primary(redisContext *c) {
  redisReply *reply = redisCommand(c, "ROLE");
  int yes = reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 && strcmp(reply->element[0]->str, "master") == 0;
  freeReplyObject(reply);
  return yes;
}

/* A connection to the primary that this Sentinel names, or NULL. */
static redisContext *ask(const char *address) {
  char host[256];
  const char *colon = strrchr(address, ':');
  redisContext *sentinel, *primary = NULL;
  redisReply *reply;

  if (colon == NULL || (size_t)(colon - address) >= sizeof host) return NULL;
  memcpy(host, address, (size_t)(colon - address));
  host[colon - address] = '\0';
  sentinel = dial(host, atoi(colon + 1), 500);
  if (sentinel == NULL) return NULL;
  reply = redisCommand(sentinel, "SENTINEL get-master-addr-by-name %s", service);
  if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
    primary = dial(reply->element[0]->str, atoi(reply->element[1]->str), 5000);
  if (primary != NULL && !is_primary(primary)) {
    redisFree(primary);
    primary = NULL;
  }
  freeReplyObject(reply);
  redisFree(sentinel);
  return primary;
}

static redisContext *find_primary(void) {
  for (int i = 0;; i = (i + 1) % sentinel_count) {
    redisContext *c = ask(sentinels[i]);
    if (c != NULL) return c;
    if (i == sentinel_count - 1) poll(NULL, 0, 50);
  }
}

static void reconnect(redisContext **c) {
  redisFree(*c);
  *c = find_primary();
}

/* Whether a replica has all that was written on this connection. */
static int is_copied(redisContext *c) {
  redisReply *reply = redisCommand(c, "WAIT 1 4000");
  int yes = reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer >= 1;
  freeReplyObject(reply);
  return yes;
}

/* Runs a transaction of which MULTI and so many commands were appended. EXEC is not sent before all of them are accepted. Unless it is
 * done the connection is of no more use. */
static outcome commit(redisContext *c, int commands) {
  outcome end = NOT_RUN;
  redisReply *reply;
  int refused = 0;
  for (int i = 0; i <= commands; i++) {
    if (redisGetReply(c, (void **)&reply) != REDIS_OK) return NOT_RUN;
    refused |= reply->type != REDIS_REPLY_STATUS;
    freeReplyObject(reply);
  }
  if (refused) return NOT_RUN;
  reply = redisCommand(c, "EXEC");
  if (reply == NULL) return UNKNOWN;
  if (reply->type == REDIS_REPLY_ARRAY) end = is_copied(c) ? DONE : UNKNOWN;
  freeReplyObject(reply);
  return end;
}

/* One order: the stock and the job change together, or not at all. */
static void book(redisContext **c, long number) {
  outcome end;
  do {
    redisAppendCommand(*c, "MULTI");
    redisAppendCommand(*c, "DECR service:stock");
    redisAppendCommand(*c, "LPUSH " ORDERS " %ld", number);
    end = commit(*c, 2);
    if (end != DONE) reconnect(c);
  } while (end == NOT_RUN);
  if (end == DONE) booked++;
  else unknown++;
}

/* Does a job and removes it, both or nothing; to do one twice does no harm. */
static outcome do_job(redisContext *c, const char *order) {
  redisAppendCommand(c, "MULTI");
  redisAppendCommand(c, "SADD service:done %s", order);
  redisAppendCommand(c, "LREM " MINE " 1 %s", order);
  redisAppendCommand(c, "PUBLISH service:news %s", order);
  return commit(c, 3);
}

static void *work(void *unused) {
  redisContext *c = find_primary();
  int doubt = 1; /* what it had in hand when it ended, or when something was lost */
  while (!stopping) {
    redisReply *job = redisCommand(c, doubt ? "LINDEX " MINE " -1" : "BLMOVE " ORDERS " " MINE " RIGHT LEFT 0.5");
    int lost = job == NULL || job->type == REDIS_REPLY_ERROR;
    if (!lost && job->type == REDIS_REPLY_NIL) doubt = 0;
    if (!lost && job->type == REDIS_REPLY_STRING) {
      again += doubt;
      lost = !(doubt || is_copied(c)) || do_job(c, job->str) != DONE;
      done += !lost;
    }
    if (lost) {
      doubt = 1;
      reconnect(&c);
    }
    freeReplyObject(job);
  }
  redisFree(c);
  return unused;
}

static redisContext *subscribe(void) {
  for (;;) {
    redisContext *c = find_primary();
    redisReply *reply = redisCommand(c, "SUBSCRIBE service:news");
    int is_heard = reply != NULL && reply->type == REDIS_REPLY_ARRAY;
    freeReplyObject(reply);
    if (is_heard) return c;
    redisFree(c);
  }
}

/* Takes what has come. False: the connection is gone. */
static int receive(redisContext *c) {
  redisReply *reply = NULL;
  if (redisBufferRead(c) != REDIS_OK) return 0;
  while (redisGetReplyFromReader(c, (void **)&reply) == REDIS_OK && reply != NULL) {
    heard += reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 && strcmp(reply->element[0]->str, "message") == 0;
    freeReplyObject(reply);
  }
  return !c->err;
}

static int send_ping(redisContext *c) {
  int sent = 0;
  redisAppendCommand(c, "PING");
  while (!sent)
    if (redisBufferWrite(c, &sent) != REDIS_OK) return 0;
  return 1;
}

static void *listen_to_news(void *unused) {
  redisContext *c = subscribe();
  int asked = 0;
  while (!stopping) {
    struct pollfd ready = {.fd = c->fd, .events = POLLIN};
    int lives;
    if (poll(&ready, 1, 1000) > 0) {
      lives = receive(c);
      asked = 0;
    } else {
      lives = !asked && send_ping(c);
      asked = 1;
    }
    if (lives) continue;
    redisFree(c);
    c = subscribe();
    asked = 0;
    gaps++;
  }
  redisFree(c);
  return unused;
}

int main(int argc, char **argv) {
  pthread_t worker, listener;
  redisContext *c;
  struct pollfd input = {.fd = 0, .events = POLLIN};

  if (argc < 3) {
    fprintf(stderr, "%s SERVICE SENTINEL:PORT...\n", argv[0]);
    return 1;
  }
  service = argv[1];
  sentinels = argv + 2;
  sentinel_count = argc - 2;
  signal(SIGPIPE, SIG_IGN); /* hiredis writes to connections that the server has closed */
  c = find_primary();
  pthread_create(&worker, NULL, work, NULL);
  pthread_create(&listener, NULL, listen_to_news, NULL);

  printf("serving\n");
  fflush(stdout);
  for (long number = 0; poll(&input, 1, 1) == 0; number++) book(&c, number);

  /* What was booked is done before the end. */
  for (long long left = 1; left > 0; poll(NULL, 0, 10)) {
    redisReply *waiting = redisCommand(c, "LLEN " ORDERS), *held = redisCommand(c, "LLEN " MINE);
    if (waiting == NULL || held == NULL || waiting->type != REDIS_REPLY_INTEGER || held->type != REDIS_REPLY_INTEGER) reconnect(&c);
    else left = waiting->integer + held->integer;
    freeReplyObject(waiting);
    freeReplyObject(held);
  }
  stopping = 1;
  pthread_join(worker, NULL);
  pthread_join(listener, NULL);
  printf("booked %ld, unknown %ld, done %ld, again %ld, heard %ld, gaps %ld\n", booked, unknown, done, again, heard, gaps);
  redisFree(c);
  return 0;
}
