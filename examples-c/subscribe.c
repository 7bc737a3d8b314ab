/* Subscribe: messages of channels and patterns, through failovers.
 * ./subscribe redis-sentinel://127.0.0.1:26379,127.0.0.1:26380/mymaster [MESSAGES] [NAME...]
 *
 * It ends after so many messages (1 if none are given). A name with an asterisk is a pattern; "news" if none are given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vigie.h>

enum { ROOM = 64, CAPACITY = 64 };

static void die(const char *what, vigie_error *err) {
  fprintf(stderr, "%s: %s: %s\n", what, vigie_status_name(vigie_error_status(err)), vigie_error_message(err));
  vigie_error_free(err);
  exit(1);
}

static const char *part(const vigie_reply *reply, uint32_t index) {
  const char *text = vigie_reply_bytes(reply, vigie_reply_child(reply, VIGIE_ROOT, index), NULL);
  return text != NULL ? text : "-";
}

/* A field of the MAP of a gap. */
static uint32_t field(const vigie_reply *reply, const char *key) {
  return vigie_reply_find(reply, VIGIE_ROOT, key, strlen(key));
}

/* Prints an event; 1 if it is a message. */
static int told(const vigie_event *event) {
  const vigie_reply *reply = event->reply;
  if (event->status != VIGIE_OK) { /* a channel that was refused, or a server that lets us in no more: it goes on trying */
    printf("refused   %s\n", vigie_error_message(event->error));
    return 0;
  }
  switch (event->kind) {
    case VIGIE_EVENT_MESSAGE:
      if (strcmp(part(reply, 0), "message") == 0) {
        printf("message   %s: %s\n", part(reply, 1), part(reply, 2));
        return 1;
      }
      if (strcmp(part(reply, 0), "pmessage") == 0) {
        printf("message   %s: %s (by %s)\n", part(reply, 2), part(reply, 3), part(reply, 1));
        return 1;
      }
      printf("listening %s\n", part(reply, 1)); /* subscribe, psubscribe */
      return 0;
    case VIGIE_EVENT_SUB_GAP: /* what messages would have told has to be read from the database now */
      printf("gap       %lld ms, now at %s (%s)\n", (long long)vigie_reply_int(reply, field(reply, "gap_ms"), 0),
             vigie_reply_bytes(reply, field(reply, "to"), NULL), vigie_reply_bytes(reply, field(reply, "cause"), NULL));
      return 0;
    case VIGIE_EVENT_DROPPED: /* drained too slowly */
      printf("dropped   %lld messages\n", (long long)vigie_reply_int(reply, VIGIE_ROOT, 0));
      return 0;
    default: return 0; /* more kinds may come */
  }
}

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *client = NULL;
  vigie_queue *queue = NULL;
  vigie_sub *sub = NULL;
  vigie_error *err = NULL;
  vigie_event events[ROOM];
  int left = argc > 2 ? atoi(argv[2]) : 1;

  setvbuf(stdout, NULL, _IOLBF, 0);
  if (vigie_config_set(config, "uri", argc > 1 ? argv[1] : "", &err) != VIGIE_OK) die("configuration", err);
  if (vigie_sentinel_create(config, 2000, &sentinel, &err) != VIGIE_OK) die("sentinels", err);
  if (vigie_primary_for(sentinel, NULL, NULL, &client, &err) != VIGIE_OK) die("client", err);
  if (vigie_queue_create(CAPACITY, &queue, &err) != VIGIE_OK) die("queue", err);
  if (vigie_sub_for(client, queue, 1, NULL, &sub, &err) != VIGIE_OK) die("subscription", err);
  for (int i = 3; i < (argc > 3 ? argc : 4); i++) {
    const char *name = argc > 3 ? argv[i] : "news";
    const char *command = strchr(name, '*') != NULL ? "PSUBSCRIBE" : "SUBSCRIBE";
    /* Without a timeout the wish is noted, and the answer is an event. */
    if (vigie_sub_exec(sub, VIGIE_CMD(command, name), 0, &err) != VIGIE_OK) die("subscribe", err);
  }

  while (left > 0) {
    int32_t count = vigie_queue_drain(queue, VIGIE_TIMEOUT_NONE, events, ROOM);
    for (int32_t i = 0; i < count; i++) left -= told(&events[i]);
    vigie_events_clear(events, count > 0 ? (size_t)count : 0);
  }

  vigie_sub_free(sub);
  vigie_queue_free(queue);
  vigie_client_free(client);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return 0;
}
