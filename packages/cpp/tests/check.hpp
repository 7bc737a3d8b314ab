// What the tests share: checks that say where, and the programs of the test kit.
#ifndef VIGIE_TEST_CHECK_HPP
#define VIGIE_TEST_CHECK_HPP

#include "check_plain.hpp"
#include "json.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_EQ(left, right)                                                                                \
  do {                                                                                                       \
    auto left_value = (left);                                                                                \
    auto right_value = (right);                                                                              \
    if (!(left_value == right_value)) {                                                                      \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " << #left << " is " << left_value << ", not "          \
                << right_value << std::endl;                                                                 \
      std::_Exit(1);                                                                                         \
    }                                                                                                        \
  } while (0)

#define CHECK_THROWS(Class, expression)                                                                      \
  do {                                                                                                       \
    bool was_thrown = false;                                                                                 \
    try {                                                                                                    \
      static_cast<void>(expression);                                                                         \
    } catch (const Class &) {                                                                                \
      was_thrown = true;                                                                                     \
    }                                                                                                        \
    if (!was_thrown) {                                                                                       \
      std::fprintf(stderr, "%s:%d: %s did not throw %s\n", __FILE__, __LINE__, #expression, #Class);         \
      std::_Exit(1);                                                                                         \
    }                                                                                                        \
  } while (0)

inline std::string environment(const char *name) {
  const char *text = std::getenv(name);
  if (text == nullptr) {
    std::fprintf(stderr, "%s is not set: run packages/cpp/test\n", name);
    std::_Exit(1);
  }
  return text;
}

inline json json_file(const std::string &path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return json::parse(text.str());
}

inline std::string hex_of(std::string_view bytes) {
  std::string made;
  for (char byte : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(byte));
    made += two;
  }
  return made;
}

inline std::string bytes_of(const std::string &hex) {
  std::string made;
  for (std::size_t at = 0; at < hex.size(); at += 2) made += static_cast<char>(std::stoi(hex.substr(at, 2), nullptr, 16));
  return made;
}

// Waits until it holds; a minute in vain fails the test.
template <class Holds> void eventually(const char *what, Holds holds) {
  auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) {
      std::fprintf(stderr, "waited in vain for %s\n", what);
      std::_Exit(1);
    }
    usleep(2000);
  }
}

// A program of packages/testkit. It ends with this object, or with the test, because its standard input ends.
class kit {
public:
  explicit kit(std::vector<std::string> arguments) {
    int to[2], from[2];
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    arguments[0] = environment("VIGIE_ROOT") + "/packages/testkit/" + arguments[0];
    child_ = fork();
    CHECK(child_ >= 0);
    if (child_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      for (int end : {to[0], to[1], from[0], from[1]}) close(end);
      std::vector<char *> raw;
      for (std::string &one : arguments) raw.push_back(one.data());
      raw.push_back(nullptr);
      execv(raw[0], raw.data());
      std::_Exit(127);
    }
    close(to[0]);
    close(from[1]);
    in_ = to[1];
    out_ = fdopen(from[0], "r");
    // Programs that a test starts must not hold the ends of the pipes.
    CHECK(fcntl_cloexec(in_) && fcntl_cloexec(from[0]));
    first = answer();
  }
  kit(const kit &) = delete;
  kit &operator=(const kit &) = delete;
  ~kit() {
    close(in_);
    std::fclose(out_);
    waitpid(child_, nullptr, 0);
  }
  json run(const std::string &command) {
    std::string line = command + "\n";
    CHECK(write(in_, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
    return answer();
  }
  std::string uri() const { return first["uri"].string; }
  json first;

private:
  static bool fcntl_cloexec(int fd);
  json answer() {
    char line[4096];
    CHECK(std::fgets(line, sizeof line, out_) != nullptr);
    json said = json::parse(line);
    if (said.has("error")) {
      std::fprintf(stderr, "the test kit: %s\n", line);
      std::_Exit(1);
    }
    return said;
  }
  pid_t child_;
  int in_;
  FILE *out_;
};

#include <fcntl.h>
inline bool kit::fcntl_cloexec(int fd) { return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0; }

#endif
