// Publishes one message.
//
// usage: publish URI CHANNEL TEXT
#include <iostream>
#include <vigie.hpp>

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  vigie::client redis = vigie::sentinel(argv[1]).primary();
  std::cout << redis.call("PUBLISH", argv[2], argv[3]).as<int>() << " have heard it" << std::endl;
}
