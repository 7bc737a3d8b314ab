"""An event loop: a thousand tasks read and write at the same time, and failovers are told beside. Argument: URI."""

import asyncio
import sys

import vigie_redis
from vigie_redis import aio


async def task(client, number):
    async with asyncio.timeout(10):
        await client.call("SET", f"task:{number}", number)
        return int(await client.call("GET", f"task:{number}"))


async def tell(client):
    async for event in client.events(["topology"]):
        print(f"the primary is {event.data['to']} now, after {event.data['gap_ms']} ms", flush=True)


async def main():
    async with aio.Client(sys.argv[1]) as client:
        told = asyncio.create_task(tell(client))
        done = await asyncio.gather(*(task(client, n) for n in range(1000)), return_exceptions=True)
        failed = [one for one in done if isinstance(one, vigie_redis.Error)]
        print(f"{len(done) - len(failed)} of {len(done)} tasks are done", flush=True)
        told.cancel()


asyncio.run(main())
