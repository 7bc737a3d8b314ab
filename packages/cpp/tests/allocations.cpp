// Nothing is allocated on the way of a call beyond what the C interface does: operator new is counted, which the library itself does not use.
#include "check_plain.hpp"

#include <new>
#include <vigie.hpp>

static std::size_t count = 0;
void *operator new(std::size_t bytes) {
  count++;
  if (void *made = std::malloc(bytes)) return made;
  throw std::bad_alloc();
}
void operator delete(void *made) noexcept { std::free(made); }
void operator delete(void *made, std::size_t) noexcept { std::free(made); }

// How often `run` allocates, each of 100 times.
template <class Run> static std::size_t of(Run run) {
  run();
  std::size_t before = count;
  for (int at = 0; at < 100; at++) run();
  return count - before;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  vigie::client client = vigie::sentinel(argv[1], std::chrono::seconds(10)).primary();
  std::string key = "a key that is too long to be kept inside of a string";
  client.call("DEL", key);
  CHECK(of([&] { client.call("SET", key, 42, "PX", 100000); }) == 0);
  CHECK(of([&] { CHECK(client.call("GET", key).as<int>() == 42); }) == 0);
  CHECK(of([&] { CHECK(client.try_call("GET", key)->try_as<std::optional<double>>().value_or(1.0) == 42.0); }) == 0);
  CHECK(of([&] {
            vigie::reply kept = client.with(std::chrono::seconds(5), vigie::flags::idempotent).call("GET", key);
            CHECK(kept.as<std::string_view>() == "42");
          }) == 0);
  vigie::pipeline list = client.pipeline();
  CHECK(of([&] {
            list.add("SET", key, 1.5).add("GET", key);
            vigie::reply all = list.exec();
            std::size_t bytes = 0;
            for (vigie::value one : all) bytes += one.text().size();
            CHECK(bytes == 5);
          }) == 0);
  vigie::reactor loop;
  CHECK(of([&] {
            bool is_over = false;
            loop.call_then(client, [&](vigie::result<vigie::reply>) { is_over = true; }, "GET", key);
            while (!is_over) loop.run();
          }) == 0);
  // The counter does count.
  std::size_t before = count;
  vigie::command made("GET", key);
  CHECK(count > before);
  std::puts("ok");
}
