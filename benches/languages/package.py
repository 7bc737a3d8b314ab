"""GET of 64 bytes by the package vigie-redis beside redis-py, blocking and asyncio, and redis-py's own classes on top of vigie. Arguments:
libvigie.so (not used: the package has its own), URI, host, port. Prints rows for scripts/bench-languages."""

import asyncio
import sys
import time

import redis
import redis.asyncio
import redis.utils

import vigie_redis
from vigie_redis import aio, redis_py
from vigie_redis.redis_py import asyncio as redis_py_asyncio

URI, HOST, PORT = sys.argv[2], sys.argv[3], int(sys.argv[4])
NAME = f"redis-py {redis.__version__}" + (", hiredis parser" if redis.utils.HIREDIS_AVAILABLE else "")
ROUNDS, CALLS, BATCHES, WINDOW, TASKS, GATHERS = 9, 5_000, 50, 256, 64, 100
KEY, VALUE = b"bench:package", b"x" * 64


def expect(value):
    if value != VALUE:
        sys.exit(f"a wrong answer: {value!r}")


def calls_of(get):
    def run(count):
        for _ in range(count):
            expect(get(KEY))

    return run


def lists_of_vigie(client):
    def run(count):
        for _ in range(count // WINDOW):
            pipe = client.pipeline()
            for _ in range(WINDOW):
                pipe.call("GET", KEY)
            for value in pipe.run():
                expect(value)

    return run


def lists_of_redis_py(client):
    def run(count):
        for _ in range(count // WINDOW):
            pipe = client.pipeline(transaction=False)
            for _ in range(WINDOW):
                pipe.get(KEY)
            for value in pipe.execute():
                expect(value)

    return run


def gathers_of(loop, get):
    async def gather(count):
        for _ in range(count // TASKS):
            for value in await asyncio.gather(*(get(KEY) for _ in range(TASKS))):
                expect(value)

    return lambda count: loop.run_until_complete(gather(count))


def measured(run, count, rows):
    wall, cpu = time.perf_counter(), time.process_time()
    run(count)
    rows.append(((time.perf_counter() - wall) * 1e6 / count, (time.process_time() - cpu) * 1e6 / count))


def median(values):
    return sorted(values)[len(values) // 2]


def compare(what, how, count, by_vigie, by_own, name=NAME):
    """Rounds in turn, so that what disturbs one disturbs the other."""
    sides = [(by_vigie, []), (by_own, [])]
    for run, _ in sides:
        run(2 * WINDOW)
    for turn in range(ROUNDS):
        for run, rows in sides if turn % 2 else reversed(sides):
            measured(run, count, rows)
    figures = [f"{median(column):.2f}" for _, rows in sides for column in zip(*rows)]
    print("\t".join([what, how, name, *figures]))


client, door, own = vigie_redis.Client(URI), redis_py.Redis.from_url(URI), redis.Redis(HOST, PORT)
client.call("SET", KEY, VALUE)
compare("Python, vigie-redis", "call", CALLS, calls_of(lambda key: client.call("GET", key)), calls_of(own.get))
compare("Python, vigie-redis", "list", BATCHES * WINDOW, lists_of_vigie(client), lists_of_redis_py(own))
compare("Python, redis-py over vigie", "call", CALLS, calls_of(door.get), calls_of(own.get))
compare("Python, redis-py over vigie", "list", BATCHES * WINDOW, lists_of_redis_py(door), lists_of_redis_py(own))

loop = asyncio.new_event_loop()


async def clients():
    return aio.Client(URI), redis_py_asyncio.Redis.from_url(URI), redis.asyncio.Redis(host=HOST, port=PORT)


aio_client, aio_door, aio_own = loop.run_until_complete(clients())
own_gathers = gathers_of(loop, aio_own.get)
aio_name = NAME.replace("redis-py", "redis.asyncio")
compare("Python, vigie-redis", "gather", GATHERS * TASKS, gathers_of(loop, lambda key: aio_client.call("GET", key)), own_gathers, aio_name)
compare("Python, redis-py over vigie", "gather", GATHERS * TASKS, gathers_of(loop, aio_door.get), own_gathers, aio_name)
loop.run_until_complete(aio_own.aclose())
