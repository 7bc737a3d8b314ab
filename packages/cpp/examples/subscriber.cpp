// Reads messages, and says where some may be missing.
//
// usage: subscriber URI CHANNEL [COUNT]
#include <iostream>
#include <vigie.hpp>

int main(int argc, char **argv) {
  vigie::client redis = vigie::sentinel(argv[1]).primary();
  vigie::subscriber sub(redis);
  sub.subscribe(argv[2]);
  std::cout << "listening" << std::endl;
  for (int left = argc > 3 ? std::stoi(argv[3]) : -1; left != 0;) {
    std::optional<vigie::message> heard = sub.next();
    if (heard && heard->is_message()) {
      std::cout << heard->channel() << ": " << heard->payload() << std::endl;
      left--;
    } else if (heard && heard->is_gap()) {
      std::cout << "(the subscription was made anew: messages may be missing)" << std::endl;
    }
  }
}
