"""A worker: takes jobs of a list, does each at least once, and hands back what fails. Arguments: URI, name of the list.

Ctrl-C ends it; what is in hand is handed back by the end of `with`."""

import math
import sys

import vigie_redis

# A job is kept through failovers when a replica has it.
with vigie_redis.Client(sys.argv[1], decode_responses=True, options={"write.replicas": 1}) as client:
    with client.jobs(sys.argv[2]) as worker:
        worker.limit_deliveries(5)
        try:
            while job := worker.take(math.inf):
                try:
                    print(f"{job.id}: {int(job.payload) ** 2}", flush=True)
                except ValueError:
                    worker.give_back(job)
                else:
                    worker.ack(job)
        except KeyboardInterrupt:
            print("handing back what is in hand", flush=True)
