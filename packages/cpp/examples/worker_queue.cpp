// A worker of a list of jobs: each is done at least once, through failovers and the deaths of workers.
//
// usage: worker_queue URI push TEXT...    |    worker_queue URI work [COUNT]
#include <iostream>
#include <vigie.hpp>

using namespace std::chrono_literals;

int main(int argc, char **argv) {
  vigie::client redis = vigie::sentinel(argv[1], 5s).primary();
  if (std::string_view(argv[2]) == "push") {
    for (int at = 3; at < argc; at++) vigie::jobs::push(redis, "mails", argv[at]);
    return 0;
  }
  vigie::jobs worker(redis, "mails");
  for (int left = argc > 3 ? std::stoi(argv[3]) : -1; left != 0; left--) {
    std::optional<vigie::job> job;
    try {
      while (!job) job = worker.take(10s);
      std::cout << "done: " << job->payload() << (job->redelivered() > 0 ? " (perhaps for the second time)" : "") << std::endl;
      worker.ack(*job);
    } catch (const vigie::error &error) {
      // The job stays in hand or goes to another worker: nothing is lost.
      std::cerr << error.what() << std::endl;
    }
  }
  worker.close();
}
