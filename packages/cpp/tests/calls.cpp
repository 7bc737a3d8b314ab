// Every part of the interface once, over real Sentinels: calls, conversions, lists, transactions, scripts, scans, messages, jobs, events.
#include "check.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <set>
#include <unordered_map>
#include <poll.h>
#include <thread>
#include <vigie.hpp>

using namespace std::chrono_literals;
using vigie::flags;

static void conversions(const vigie::client &client) {
  client.call("SET", "text", "value");
  client.call("SET", "number", 42);
  client.call("DEL", "list", "hash", "zset");
  client.call("RPUSH", "list", 1, 2, 3);
  client.call("HSET", "hash", "a", 1, "b", 2.5);
  client.call("ZADD", "zset", 1.5, "m", 2.5, "n");

  CHECK_EQ(client.call("GET", "text").as<std::string>(), "value");
  CHECK(client.call("GET", "none").as<std::optional<std::string>>() == std::nullopt);
  CHECK_EQ(*client.call("GET", "number").as<std::optional<int>>(), 42);
  CHECK_EQ(client.call("GET", "number").as<std::int64_t>(), 42);
  CHECK_EQ(client.call("GET", "number").as<double>(), 42.0);
  CHECK_EQ(client.call("EXISTS", "text").as<bool>(), true);
  CHECK((client.call("LRANGE", "list", 0, -1).as<std::vector<int>>() == std::vector<int>{1, 2, 3}));
  CHECK((client.call("LRANGE", "list", 0, -1).as<std::deque<std::string>>() == std::deque<std::string>{"1", "2", "3"}));
  CHECK((client.call("LRANGE", "list", 0, -1).as<std::set<unsigned char>>() == std::set<unsigned char>{1, 2, 3}));
  CHECK((client.call("LRANGE", "list", 0, -1).as<std::array<long, 3>>() == std::array<long, 3>{1, 2, 3}));
  auto [one, two, three] = client.call("LRANGE", "list", 0, -1).as<std::tuple<int, std::string, double>>();
  CHECK(one == 1 && two == "2" && three == 3.0);
  CHECK((client.call("HGETALL", "hash").as<std::map<std::string, double>>() == std::map<std::string, double>{{"a", 1}, {"b", 2.5}}));
  CHECK_EQ((client.call("HGETALL", "hash").as<std::unordered_map<std::string, std::string>>().at("b")), "2.5");
  auto scores = client.call("ZRANGE", "zset", 0, -1, "WITHSCORES").as<std::vector<std::pair<std::string, double>>>();
  CHECK((scores == std::vector<std::pair<std::string, double>>{{"m", 1.5}, {"n", 2.5}}));
  auto both = client.call("MGET", "text", "none").as<std::pair<std::string, std::optional<std::string>>>();
  CHECK(both.first == "value" && !both.second);

  // A view points into a reply that is kept.
  vigie::reply kept = client.call("LRANGE", "list", 0, -1);
  CHECK((kept.as<std::vector<std::string_view>>() == std::vector<std::string_view>{"1", "2", "3"}));
  vigie::reply moved = std::move(kept);
  CHECK(!kept && moved.size() == 3 && moved[2].as<int>() == 3 && !moved[3] && moved[0].text() == "1");
  vigie::reply hash = client.call("HGETALL", "hash");
  CHECK_EQ(hash["b"].as<double>(), 2.5);
  CHECK(!hash["c"]);

  CHECK_THROWS(vigie::conversion_error, client.call("GET", "text").as<int>());
  CHECK_THROWS(vigie::conversion_error, client.call("GET", "none").as<std::string>());
  CHECK_THROWS(vigie::conversion_error, client.call("GET", "number").as<std::vector<int>>());
  CHECK_THROWS(vigie::conversion_error, (client.call("LRANGE", "list", 0, -1).as<std::tuple<int, int>>()));
  client.call("SET", "large", 300);
  CHECK_THROWS(vigie::conversion_error, client.call("GET", "large").as<std::uint8_t>());
  CHECK_THROWS(vigie::conversion_error, client.call("DECRBY", "number", 100).as<unsigned>());
  auto failed = client.try_call("GET", "text")->try_as<int>();
  CHECK(!failed && failed.error().message().find("STRING cannot be read as an integer") != std::string_view::npos);
}

