// redis-plus-plus as a program uses it: one Redis object with a pool, shared by all threads. No exception leaves.
#include <sw/redis++/redis++.h>

#include <cstddef>
#include <cstdio>
#include <string>

using sw::redis::ConnectionOptions;
using sw::redis::ConnectionPoolOptions;
using sw::redis::Redis;
using sw::redis::StringView;

extern "C" {

// NULL: it could not be made.
void *shim_redispp_open(const char *host, int port, std::size_t connections) {
  try {
    ConnectionOptions options;
    options.host = host;
    options.port = port;
    ConnectionPoolOptions pool;
    pool.size = connections;
    return new Redis(options, pool);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "redis-plus-plus: %s\n", error.what());
    return nullptr;
  }
}

void shim_redispp_free(void *redis) { delete static_cast<Redis *>(redis); }

// The length of the value, or -1.
std::ptrdiff_t shim_redispp_get(void *redis, const char *key, std::size_t key_len) {
  try {
    auto value = static_cast<Redis *>(redis)->get(StringView(key, key_len));
    return value ? static_cast<std::ptrdiff_t>(value->size()) : -1;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "redis-plus-plus: %s\n", error.what());
    return -1;
  }
}

// 1: stored.
int shim_redispp_set(void *redis, const char *key, std::size_t key_len, const char *value, std::size_t value_len) {
  try {
    return static_cast<Redis *>(redis)->set(StringView(key, key_len), StringView(value, value_len)) ? 1 : 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "redis-plus-plus: %s\n", error.what());
    return 0;
  }
}
}
