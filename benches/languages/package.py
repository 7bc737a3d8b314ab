"""GET of 64 bytes by the package vigie-redis beside redis-py, blocking and asyncio, and redis-py's own classes on top of vigie. Arguments:
libvigie.so (not used: the package has its own), URI, host, port. Prints rows for scripts/bench-languages."""

import asyncio
import sys

import redis
import redis.asyncio
import redis.utils

import vigie_redis
from vigie_redis import aio, redis_py
from vigie_redis.redis_py import asyncio as redis_py_asyncio

import rounds

URI, HOST, PORT = sys.argv[2], sys.argv[3], int(sys.argv[4])
NAME = f"redis-py {redis.__version__}" + (", hiredis parser" if redis.utils.HIREDIS_AVAILABLE else "")
CALLS, BATCHES, WINDOW, TASKS, GATHERS = 5_000, 50, 256, 64, 100
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


client, door, own = vigie_redis.Client(URI), redis_py.Redis.from_url(URI), redis.Redis(HOST, PORT)
client.call("SET", KEY, VALUE)
rounds.compare("Python, vigie-redis", "call", NAME, CALLS, calls_of(lambda key: client.call("GET", key)), calls_of(own.get), 2 * WINDOW)
rounds.compare("Python, vigie-redis", "list", NAME, BATCHES * WINDOW, lists_of_vigie(client), lists_of_redis_py(own), 2 * WINDOW)
rounds.compare("Python, redis-py over vigie", "call", NAME, CALLS, calls_of(door.get), calls_of(own.get), 2 * WINDOW)
rounds.compare("Python, redis-py over vigie", "list", NAME, BATCHES * WINDOW, lists_of_redis_py(door), lists_of_redis_py(own), 2 * WINDOW)

loop = asyncio.new_event_loop()


async def clients():
    return aio.Client(URI), redis_py_asyncio.Redis.from_url(URI), redis.asyncio.Redis(host=HOST, port=PORT)


aio_client, aio_door, aio_own = loop.run_until_complete(clients())
own_gathers = gathers_of(loop, aio_own.get)
aio_name = NAME.replace("redis-py", "redis.asyncio")
rounds.compare("Python, vigie-redis", "gather", aio_name, GATHERS * TASKS, gathers_of(loop, lambda key: aio_client.call("GET", key)), own_gathers, 2 * WINDOW)
rounds.compare("Python, redis-py over vigie", "gather", aio_name, GATHERS * TASKS, gathers_of(loop, aio_door.get), own_gathers, 2 * WINDOW)
loop.run_until_complete(aio_own.aclose())