static void arguments(const vigie::client &client) {
  std::string with_nul("a\0b", 3);
  client.call("SET", "binary", with_nul);
  CHECK_EQ(client.call("GET", "binary").as<std::string>(), with_nul);
  std::vector<std::byte> bytes{std::byte{0}, std::byte{255}};
  client.call(std::string("SET"), std::string_view("binary"), bytes);
  CHECK_EQ(client.call("STRLEN", "binary").as<int>(), 2);
  client.call("SET", "float", 0.1f);
  CHECK_EQ(client.call("GET", "float").as<std::string>(), "0.1");
  CHECK_EQ(client.call("SET", "large", std::numeric_limits<std::uint64_t>::max()).as<std::string>(), "OK");
  CHECK_EQ(client.call("GET", "large").as<std::uint64_t>(), std::numeric_limits<std::uint64_t>::max());
  vigie::command many("MSET");
  for (int at = 0; at < 300; at++) many.add("many:" + std::to_string(at), at);
  client.call(many);
  CHECK_EQ(client.call("GET", "many:299").as<int>(), 299);
}

static void errors(const vigie::client &client) {
  client.call("SET", "text", "value");
  try {
    client.call("LPUSH", "text", "x");
    CHECK(!"it throws");
  } catch (const vigie::wrong_type_error &error) {
    CHECK_EQ(error.code(), "WRONGTYPE");
    CHECK_EQ(error.status(), VIGIE_ERR_SERVER);
    CHECK(!error.endpoint().empty() && !error.is_maybe_executed() && error.count() == -1);
  }
  CHECK_THROWS(vigie::server_error, client.call("NO.SUCH.COMMAND"));
  CHECK_THROWS(std::exception, client.call("NO.SUCH.COMMAND"));
  CHECK_THROWS(vigie::timeout_error, client.with(0ms).call("GET", "text"));
  CHECK_THROWS(vigie::usage_error, client.call("SELECT", 1));
  CHECK_THROWS(vigie::usage_error, client.call("SUBSCRIBE", "x"));
  CHECK_THROWS(vigie::usage_error, vigie::config("redis-sentinel://host/service?no.such=1"));
  CHECK_THROWS(vigie::unavailable_error, vigie::sentinel("redis-sentinel://127.0.0.1:1/mymaster", 300ms));
  auto failed = client.try_call("LPUSH", "text", "x");
  CHECK(!failed && failed.error().code() == "WRONGTYPE");
  CHECK_THROWS(vigie::wrong_type_error, vigie::unwrap(std::move(failed)));
}

static void lists(const vigie::client &client) {
  vigie::pipeline list = client.pipeline();
  list.add("SET", "p", 1).add("INCR", "p").add("LPUSH", "p", "x").add("GET", "p");
  vigie::reply all = list.exec();
  CHECK(all.size() == 4 && list.size() == 0);
  CHECK(all[1].as<int>() == 2 && all[2].is_error() && all[2].error()->code() == "WRONGTYPE" && all[3].as<int>() == 2);
  CHECK_THROWS(vigie::wrong_type_error, all[2].as<int>());
  CHECK(list.exec().size() == 0);
  list.add("GET", std::string(5, 'x'));
  CHECK_EQ(list.exec()[0].is_null(), true);

  vigie::batch again;
  again.add("INCR", "p").add("GET", "p");
  CHECK_EQ(client.exec(again)[1].as<int>(), 3);
  CHECK_EQ(client.exec(again)[1].as<int>(), 4);

  vigie::pipeline atomic = client.multi();
  atomic.add("SET", "t", 1).add("INCRBY", "t", 5);
  CHECK((atomic.exec().as<std::tuple<std::string, int>>() == std::tuple<std::string, int>{"OK", 6}));
  atomic.add("SET", "t", 2).add("NO.SUCH.COMMAND");
  CHECK_THROWS(vigie::exec_abort_error, atomic.exec());
  CHECK_EQ(client.call("GET", "t").as<int>(), 6);
}

