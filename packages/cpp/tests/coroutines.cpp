// Calls that are awaited (C++20).
#include "check.hpp"

#include <poll.h>
#include <vigie.hpp>
static_assert(VIGIE_HPP_COROUTINES, "this test needs coroutines");

using namespace std::chrono_literals;

static int finished = 0;

static vigie::detached counts(vigie::reactor &loop, const vigie::client &client, int number) {
  std::string key = "co:" + std::to_string(number);
  for (int round = 0; round < 20; round++) {
    auto got = co_await loop.call(client, "INCR", key);
    CHECK_EQ(vigie::unwrap(std::move(got)).as<int>(), round + 1);
  }
  auto list = client.pipeline();
  list.add("GET", key).add("LPUSH", key, 1);
  auto all = co_await loop.exec(list);
  CHECK((*all)[0].as<int>() == 20 && (*all)[1].is_error());
  auto failed = co_await loop.call(client, "LPUSH", key, 1);
  CHECK_THROWS(vigie::wrong_type_error, vigie::unwrap(std::move(failed)));
  finished++;
}

// Two calls that run at the same time, and one that is cancelled while it is awaited.
static vigie::detached overlaps(vigie::reactor &loop, const vigie::client &client) {
  auto first = loop.call(client, "SET", "o:1", 1);
  auto second = loop.call(client, "SET", "o:2", 2);
  CHECK((co_await second).has_value() && (co_await first).has_value());
  auto blocked = loop.call(client.with(vigie::no_limit), "BLPOP", "nothing", 0);
  blocked.cancel();
  CHECK_EQ((co_await blocked).error().status(), VIGIE_ERR_CANCELLED);
  auto refused = co_await loop.call(client.with(0ms), "PING");
  CHECK_EQ(refused.error().status(), VIGIE_ERR_TIMEOUT);
  finished++;
}

// A coroutine that is destroyed while it waits: its call is cancelled, and its completion finds nobody.
struct owned {
  struct promise_type {
    owned get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};
static owned waits_forever(vigie::reactor &loop, const vigie::client &client) {
  static_cast<void>(co_await loop.call(client.with(vigie::no_limit), "BLPOP", "nothing", 0));
  CHECK(!"nobody pushes");
}

int main() {
  kit kit({"deployment"});
  vigie::client client = vigie::sentinel(kit.uri(), 10s).primary();
  vigie::reactor loop;
  for (int number = 0; number < 64; number++) counts(loop, client, number);
  overlaps(loop, client);
  // As an event loop does it: wait for the descriptor, then take what is there.
  while (finished < 65) {
    pollfd one{loop.fd(), POLLIN, 0};
    CHECK(poll(&one, 1, 60000) == 1);
    loop.poll();
  }
  owned waiting = waits_forever(loop, client);
  CHECK_EQ(loop.in_flight(), 1u);
  waiting.handle.destroy();
  CHECK_EQ(loop.in_flight(), 0u);
  CHECK(loop.run(60s) == 1);

  // A call goes through a failover while its coroutine waits.
  finished = 0;
  counts(loop, client, 1000);
  kit.run("failover");
  while (finished == 0) loop.run();
  std::puts("ok");
}
