"""GET of 64 bytes through ctypes beside redis-py, one thread. Arguments: libvigie.so, URI, host, port. Prints rows for
scripts/bench-languages."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/languages"))
import rounds  # noqa: E402
import vigie  # noqa: E402

try:
    import redis
    import redis.utils

    parser = ", hiredis parser" if redis.utils.HIREDIS_AVAILABLE else ""
    NAME = f"redis-py {redis.__version__}{parser}"
except ImportError:
    redis, NAME = None, "redis-py: not installed"

CALLS, BATCHES, WINDOW = 5_000, 100, 256
KEY, VALUE = b"bench:python", b"x" * 64

client = vigie.Client(vigie.load(sys.argv[1]), sys.argv[2])
queue = vigie.Queue(client, WINDOW)
client.exec(b"SET", KEY, VALUE)
own = redis and redis.Redis(sys.argv[3], int(sys.argv[4]))


def expect(value):
    if value != VALUE:
        sys.exit(f"a wrong answer: {value!r}")


def calls_by_vigie(count):
    for _ in range(count):
        expect(client.exec(b"GET", KEY))


def calls_by_own(count):
    for _ in range(count):
        expect(own.get(KEY))


def window_by_vigie(count):
    """At most WINDOW outstanding, in batches of half of it; the drain waits and reads the socket itself."""
    submitted = seen = 0
    while seen < count:
        while submitted < count and submitted - seen <= WINDOW // 2:
            batch = min(WINDOW // 2, count - submitted)
            client.submit(queue, b"".join([vigie.encode(b"GET", KEY) for _ in range(batch)]), submitted)
            submitted += batch
        for _, value in queue.drain(5000):
            expect(value)
            seen += 1


def pipeline_by_own(count):
    for _ in range(count // WINDOW):
        pipe = own.pipeline(transaction=False)
        for _ in range(WINDOW):
            pipe.get(KEY)
        for value in pipe.execute():
            expect(value)


def list_by_vigie(count):
    for _ in range(count // WINDOW):
        for value in client.exec_list(b"".join([vigie.encode(b"GET", KEY) for _ in range(WINDOW)])):
            expect(value)


rounds.compare("Python, ctypes", "call", NAME, CALLS, calls_by_vigie, calls_by_own if own else None, 2 * WINDOW)
rounds.compare("Python, ctypes", "window", NAME, BATCHES * WINDOW, window_by_vigie, pipeline_by_own if own else None, 2 * WINDOW)
rounds.compare("Python, ctypes", "list", NAME, BATCHES * WINDOW, list_by_vigie, pipeline_by_own if own else None, 2 * WINDOW)
