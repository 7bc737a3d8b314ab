"""Completions of every kind through a packed drain, with a buffer that has to grow. Arguments: libvigie.so, URI."""

import sys

import vigie

client = vigie.Client(vigie.load(sys.argv[1]), sys.argv[2])
queue = vigie.Queue(client, 16, 64)
large, script = b"x" * 100_000, b"return {1, {'two', {}}, false}"
commands = [
    (b"SET", b"packed", large),
    (b"GET", b"packed"),
    (b"INCR", b"packed"),
    (b"GET", b"packed:none"),
    (b"EVAL", script, b"0"),
    (b"STRLEN", b"packed"),
    (b"EVAL", b"return {}", b"0"),
]
client.submit(queue, b"".join([vigie.encode(*words) for words in commands]), 3)
taken = []
while len(taken) < len(commands):
    taken += queue.drain(5000)
token, error = taken.pop(2)
if (token, error.status, str(error)[:4]) != (5, -400, "ERR "):
    sys.exit(f"got {error!r}")
wanted = [(3, b"OK"), (4, large), (6, None), (7, [1, [b"two", []], None]), (8, len(large)), (9, [])]
if taken != wanted or queue.drain() != []:
    sys.exit("other values came")
queue.close()
client.close()
print("ok")
