"""A program with types, which test_package.py has mypy --strict check. It is not run."""

import asyncio

import vigie_redis
from vigie_redis import aio


def move(session: vigie_redis.Session, multi: vigie_redis.Pipeline) -> int:
    balance = int(session.call("GET", "a") or 0)
    multi.call("DECRBY", "a", 1)
    return balance


def blocking(uri: str) -> list[str]:
    with vigie_redis.Client(uri, decode_responses=True, hook=lambda name, endpoint, seconds, error: None) as client:
        replies, balance = client.transaction(move, "a")
        assert isinstance(balance, int) and replies
        with client.subscribe("news") as subscription:
            for item in subscription:
                match item:
                    case vigie_redis.Message(data=data):
                        print(data)
                    case vigie_redis.Gap(seconds=seconds):
                        print(seconds + 1.0)
                    case vigie_redis.Dropped(lost=lost):
                        print(lost + 1)
        job = client.jobs("mail").take(1.5)
        if job is not None:
            print(job.id.upper())
        try:
            client.call("GET", "k", timeout=0.5)
        except vigie_redis.MaybeExecuted as error:
            print(error)
        except vigie_redis.Error as error:
            print(error.code.lower(), error.count + 1, error.maybe_executed)
        return list(client.scan())


async def waiting(uri: str) -> int:
    async with aio.Client(uri) as client:
        one, two = await asyncio.gather(client.call("GET", "a"), client.call("GET", "b"))
        print(one, two)
        async for event in client.events(["topology"]):
            print(event.kind.upper())
        return await client.push_job("mail", b"x")
