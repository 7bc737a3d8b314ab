/* A service over TLS: whom it trusts, what it shows of itself, and what a failure means.
 * cc tls.c $(pkg-config --cflags --libs vigie) -o tls
 * ./tls rediss-sentinel://h1:26379,h2:26379/mymaster ca.crt [client.crt client.key [password of the key]] */
#include <stdio.h>
#include <vigie.h>

int main(int argc, char **argv) {
  vigie_config *config = vigie_config_new();
  vigie_sentinel *sentinel = NULL;
  vigie_client *primary = NULL;
  vigie_reply *reply = NULL;
  vigie_error *err = NULL;
  /* rediss-sentinel:// switches TLS on for both sides; what is left out for the Sentinels (sentinel.tls.ca and so on) is as here. */
  static const char *const names[] = {"uri", "tls.ca", "tls.cert", "tls.key", "tls.key_password"};
  vigie_status status = VIGIE_OK;

  if (argc < 3) {
    fprintf(stderr, "usage: tls rediss-sentinel://... ca.crt [client.crt client.key [password]]\n");
    return 2;
  }
  if (!vigie_has_feature("tls")) {
    fprintf(stderr, "this libvigie was built without TLS (make TLS=0)\n");
    return 2;
  }
  for (int i = 1; i < argc && i <= 5 && status == VIGIE_OK; i++) status = vigie_config_set(config, names[i - 1], argv[i], &err);

  /* Files that are no use fail here, as VIGIE_ERR_CONFIG, before anything is sent. A certificate that is refused fails the first call,
     as VIGIE_ERR_TLS, at once: nothing has run, and to try again would not help. */
  if (status == VIGIE_OK) status = vigie_sentinel_create(config, VIGIE_TIMEOUT_DEFAULT, &sentinel, &err);
  if (status == VIGIE_OK) status = vigie_primary_for(sentinel, NULL, NULL, &primary, &err);
  if (status == VIGIE_OK)
    status = vigie_cmd_exec(primary, VIGIE_CMD("INCR", "tls:visits"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &err);

  if (status == VIGIE_OK) {
    printf("over TLS: visit %lld\n", (long long)vigie_reply_int(reply, VIGIE_ROOT, 0));
  } else {
    const char *kind = status == VIGIE_ERR_TLS      ? "TLS failed, and the message says what to change"
                       : status == VIGIE_ERR_CONFIG ? "the configuration or its files are no use"
                                                    : vigie_status_name(status);
    fprintf(stderr, "%s: %s\n", kind, vigie_error_message(err));
  }
  vigie_error_free(err);
  vigie_reply_free(reply);
  vigie_client_free(primary);
  vigie_sentinel_free(sentinel);
  vigie_config_free(config);
  return status != VIGIE_OK;
}
