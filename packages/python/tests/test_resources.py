"""What is opened is given back: 1,000 opens and closes with flat memory and descriptors, and objects that are forgotten without a close."""

import asyncio
import gc
import unittest
import weakref

import kit
from vigie_redis import Client, Sentinel, aio

ROUNDS = 40 if kit.QUICK else 1000


def setUpModule():
    global servers
    servers = kit.Deployment(0, 1)


def tearDownModule():
    servers.end()


class Flat(unittest.TestCase):
    def check(self, round_, slack_kb=2048):
        """The second half of the rounds opens no more descriptors than the first, and takes no more memory than some pages."""
        for _ in range(ROUNDS // 2):
            round_()
        gc.collect()
        descriptors, memory = kit.descriptors(), kit.resident_kb()
        for _ in range(ROUNDS // 2):
            round_()
        gc.collect()
        kit.until("the descriptors to be given back", lambda: kit.descriptors() <= descriptors)
        self.assertLessEqual(kit.resident_kb(), memory + slack_kb)

    def test_clients_are_opened_and_closed(self):
        def round_():
            with Client(servers.uri) as client:
                client.call("PING")

        self.check(round_)

    def test_clients_sessions_and_subscriptions_of_one_handle_are_forgotten_without_a_close(self):
        with Sentinel(servers.uri) as sentinel:

            def round_():
                client = Client(sentinel)
                session = client.session()
                session.call("PING")
                client.subscribe("news")
                client.pipeline([("PING",)]).run()

            self.check(round_)

    def test_loops_come_and_go(self):
        async def work():
            async with aio.Client(servers.uri) as client:
                await asyncio.gather(*(client.call("PING") for _ in range(10)))
                async with client.session() as session:
                    await session.call("PING")
                async with await client.subscribe("news"):
                    pass

        self.check(lambda: asyncio.run(work()))

    def test_a_hook_that_knows_its_client_is_collected_with_it(self):
        client = Client(servers.uri)
        client.hook = lambda *_: client
        gone = weakref.ref(client)
        client.close()
        del client
        gc.collect()
        self.assertIsNone(gone())

    def test_errors_and_large_replies_leave_nothing(self):
        with Client(servers.uri) as client:
            client.call("SET", "large", b"x" * 100_000)

            def round_():
                client.call("GET", "large")
                try:
                    client.call("LPUSH", "large", 1)
                except Exception as error:
                    str(error)
                client.pipeline([("GET", "large")] * 3).run()

            self.check(round_)


if __name__ == "__main__":
    unittest.main()
