/* The engine of vigie's design and nothing besides: one connection, one lock, a ring of callers, the roles of a reader and a writer, bytes
 * that are held back while a batch is unanswered, one wake-up call for all whose bits share a word, a deadline in each sleep. No Sentinel,
 * one command whose replies have one length, no failure that is survived, no call that is given up. What it reaches is what the design
 * can reach on the machine. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RING = 1024, BITS = 32, MARKS = 64, BUFFER = 1 << 16, HOLD_CALLS = 3, SECONDS = 5 };
enum { PARKED = 1, DONE = 2, LEAD = 4 };

typedef struct {
  atomic_uint state;
  void *reply;
} slot;

struct shim_engine {
  int fd;
  size_t command_length, reply_length;
  char command[128];
  pthread_mutex_t mutex;
  char out[2][BUFFER];
  size_t out_length;
  int side, writer, reader;
  slot *ring[RING];
  unsigned long head, tail;
  unsigned long marks[MARKS]; /* the last call of each batch that was sent */
  unsigned first_mark, next_mark;
  atomic_uint words[RING / BITS];
  char in[BUFFER];
  size_t in_length;
  struct {
    slot *slot;
    void *reply;
    unsigned long place;
  } complete[RING];
  atomic_int failed;
};
typedef struct shim_engine engine;

static void lock(engine *e) { pthread_mutex_lock(&e->mutex); }
static void unlock(engine *e) { pthread_mutex_unlock(&e->mutex); }

static void wake(engine *e, unsigned long word, unsigned bits) {
  atomic_fetch_add(&e->words[word], 1);
  syscall(SYS_futex, &e->words[word], FUTEX_WAKE_BITSET_PRIVATE, 0x7fffffff, NULL, NULL, bits);
}

/* Not while a batch is unanswered and some calls are in flight. */
static int may_flush(engine *e) {
  while (e->first_mark != e->next_mark && e->marks[e->first_mark % MARKS] < e->head) e->first_mark++;
  return e->first_mark == e->next_mark || e->tail - e->head < HOLD_CALLS;
}

/* The writer's role: entered and left with the lock. */
static void flush(engine *e) {
  e->writer = 1;
  do {
    char *bytes = e->out[e->side];
    size_t length = e->out_length, sent = 0;
    e->side ^= 1;
    e->out_length = 0;
    e->marks[e->next_mark++ % MARKS] = e->tail - 1;
    unlock(e);
    while (sent < length) {
      ssize_t taken = send(e->fd, bytes + sent, length - sent, MSG_NOSIGNAL);
      if (taken <= 0) {
        atomic_store(&e->failed, 1);
        break;
      }
      sent += (size_t)taken;
    }
    lock(e);
  } while (e->out_length > 0 && may_flush(e));
  e->writer = 0;
}

static void flush_if_due(engine *e) {
  if (e->out_length > 0 && !e->writer && may_flush(e)) flush(e);
}

/* Takes the complete replies out of what was received. */
static size_t take(engine *e) {
  size_t count = e->in_length / e->reply_length;
  for (size_t at = 0; at < count; at++) {
    e->complete[at].reply = malloc(e->reply_length);
    if (e->complete[at].reply) memcpy(e->complete[at].reply, e->in + at * e->reply_length, e->reply_length);
  }
  e->in_length -= count * e->reply_length;
  memmove(e->in, e->in + count * e->reply_length, e->in_length);
  return count;
}

static void hand_over(engine *e, size_t count) {
  unsigned long word = 0;
  unsigned bits = 0;
  for (size_t at = 0; at < count; at++) {
    unsigned long place = e->complete[at].place % RING;
    slot *to = e->complete[at].slot;
    to->reply = e->complete[at].reply;
    if (!(atomic_fetch_or(&to->state, DONE) & PARKED)) continue;
    if (bits && word != place / BITS) {
      wake(e, word, bits);
      bits = 0;
    }
    word = place / BITS;
    bits |= 1u << place % BITS;
  }
  if (bits) wake(e, word, bits);
}

