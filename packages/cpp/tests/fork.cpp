// A prefork server of four: a client that was made before the fork works in every child, while its parent goes on calling (fork=reopen), and
// says so where it does not (the default).
#include "check.hpp"

#include <atomic>
#include <thread>
#include <vigie.hpp>

using namespace std::chrono_literals;

// What a child does: its own replies and nobody else's.
static int serve(const vigie::client &client, int number, int rounds) {
  std::string key = "fork:" + std::to_string(number);
  try {
    for (int round = 0; round < rounds; round++) {
      std::string text = key + ":" + std::to_string(round);
      client.call("SET", key, text);
      if (client.call("GET", key).as<std::string>() != text) return 2;
      client.transaction({key}, [&](vigie::session &, vigie::pipeline &list) { list.add("APPEND", key, "!"); });
    }
    vigie::reactor loop;
    bool is_over = false;
    loop.call_then(client, [&](vigie::result<vigie::reply> got) { is_over = got.has_value(); }, "PING");
    while (!is_over) loop.run(60s);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "child %d: %s\n", number, error.what());
    return 1;
  }
  return 0;
}

int main() {
  kit kit({"deployment"});
  {
    vigie::client client = vigie::sentinel(kit.uri(), 10s).primary();
    client.call("PING");
    pid_t child = fork();
    if (child == 0) {
      auto got = client.try_call("PING");
      std::_Exit(!got && got.error().status() == VIGIE_ERR_FORKED ? 0 : 1);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
  }
  vigie::client client = vigie::sentinel(kit.uri() + "?fork=reopen", 10s).primary();
  client.call("PING");
  std::atomic<bool> is_over{false};
  std::thread parent([&] {
    while (!is_over) CHECK_EQ(serve(client, 0, 1), 0);
  });
  std::vector<pid_t> children;
  for (int number = 1; number <= 4; number++) {
    pid_t child = fork();
    if (child == 0) std::_Exit(serve(client, number, 100));
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
  }
  is_over = true;
  parent.join();
  std::puts("ok");
}