static void transactions(const vigie::client &client) {
  client.call("SET", "balance", 10);
  int tries = 0;
  vigie::reply done = client.transaction({"balance"}, [&](vigie::session &session, vigie::pipeline &list) {
    int balance = session.call("GET", "balance").as<int>();
    // Somebody else changes it, the first time.
    if (tries++ == 0) client.call("SET", "balance", 20);
    list.add("SET", "balance", balance - 5);
  });
  CHECK_EQ(tries, 2);
  CHECK_EQ(client.call("GET", "balance").as<int>(), 15);
  CHECK_EQ(done[0].as<std::string>(), "OK");
  auto in_vain = [&](vigie::session &, vigie::pipeline &list) {
    client.call("INCR", "balance");
    list.add("SET", "balance", 0);
  };
  CHECK_THROWS(vigie::txn_aborted_error, client.transaction({"balance"}, in_vain, 3));
  CHECK_EQ(client.call("GET", "balance").as<int>(), 18);

  vigie::session session = client.session();
  session.call("SELECT", 1);
  session.call("SET", "only.here", 1);
  CHECK_EQ(client.call("EXISTS", "only.here").as<bool>(), false);
  CHECK_EQ(session.call("EXISTS", "only.here").as<bool>(), true);
}

static void scripts_and_scans(const vigie::client &client) {
  CHECK_EQ(client.eval("return {KEYS[1], ARGV[1] + ARGV[2]}", {"key"}, 3, 4)[1].as<int>(), 7);
  CHECK_EQ(client.eval("return #KEYS", {}).as<int>(), 0);
  CHECK_THROWS(vigie::no_script_error, client.with(flags::no_retry).call("EVALSHA", std::string(40, '0'), 0));

  client.call("DEL", "set", "hash");
  vigie::pipeline list = client.pipeline();
  for (int at = 0; at < 2000; at++) list.add("SET", "scan:" + std::to_string(at), at).add("HSET", "hash", at, at * 2).add("SADD", "set", at);
  list.exec();
  std::set<std::string> seen;
  for (vigie::value key : vigie::scan(client, "MATCH", "scan:*", "COUNT", 100)) seen.insert(key.as<std::string>());
  CHECK_EQ(seen.size(), 2000u);
  std::map<int, int> fields;
  for (auto [field, mapped] : vigie::hscan(client, "hash")) fields[field.as<int>()] = mapped.as<int>();
  CHECK(fields.size() == 2000 && fields[999] == 1998);
  std::set<int> members;
  for (vigie::value member : vigie::sscan(client, "set")) members.insert(member.as<int>());
  CHECK_EQ(members.size(), 2000u);
  for (vigie::value none : vigie::scan(client, "MATCH", "no.such.key")) CHECK(!none && !"there is none");
}

static void messages(const vigie::client &client) {
  vigie::subscriber sub(client);
  sub.subscribe("news", "more");
  sub.psubscribe("p.*");
  client.call("PUBLISH", "news", "hello");
  client.call("PUBLISH", "p.1", std::string("a\0b", 3));
  auto first = sub.next(), second = sub.next();
  CHECK(first && first->is_message() && first->channel() == "news" && first->payload() == "hello" && first->pattern().empty());
  CHECK(second && second->kind() == "pmessage" && second->pattern() == "p.*" && second->channel() == "p.1" && second->payload().size() == 3);
  CHECK(!sub.next(0ms));
  sub.wakeup();
  CHECK(!sub.next());
  sub.unsubscribe("news");
  CHECK_EQ(client.call("PUBLISH", "news", "nobody").as<int>(), 0);
}

static void jobs(const vigie::client &client) {
  vigie::jobs::push(client, "work", "first", "job-1");
  vigie::jobs::push(client, "work", "second");
  vigie::jobs worker(client, "work", "worker-1");
  auto first = worker.take();
  CHECK(first && first->id() == "job-1" && first->payload() == "first" && first->redelivered() == 0);
  worker.ack(*first);
  auto second = worker.take();
  CHECK(second && second->payload() == "second");
  worker.give_back(*second);
  auto again = worker.take();
  CHECK(again && again->redelivered() > 0);
  worker.renew();
  worker.ack(*again);
  CHECK(!worker.take(0ms));
  std::thread waits([&] { CHECK_THROWS(vigie::cancelled_error, worker.take(vigie::no_limit)); });
  worker.stop();
  waits.join();
  worker.close();
}

