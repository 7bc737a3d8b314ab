// With -fno-exceptions: everything through try_... and results.
#include "check_plain.hpp"

#include <vigie.hpp>
static_assert(!VIGIE_HPP_EXCEPTIONS, "this test is compiled with -fno-exceptions");

int main(int argc, char **argv) {
  CHECK(argc == 2);
  vigie::config config;
  CHECK(!config.try_set("no.such.key", "1"));
  CHECK(config.try_set("uri", argv[1]).has_value());
  auto sentinel = vigie::sentinel::try_open(config, std::chrono::seconds(10));
  CHECK(sentinel.has_value());
  auto client = sentinel->try_primary();
  CHECK(client.has_value());
  CHECK(client->try_call("SET", "plain", 42).has_value());
  auto got = client->try_call("GET", "plain");
  CHECK(got && got->try_as<int>().value_or(0) == 42);
  CHECK(!got->try_as<std::vector<int>>());
  auto failed = client->try_call("LPUSH", "plain", 1);
  CHECK(!failed && failed.error().code() == "WRONGTYPE" && !failed.error().is_maybe_executed());
  auto session = client->try_session();
  CHECK(session && session->try_watch("plain"));
  auto list = session->multi();
  list.add("INCR", "plain");
  CHECK(client->try_call("SET", "plain", 1).has_value());
  auto aborted = list.try_exec();
  CHECK(!aborted && aborted.error().status() == VIGIE_ERR_TXN_ABORTED && aborted.error().retryable());
  auto scan = vigie::scan_handle::try_open(*client, 0, "SCAN", "0", "MATCH", "plain");
  CHECK(scan.has_value());
  auto page = scan->try_next();
  CHECK(page && (*page)[0].text() == "plain");
  auto loop = vigie::reactor::try_create();
  CHECK(loop.has_value());
  int seen = 0;
  CHECK(loop->try_call_then(*client, [&](vigie::result<vigie::reply> reply) { seen = reply->try_as<int>().value_or(-1); }, "GET", "plain").has_value());
  while (seen == 0) CHECK(loop->try_run().has_value());
  CHECK(seen == 1);
  auto queue = vigie::queue::try_create(16);
  CHECK(queue.has_value());
  auto sub = vigie::subscription::try_open(*client, *queue, 7);
  CHECK(sub && sub->try_exec({}, "SUBSCRIBE", "news"));
  CHECK(client->try_call("PUBLISH", "news", "hello").has_value());
  for (;;) {
    auto event = queue->try_next(std::chrono::seconds(60));
    CHECK(event && *event && (*event)->token() == 7);
    if ((*event)->reply()[0].text() == "message") break;
  }
  CHECK(client->try_close().has_value() && client->is_closed());
  CHECK(client->try_call("PING").error().status() == VIGIE_ERR_CLOSED);
  std::puts("ok");
}
