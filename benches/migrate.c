/* Moves keys one by one, as a simple script does: DUMP, PTTL, RESTORE, each with a round trip of its own.
 * ./one-by-one SOURCE-PORT TARGET-PORT KEYS
 *
 * The keys are key:0000000 and so on, as scripts/bench-migrate makes them. It ends with a failure if a key does not go. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
    perror("connect");
    exit(1);
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

/* Sends a command and reads its answer, which is one line, or a bulk text behind one. Returns where the answer's content begins. */
static char *ask(int fd, const char *request, size_t len, char *answer, size_t room, size_t *content) {
  size_t got = 0;
  if (write(fd, request, len) != (ssize_t)len) exit(1);
  for (;;) {
    ssize_t more = read(fd, answer + got, room - 1 - got);
    char *end;
    if (more <= 0) exit(1);
    got += (size_t)more;
    answer[got] = 0;
    end = memmem(answer, got, "\r\n", 2);
    if (end == NULL) continue;
    if (answer[0] == '-' || strncmp(answer, "$-1", 3) == 0) {
      fprintf(stderr, "refused: %.*s\n", (int)(end - answer), answer);
      exit(1);
    }
    *content = answer[0] == '$' ? strtoul(answer + 1, NULL, 10) : (size_t)(end - answer) - 1;
    if (answer[0] != '$') return answer + 1;
    if (got >= (size_t)(end + 2 - answer) + *content + 2) return end + 2;
  }
}

int main(int argc, char **argv) {
  static char request[4096], dump[2048], left[64], done[256];
  int source, target;
  long keys;
  if (argc != 4) return 2;
  source = dial(atoi(argv[1]));
  target = dial(atoi(argv[2]));
  keys = atol(argv[3]);
  for (long i = 0; i < keys; i++) {
    char key[32], *payload, *ttl;
    size_t size, digits, ignored;
    int len, key_len = snprintf(key, sizeof key, "key:%07ld", i);
    len = snprintf(request, sizeof request, "*2\r\n$4\r\nDUMP\r\n$%d\r\n%s\r\n", key_len, key);
    payload = ask(source, request, (size_t)len, dump, sizeof dump, &size);
    len = snprintf(request, sizeof request, "*2\r\n$4\r\nPTTL\r\n$%d\r\n%s\r\n", key_len, key);
    ttl = ask(source, request, (size_t)len, left, sizeof left, &digits);
    if (ttl[0] == '-') ttl = "0", digits = 1;
    len = snprintf(request, sizeof request, "*4\r\n$7\r\nRESTORE\r\n$%d\r\n%s\r\n$%zu\r\n%.*s\r\n$%zu\r\n", key_len, key, digits, (int)digits, ttl,
                   size);
    memcpy(request + len, payload, size);
    memcpy(request + len + size, "\r\n", 2);
    ask(target, request, (size_t)len + size + 2, done, sizeof done, &ignored);
  }
  return 0;
}
