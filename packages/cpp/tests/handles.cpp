// 1,000 opens and closes of every handle: memory, descriptors and threads stay flat.
#include "check.hpp"

#include <dirent.h>
#include <malloc.h>
#include <vigie.hpp>

using namespace std::chrono_literals;

static int entries(const char *path) {
  int count = 0;
  DIR *dir = opendir(path);
  while (readdir(dir) != nullptr) count++;
  closedir(dir);
  return count;
}
static long resident_kb() {
  long pages = 0, ignored = 0;
  FILE *file = std::fopen("/proc/self/statm", "r");
  CHECK(std::fscanf(file, "%ld %ld", &ignored, &pages) == 2);
  std::fclose(file);
  return pages * 4;
}

static void open_and_close(const std::string &uri) {
  vigie::sentinel sentinel(uri);
  vigie::client client = sentinel.primary();
  client.call("SET", "handles", 1);
  vigie::session session = client.session();
  session.watch("handles");
  vigie::queue queue(16);
  vigie::subscription sub(client, queue, 1);
  sub.exec(vigie::default_time, "SUBSCRIBE", "news");
  vigie::reactor loop;
  bool is_over = false;
  loop.call_then(client, [&](vigie::result<vigie::reply>) { is_over = true; }, "PING");
  while (!is_over) loop.run();
  vigie::call_handle handle;
  client.with(handle).call("PING");
  vigie::jobs worker(client, "handles:jobs");
  for (vigie::value key : vigie::scan(client, "MATCH", "handles")) CHECK(key.text() == "handles");
  CHECK(!client.try_call("LPUSH", "handles", 1));
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  // With an arena for each of the threads that come and go the heap would take a thousand rounds until it is as large as it gets.
  CHECK(mallopt(M_ARENA_MAX, 1) == 1);
  kit kit({"deployment"});
  for (int round = 0; round < 300; round++) open_and_close(kit.uri());
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
  long memory = resident_kb();
  int descriptors = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  for (int round = 0; round < rounds; round++) open_and_close(kit.uri());
  CHECK(vigie_threads_join(60000) == VIGIE_OK);
  std::printf("%d rounds: %ld KB before, %ld KB after; %d and %d descriptors\n", rounds, memory, resident_kb(), descriptors, entries("/proc/self/fd"));
  std::fflush(stdout);
  CHECK_EQ(entries("/proc/self/fd"), descriptors);
  CHECK_EQ(entries("/proc/self/task"), threads);
  // The heap grows a little until it is as large as it gets; what is kept of 1,000 rounds, 3 KB of each, would be more than this.
  CHECK(resident_kb() - memory < 3072);
  std::puts("ok");
}
