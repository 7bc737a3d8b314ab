"""A subscriber: keeps a copy of some values up to date by messages, and reads all of them again after a gap. Arguments: URI, channel."""

import sys

import vigie_redis

copy = {}
with vigie_redis.Client(sys.argv[1], decode_responses=True) as client, client.subscribe(sys.argv[2]) as subscription:
    copy.update(client.call("HGETALL", "settings"))
    print(f"begun with {copy}", flush=True)
    for item in subscription:
        match item:
            case vigie_redis.Message(data=name):
                copy[name] = client.call("HGET", "settings", name)
            case vigie_redis.Gap(seconds=seconds, cause=cause):
                copy = client.call("HGETALL", "settings")
                print(f"{seconds:.3f} s without messages ({cause}): read again", flush=True)
            case vigie_redis.Dropped(lost=lost):
                copy = client.call("HGETALL", "settings")
                print(f"{lost} messages were dropped: read again", flush=True)
        print(copy, flush=True)
