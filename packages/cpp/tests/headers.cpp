// Uses of the interface that are compiled, and not run.
#include <map>
#include <vigie.hpp>

using namespace std::chrono_literals;

int main() {
  vigie::sentinel sentinel("redis://127.0.0.1:6379");
  vigie::client client = sentinel.primary("any");
  client.with(250ms, vigie::flags::idempotent | vigie::replicas(1)).call("SET", "key", 1.5);
  for (auto [field, value] : vigie::hscan(client, "hash")) static_cast<void>(field), static_cast<void>(value);
  vigie::reactor loop;
  loop.call_then(client, [](vigie::result<vigie::reply>) {}, "GET", "key");
  return static_cast<int>(client.call("HGETALL", "hash").as<std::map<std::string, std::optional<int>>>().size());
}
