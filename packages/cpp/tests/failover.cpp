// Writers under load while the primary is handed over, and while it is killed: no acknowledged write is lost, every error is of a class, and what
// may have run says so.
#include "check.hpp"

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vigie.hpp>

using namespace std::chrono_literals;
using vigie::flags;

struct load {
  std::mutex lock;
  std::set<std::string> acknowledged, doubtful;
  std::map<std::string, int> errors;
  std::atomic<bool> is_over{false};
  std::atomic<long> done{0};
};

static void write_one(const vigie::client &client, load &all, const std::string &key, flags how) {
  std::string error;
  bool may_have_run = false;
  try {
    client.with(how, 3s).call("SET", key, key);
  } catch (const vigie::maybe_executed &caught) {
    may_have_run = true;
    error = caught.name();
  } catch (const vigie::usage_error &caught) {
    std::fprintf(stderr, "%s\n", caught.what());
    CHECK(!"the call was right");
  } catch (const vigie::connection_error &caught) {
    error = caught.name();
  } catch (const vigie::unavailable_error &caught) {
    error = caught.name();
  } catch (const vigie::replicas_error &caught) {
    error = caught.name();
  } catch (const vigie::server_error &caught) {
    error = caught.what();
  } // anything else ends the test
  std::lock_guard<std::mutex> guard(all.lock);
  if (error.empty()) {
    all.acknowledged.insert(key);
    all.done++;
  } else {
    all.errors[error + (may_have_run ? " (maybe executed)" : "")]++;
    if (may_have_run) all.doubtful.insert(key);
  }
}

static void writer(const vigie::client &client, load &all, int number, flags how) {
  for (long at = 0; !all.is_over; at++) {
    write_one(client, all, "w:" + std::to_string(number) + ":" + std::to_string(at), how);
    usleep(2000); // a load that leaves the machine room for the servers
  }
}

static void verify(const vigie::client &client, const load &all, const char *what) {
  std::size_t lost = 0;
  auto list = client.pipeline();
  std::vector<std::string> asked;
  auto look = [&] {
    vigie::reply got = list.exec();
    for (std::size_t at = 0; at < asked.size(); at++) lost += got[at].text() != asked[at];
    asked.clear();
  };
  for (const std::string &key : all.acknowledged) {
    list.add("GET", key);
    asked.push_back(key);
    if (asked.size() == 1000) look();
  }
  look();
  std::printf("%s: %zu writes acknowledged, %zu lost, %zu may have run\n", what, all.acknowledged.size(), lost, all.doubtful.size());
  for (const auto &[error, count] : all.errors) std::printf("  %d x %s\n", count, error.c_str());
  CHECK_EQ(lost, 0u);
}

// Runs `disturb` while eight threads write, and goes on until they write again.
template <class Disturb> static void under_load(const vigie::client &client, const char *what, flags how, Disturb disturb) {
  client.call("FLUSHALL");
  load all;
  std::vector<std::thread> threads;
  for (int number = 0; number < 8; number++) threads.emplace_back([&, number] { writer(client, all, number, how); });
  eventually("the writers to write", [&] { return all.done > 200; });
  disturb();
  long then = all.done;
  eventually("the writers to write again", [&] { return all.done > then + 200; });
  all.is_over = true;
  for (std::thread &one : threads) one.join();
  verify(client, all, what);
}

// A primary that was stopped takes a command and gives no answer: the error is a timeout, and one that may have run.
static void unanswered(const vigie::client &client, kit &kit) {
  client.call("SET", "u", 1);
  kit.run("stop primary");
  bool by_class = false, by_doubt = false;
  try {
    client.with(flags::no_retry, 150ms).call("SET", "u", 2);
  } catch (const vigie::timeout_error &error) {
    by_class = error.is_maybe_executed();
  }
  try {
    client.with(flags::no_retry, 150ms).call("SET", "u", 3);
  } catch (const vigie::maybe_executed &error) {
    by_doubt = error.status() == VIGIE_ERR_TIMEOUT || error.status() == VIGIE_ERR_IO;
  }
  CHECK(by_class && by_doubt);
  kit.run("wait");
  kit.run("continue");
}

int main(int argc, char **argv) {
  bool is_quick = argc > 1 && std::string(argv[1]) == "quick";
  kit kit({"deployment"});
  vigie::client client = vigie::sentinel(kit.uri(), 10s).primary();
  under_load(client, "planned failover", flags::none, [&] { kit.run("failover"); });
  unanswered(client, kit);
  if (!is_quick) {
    under_load(client, "SIGKILL of the primary", vigie::replicas(1), [&] {
      kit.run("kill primary");
      kit.run("wait");
    });
    kit.run("restart");
    under_load(client, "planned failover with two replicas", flags::none, [&] { kit.run("failover"); });
  }
  std::puts("ok");
}
