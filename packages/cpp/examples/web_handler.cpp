// A web server whose handlers share one client: each request counts a visit. With a budget for each request, and an answer for each way to fail.
//
// usage: web_handler URI [PORT]
#include <cstring>
#include <iostream>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vigie.hpp>

using namespace std::chrono_literals;

// One client for all threads: it is the pool.
static std::string visit(const vigie::client &redis, const std::string &path) {
  try {
    auto visits = redis.with(500ms).call("INCR", "visits:" + path).as<std::int64_t>();
    return "200 OK\r\n\r\nvisit " + std::to_string(visits) + " of " + path + "\n";
  } catch (const vigie::maybe_executed &) {
    return "500 Internal Server Error\r\n\r\nthe visit may have been counted\n";
  } catch (const vigie::error &error) {
    std::cerr << error.what() << "\n";
    return "503 Service Unavailable\r\n\r\nnot counted\n";
  }
}

static void serve(const vigie::client &redis, int connection) {
  char request[2048];
  ssize_t count = read(connection, request, sizeof request - 1);
  std::string line(request, count > 0 ? static_cast<std::size_t>(count) : 0);
  std::size_t begin = line.find(' ') + 1;
  std::string answer = "HTTP/1.0 " + visit(redis, line.substr(begin, line.find(' ', begin) - begin));
  send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
  close(connection);
}

int main(int argc, char **argv) {
  vigie::client redis = vigie::sentinel(argv[1], 5s).primary();
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(static_cast<std::uint16_t>(argc > 2 ? std::stoi(argv[2]) : 0));
  socklen_t len = sizeof at;
  if (bind(listener, reinterpret_cast<sockaddr *>(&at), len) != 0 || listen(listener, 64) != 0) return 1;
  getsockname(listener, reinterpret_cast<sockaddr *>(&at), &len);
  std::cout << "http://127.0.0.1:" << ntohs(at.sin_port) << std::endl;
  for (;;) {
    int connection = accept(listener, nullptr, nullptr);
    if (connection >= 0) std::thread(serve, std::cref(redis), connection).detach();
  }
}