/* The reader's role: until the own reply is there, then the next caller's. */
static void lead(engine *e, slot *own) {
  while (!(atomic_load(&own->state) & DONE) && !atomic_load(&e->failed)) {
    ssize_t got = recv(e->fd, e->in + e->in_length, BUFFER - e->in_length, 0);
    if (got <= 0) {
      atomic_store(&e->failed, 1);
      break;
    }
    e->in_length += (size_t)got;
    size_t count = take(e);
    lock(e);
    for (size_t at = 0; at < count; at++, e->head++) {
      e->complete[at].slot = e->ring[e->head % RING];
      e->complete[at].place = e->head;
    }
    flush_if_due(e);
    unlock(e);
    hand_over(e, count);
    lock(e);
    flush_if_due(e);
    unlock(e);
  }
  lock(e);
  unsigned long next = e->head % RING;
  int asleep = 0;
  e->reader = e->head != e->tail;
  if (e->reader) asleep = atomic_fetch_or(&e->ring[next]->state, LEAD) & PARKED;
  unlock(e);
  if (asleep) wake(e, next / BITS, 1u << next % BITS);
}

static void follow(engine *e, slot *own, unsigned long place, const struct timespec *end) {
  while (!atomic_load(&e->failed)) {
    unsigned ticket = atomic_load(&e->words[place / BITS]);
    unsigned state = atomic_fetch_or(&own->state, PARKED);
    if (state & LEAD) {
      atomic_fetch_and(&own->state, ~(unsigned)(LEAD | PARKED));
      lead(e, own);
    } else if (state & DONE) {
      return;
    } else {
      syscall(SYS_futex, &e->words[place / BITS], FUTEX_WAIT_BITSET_PRIVATE, ticket, end, NULL, 1u << place % BITS);
      struct timespec now;
      if (atomic_load(&own->state) & (DONE | LEAD)) continue;
      clock_gettime(CLOCK_MONOTONIC, &now);
      if (now.tv_sec > end->tv_sec) atomic_store(&e->failed, 1);
    }
  }
}

/* One call: 0, or -1 when the engine has failed, which ends the program that measures it. */
int shim_engine_call(engine *e) {
  slot own = {0, NULL};
  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += SECONDS;
  lock(e);
  if (e->out_length + e->command_length > BUFFER || e->tail - e->head == RING) atomic_store(&e->failed, 1);
  if (atomic_load(&e->failed)) {
    unlock(e);
    return -1;
  }
  memcpy(e->out[e->side] + e->out_length, e->command, e->command_length);
  e->out_length += e->command_length;
  unsigned long place = e->tail++ % RING;
  e->ring[place] = &own;
  flush_if_due(e);
  int leads = !e->reader && !(atomic_load(&own.state) & DONE);
  if (leads) e->reader = 1;
  unlock(e);
  if (leads) lead(e, &own);
  else follow(e, &own, place, &end);
  int right = own.reply && ((char *)own.reply)[0] == '$';
  free(own.reply);
  return right ? 0 : -1;
}

engine *shim_engine_open(const char *host, int port, const char *command, size_t length, size_t reply_length) {
  engine *e = calloc(1, sizeof *e);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  int one = 1;
  if (!e || length > sizeof e->command || inet_pton(AF_INET, host, &to.sin_addr) != 1) {
    free(e);
    return NULL;
  }
  pthread_mutex_init(&e->mutex, NULL);
  memcpy(e->command, command, length);
  e->command_length = length;
  e->reply_length = reply_length;
  e->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (e->fd < 0 || connect(e->fd, (struct sockaddr *)&to, sizeof to) != 0) atomic_store(&e->failed, 1);
  setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return e;
}

void shim_engine_close(engine *e) {
  if (!e) return;
  close(e->fd);
  pthread_mutex_destroy(&e->mutex);
  free(e);
}
