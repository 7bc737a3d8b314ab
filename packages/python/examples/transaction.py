"""Moves money between two accounts as long as there is some, whoever else does so meanwhile. Arguments: URI, from, to, amount."""

import sys

import vigie_redis

source, target, amount = sys.argv[2], sys.argv[3], int(sys.argv[4])


def move(session, multi):
    balance = int(session.call("GET", source) or 0)
    if balance >= amount:
        multi.call("DECRBY", source, amount)
        multi.call("INCRBY", target, amount)
    return balance


with vigie_redis.Client(sys.argv[1]) as client:
    try:
        replies, balance = client.transaction(move, source)
        print(f"moved: {replies}" if replies else f"there are only {balance}")
    except vigie_redis.MaybeExecuted as error:
        sys.exit(f"it may have been moved, look before you try again: {error}")
