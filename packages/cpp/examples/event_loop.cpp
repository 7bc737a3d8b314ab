// An event loop with coroutines (C++20): many calls at a time on one thread, and changes of the topology beside them. With asio the loop is
//   asio::posix::stream_descriptor ready(context, dup(loop.fd()));
//   ready.async_wait(ready.wait_read, [&](auto) { loop.poll(); /* and wait again */ });
//
// usage: event_loop URI
#include <iostream>
#include <poll.h>
#include <vigie.hpp>

static int left = 100;

static vigie::detached count_to_ten(vigie::reactor &loop, const vigie::client &redis, int number) {
  std::string key = "loop:" + std::to_string(number);
  for (int at = 0; at < 10; at++) {
    auto got = co_await loop.call(redis, "INCR", key);
    if (!got) std::cerr << got.error().what() << std::endl;
  }
  left--;
}

int main(int, char **argv) {
  vigie::sentinel sentinel(argv[1]);
  vigie::client redis = sentinel.primary();
  vigie::reactor loop;
  loop.on_event([](vigie::event &event) {
    if (event.kind() == vigie::event_kind::topology) std::cout << "the primary is " << event.reply()["to"].text() << std::endl;
  });
  sentinel.watch(loop.queue());
  for (int number = 0; number < 100; number++) count_to_ten(loop, redis, number);
  while (left > 0) {
    pollfd ready{loop.fd(), POLLIN, 0};
    poll(&ready, 1, -1);
    loop.poll();
  }
  std::cout << "1000 calls" << std::endl;
}
