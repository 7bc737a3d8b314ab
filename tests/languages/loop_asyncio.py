"""100,000 submits beside a timer in one asyncio loop, which waits for the queue's descriptor.

The key is a new one: what the server has in the end is what came from here. Arguments: libvigie.so, URI."""

import asyncio
import sys
import time

import vigie

COMMANDS, BATCH, CAPACITY, TICK, BOUND, PATIENCE = 100_000, 256, 1000, 0.005, 2.25, 60
KEY = b"loop:python"


class Loop:
    """Keeps the queue full, checks what comes back, and looks at the clock every 5 ms."""

    def __init__(self, client):
        self.client, self.queue = client, vigie.Queue(client, CAPACITY)
        self.told = bytearray(COMMANDS)
        self.submitted = self.seen = self.full = self.ticks = 0
        self.pause, self.begun = 0.0, time.monotonic()
        self.last_tick = self.begun
        self.done = asyncio.get_running_loop().create_future()

    def submit(self):
        while self.submitted < COMMANDS:
            last = min(self.submitted + BATCH, COMMANDS)
            resp = b"".join([vigie.encode(b"RPUSH", KEY, b"%d" % i) for i in range(self.submitted, last)])
            if not self.client.submit(self.queue, resp, self.submitted):
                self.full += 1
                return
            self.submitted = last

    def readable(self):
        try:
            while True:
                taken = self.queue.drain()
                # The header promises the order in which calls start, which their values show, and not that of completions.
                for token, value in taken:
                    if value != token + 1 or self.told[token]:
                        raise RuntimeError(f"got {value!r} for {token}, which was told {self.told[token]} times")
                    self.told[token] = 1
                    self.seen += 1
                if not taken:
                    break
            self.submit()
            if self.seen == COMMANDS and not self.done.done():
                self.done.set_result(None)
        except Exception as error:
            self.done.set_exception(error)

    def tick(self):
        now = time.monotonic()
        self.pause, self.last_tick = max(self.pause, now - self.last_tick), now
        self.ticks += 1
        if now - self.begun > PATIENCE:
            sys.exit(f"{self.seen} of {COMMANDS} after {PATIENCE} s")
        asyncio.get_running_loop().call_later(TICK, self.tick)

    async def run(self):
        loop = asyncio.get_running_loop()
        loop.add_reader(self.queue.fd, self.readable)
        loop.call_later(TICK, self.tick)
        self.submit()
        await self.done
        loop.remove_reader(self.queue.fd)
        now = time.monotonic()
        self.pause = max(self.pause, now - self.last_tick)
        return now - self.begun


async def main():
    client = vigie.Client(vigie.load(sys.argv[1]), sys.argv[2])
    loop = Loop(client)
    seconds = await loop.run()
    if loop.queue.drain(50) != [] or client.exec(b"LRANGE", KEY, b"0", b"-1") != [b"%d" % i for i in range(COMMANDS)]:
        sys.exit("the server has another list")
    if loop.pause > BOUND or loop.full == 0:
        sys.exit(f"the loop stood still for {loop.pause:.3f} s, the queue was full {loop.full} times")
    loop.queue.close()
    client.close()
    print(
        f"asyncio: {COMMANDS} commands in {seconds:.2f} s, queue full {loop.full} times, {loop.ticks} ticks, "
        f"longest pause {loop.pause * 1000:.1f} ms, ok"
    )


asyncio.run(main())
