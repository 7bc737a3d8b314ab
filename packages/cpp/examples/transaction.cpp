// Moves an amount between two accounts, and never more than there is: WATCH, read, MULTI, EXEC, again if somebody was faster.
//
// usage: transaction URI FROM TO AMOUNT
#include <iostream>
#include <vigie.hpp>

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  std::string from = argv[2], to = argv[3];
  int amount = std::stoi(argv[4]);
  vigie::client redis = vigie::sentinel(argv[1]).primary();
  try {
    auto [left, there] = redis.transaction({from}, [&](vigie::session &session, vigie::pipeline &list) {
      int balance = session.call("GET", from).as<std::optional<int>>().value_or(0);
      if (balance < amount) throw std::runtime_error("only " + std::to_string(balance) + " left");
      list.add("DECRBY", from, amount).add("INCRBY", to, amount);
    }).as<std::tuple<int, int>>();
    std::cout << from << " has " << left << ", " << to << " has " << there << std::endl;
  } catch (const vigie::maybe_executed &error) {
    std::cerr << "look before you try again: " << error.what() << std::endl;
    return 1;
  } catch (const std::exception &error) {
    std::cerr << "nothing was moved: " << error.what() << std::endl;
    return 1;
  }
}
