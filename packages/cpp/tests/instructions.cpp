// What packages/cpp/test counts with valgrind: the same GETs by the C functions and by vigie.hpp, from the call to the freed reply.
#include "check_plain.hpp"

#include <cstring>
#include <vigie.hpp>

#define VALUE "0123456789012345678901234567890123456789012345678901234567890123"

static void by_c(vigie_client *client, int commands) {
  for (int at = 0; at < commands; at++) {
    vigie_error *error = nullptr;
    vigie_reply *reply = nullptr;
    std::size_t len = 0;
    vigie_status got = vigie_cmd_exec(client, VIGIE_CMD("GET", "instructions"), 0, VIGIE_TIMEOUT_DEFAULT, &reply, &error);
    CHECK(got == VIGIE_OK && vigie_reply_bytes(reply, VIGIE_ROOT, &len) != nullptr && len == sizeof VALUE - 1);
    vigie_reply_free(reply);
  }
}
static void by_cpp(const vigie::client &client, int commands) {
  for (int at = 0; at < commands; at++) {
    vigie::reply got = client.call("GET", "instructions");
    CHECK(got.as<std::string_view>().size() == sizeof VALUE - 1);
  }
}
static void by_try(const vigie::client &client, int commands) {
  for (int at = 0; at < commands; at++) {
    auto got = client.try_call("GET", "instructions");
    CHECK(got && got->text().size() == sizeof VALUE - 1);
  }
}

static void run(const vigie::client &client, const char *way, int commands) {
  if (std::strcmp(way, "c") == 0) return by_c(client.get(), commands);
  if (std::strcmp(way, "cpp") == 0) return by_cpp(client, commands);
  by_try(client, commands);
}
extern "C" __attribute__((noinline)) void measured(const vigie::client &client, const char *way, int commands) { run(client, way, commands); }

int main(int argc, char **argv) {
  CHECK(argc == 4);
  vigie::config config{{"uri", argv[1]}, {"timeout.call", "60s"}};
  vigie::client client = vigie::sentinel(config, std::chrono::seconds(60)).primary();
  client.call("SET", "instructions", VALUE);
  run(client, argv[2], 200);
  measured(client, argv[2], std::atoi(argv[3]));
  std::puts("ok");
}