static void submitted(const vigie::client &client) {
  vigie::queue queue;
  client.submit(queue, 1, "SET", "q", 7);
  client.submit(queue, 2, "GET", "q");
  client.submit(queue, 3, "LPUSH", "q", 1);
  std::map<std::uint64_t, vigie::result<vigie::reply>> done;
  while (done.size() < 3) {
    pollfd one{queue.fd(), POLLIN, 0};
    CHECK(poll(&one, 1, 60000) == 1);
    queue.drain(0ms, [&](vigie::event &event) { done.emplace(event.token(), event.take()); });
  }
  CHECK_EQ(done.at(2)->as<int>(), 7);
  CHECK_EQ(done.at(3).error().code(), "WRONGTYPE");

  vigie::reactor loop;
  int left = 3, seen = 0;
  bool failed = false;
  loop.call_then(client, [&](vigie::result<vigie::reply> got) { left--, seen = got->as<int>(); }, "GET", "q");
  loop.call_then(client.with(flags::idempotent), [&](vigie::result<vigie::reply> got) { left--, failed = !got; }, "LPUSH", "q", 1);
  vigie::pipeline list = client.pipeline();
  list.add("PING").add("GET", "q");
  auto sent = loop.try_exec_then(list, [&](vigie::result<vigie::reply> got) { left -= got->size() == 2; });
  CHECK(sent);
  CHECK_EQ(loop.in_flight(), 3u);
  while (left > 0) loop.run();
  CHECK(seen == 7 && failed && loop.in_flight() == 0);

  bool is_cancelled = false;
  std::uint64_t token = loop.call_then(
      client.with(vigie::no_limit), [&](vigie::result<vigie::reply> got) { is_cancelled = got.error().status() == VIGIE_ERR_CANCELLED; }, "BLPOP", "nothing", 0);
  loop.cancel(token);
  while (loop.in_flight() > 0) loop.run();
  CHECK(is_cancelled);
  // What a callback throws passes through the loop, and the others still run.
  int after = 0;
  loop.call_then(client, [](vigie::result<vigie::reply>) { throw std::runtime_error("a bug"); }, "PING");
  // Many, so that others are in its batch.
  int beside = 0;
  for (int i = 0; i < 40; i++) loop.call_then(client, [&](vigie::result<vigie::reply>) { beside++; }, "PING");
  bool was_thrown = false;
  while (!was_thrown) {
    try {
      loop.run();
    } catch (const std::runtime_error &) {
      was_thrown = true;
    }
  }
  loop.call_then(client, [&](vigie::result<vigie::reply>) { after++; }, "PING");
  while (after == 0 || beside < 40) loop.run();
  CHECK_EQ(loop.in_flight(), 0u);
}

static void cancelled(const vigie::client &client) {
  vigie::call_handle handle;
  std::thread waits([&] {
    try {
      client.with(handle, vigie::no_limit).call("BLPOP", "nothing", 0);
      CHECK(!"nobody pushes");
    } catch (const vigie::cancelled_error &error) {
      CHECK_EQ(error.status(), VIGIE_ERR_CANCELLED);
    }
  });
  eventually("the server to have the call", [&] {
    return client.call("CLIENT", "LIST").as<std::string>().find("cmd=blpop") != std::string::npos;
  });
  handle.cancel();
  waits.join();
  CHECK(handle.is_cancelled());
  CHECK_THROWS(vigie::cancelled_error, client.with(handle).call("PING"));
  vigie::call_handle timed;
  client.with(timed).call("PING");
  CHECK(timed.times()["attempts"].as<int>() == 1 && timed.times()["over"].as<bool>());
}

// A signal ends the wait and not the call.
static void interrupted(const vigie::client &client) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  vigie::call_handle handle;
  std::atomic<bool> was_interrupted{false};
  std::thread waits([&] {
    try {
      client.with(handle, vigie::no_limit).call("BLPOP", "interrupted", 0);
      CHECK(!"the signal comes first");
    } catch (const vigie::interrupted_error &) {
      was_interrupted = true;
    }
    for (;;) {
      // A second signal may arrive before the first one was noticed.
      vigie::result<vigie::reply> got = handle.try_wait();
      if (got) {
        CHECK_EQ((*got)[1].as<std::string>(), "an element");
        return;
      }
      CHECK_EQ(got.error().status(), VIGIE_ERR_INTERRUPTED);
    }
  });
  eventually("the wait to be interrupted", [&] {
    pthread_kill(waits.native_handle(), SIGUSR1);
    return was_interrupted.load();
  });
  client.call("RPUSH", "interrupted", "an element");
  waits.join();
}

