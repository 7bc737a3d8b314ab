// A check for programs without exceptions.
#ifndef VIGIE_TEST_CHECK_PLAIN_HPP
#define VIGIE_TEST_CHECK_PLAIN_HPP

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      std::fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #condition);               \
      std::_Exit(1);                                                                                         \
    }                                                                                                        \
  } while (0)

#endif