static void observed(const vigie::sentinel &sentinel, vigie::client client) {
  std::vector<std::string> names;
  int failed = 0;
  client.trace([&](const vigie::call_info &info) {
    names.emplace_back(info.command);
    failed += info.status != VIGIE_OK;
    CHECK(info.duration.count() > 0 && (info.status == VIGIE_OK) == (info.error == nullptr));
  });
  client.call("SET", "traced", "secret");
  CHECK(!client.try_call("LPUSH", "traced", 1));
  client.pipeline().add("PING").add("PING").exec();
  client.session().call("PING");
  CHECK((names == std::vector<std::string>{"SET", "LPUSH", "PIPELINE", "PING"}));
  CHECK_EQ(failed, 1);
  // A command without a name is refused as it is without a hook.
  CHECK_EQ(client.try_call(vigie::command()).error().status(), VIGIE_ERR_INVALID_ARG);
  CHECK(names.back().empty());

  CHECK(client.stats()["calls"].as<int>() >= 3);
  CHECK(client.metrics().find("vigie_") != std::string::npos && sentinel.metrics(true).find("# EOF") != std::string::npos);
  CHECK(client.topology()["primary"] && sentinel.topology("mymaster")["primary"]);
  CHECK(sentinel.refresh()["mymaster"]);
  CHECK(sentinel.services()["mymaster"] && sentinel.stats());
  CHECK_EQ(sentinel.command("MASTER", "mymaster")["name"].as<std::string>(), "mymaster");
  CHECK_EQ(sentinel.command_all("PING").size() / 2, 3u);
  CHECK(sentinel.try_command_at("127.0.0.1:1", 300ms, "PING").error().status() == VIGIE_ERR_CONNECT);
}

static void other_clients(const vigie::sentinel &sentinel, const kit &kit) {
  vigie::config overrides{{"timeout.call", "4s"}};
  vigie::client split = sentinel.split("", &overrides), replica = sentinel.replica();
  split.call("SET", "split", 1);
  CHECK_EQ(split.with(flags::on_primary).call("GET", "split").as<int>(), 1);
  CHECK_THROWS(vigie::unavailable_error, replica.call("SET", "x", 1));
  std::string at = "node_1=redis://127.0.0.1:" + kit.first["primary"].string;
  vigie::client shards = sentinel.shards({"node_1=sentinel:mymaster"}), alone = vigie::sentinel::shards_alone({at});
  shards.call("MSET", "s:1", 1, "s:2", 2);
  CHECK(alone.call("MGET", "s:1", "s:2").as<std::vector<int>>() == (std::vector<int>{1, 2}));
  CHECK(shards.shard_of("s:1") == 0 && split.shard_of("s:1") == -1);
  split.close();
  CHECK(split.is_closed());
  CHECK_THROWS(vigie::closed_error, split.call("PING"));
}

static void watched(kit &kit) {
  vigie::config config{{"uri", kit.uri().c_str()}, {"log.level", "info"}};
  vigie::sentinel sentinel(config, 10s);
  std::vector<std::string> lines;
  std::mutex lock;
  vigie::client client = sentinel.primary();
  vigie::queue queue;
  {
    vigie::log_bridge bridge(sentinel, [&](const vigie::log_line &line) {
      std::lock_guard<std::mutex> guard(lock);
      CHECK(!line.time.empty() && !line.level.empty() && !line.message.empty());
      lines.emplace_back(line.target);
    });
    sentinel.watch(queue, 5, VIGIE_EVENT_TOPOLOGY);
    client.call("SET", "before", 1);
    json after = kit.run("failover");
    auto event = queue.next(60s);
    CHECK(event && event->kind() == vigie::event_kind::topology && event->token() == 5);
    CHECK_EQ(event->reply()["to"].as<std::string>(), "127.0.0.1:" + after["primary"].string);
    CHECK_EQ(client.call("GET", "before").as<int>(), 1);
  }
  CHECK(std::find(lines.begin(), lines.end(), "topology") != lines.end());
  sentinel.close();
}

int main() {
  kit kit({"deployment"});
  vigie::sentinel sentinel(kit.uri(), 10s);
  vigie::client client = sentinel.primary();
  conversions(client);
  arguments(client);
  errors(client);
  lists(client);
  transactions(client);
  scripts_and_scans(client);
  messages(client);
  jobs(client);
  submitted(client);
  cancelled(client);
  interrupted(client);
  observed(sentinel, sentinel.primary());
  other_clients(sentinel, kit);
  watched(kit);
  std::puts("ok");
}
