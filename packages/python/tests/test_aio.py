"""The client for asyncio against real servers: calls that travel together, cancelling, a loop in each thread."""

import asyncio
import threading
import unittest
from unittest import mock

import kit
import vigie_redis
from vigie_redis import MaybeExecuted, Message, aio


def setUpModule():
    global servers
    servers = kit.Deployment()


def tearDownModule():
    servers.end()


class Calls(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.client = aio.Client(servers.uri, decode_responses=True)
        self.addAsyncCleanup(self.client.close)
        await self.client.call("FLUSHALL")

    async def test_calls_of_one_tick_keep_their_order_and_their_replies(self):
        call = self.client.call
        self.assertEqual(await asyncio.gather(*(call("INCR", "n") for _ in range(5000))), list(range(1, 5001)))
        got = await asyncio.gather(call("SET", "k", 1), call("LPUSH", "k", 1), call("GET", "k"), return_exceptions=True)
        self.assertEqual((got[0], got[2]), ("OK", "1"))
        self.assertIsInstance(got[1], vigie_redis.WrongType)

    async def test_a_refused_argument_is_an_error_at_once(self):
        with self.assertRaises(TypeError):
            self.client.call("SET", "k", None)
        with self.assertRaises(vigie_redis.Unsupported):
            await self.client.call("SUBSCRIBE", "k")

    async def test_a_reply_that_is_too_deep_for_python_fails_alone(self):
        deep = "local t = 1; for _ = 1, tonumber(ARGV[1]) do t = {t} end; return t"
        async with aio.Client(servers.uri, options={"reply.max_depth": 4096}) as client:
            calls = [client.call("PING"), client.call("EVAL", deep, 0, 2000), client.call("PING")]
            got = await asyncio.gather(*calls, return_exceptions=True)
        self.assertEqual((got[0], type(got[1]), got[2]), (b"PONG", RecursionError, b"PONG"))

    async def test_lists_transactions_scripts_and_scans(self):
        async with self.client.pipeline([("SET", "n", 1)]) as pipe:
            pipe.call("LPUSH", "n", 1)
        self.assertEqual(pipe.replies[0], "OK")
        self.assertIsInstance(pipe.replies[1], vigie_redis.WrongType)
        self.assertEqual(await self.client.multi([("INCR", "n"), ("INCR", "n")]).run(), [2, 3])

        async def work(session, multi):
            value = int(await session.call("GET", "n"))
            if value == 3:
                await self.client.call("SET", "n", 5)
            multi.call("SET", "n", value * 2)
            return value

        self.assertEqual(await self.client.transaction(work, "n"), (["OK"], 5))
        self.assertEqual(await self.client.script("return ARGV[1]")([], ["x"]), "x")
        await self.client.pipeline([("SADD", "s", *range(500)), ("ZADD", "z", 1.5, "m")]).run()
        self.assertEqual({item async for item in self.client.sscan("s", count=20)}, set(map(str, range(500))))
        self.assertEqual([item async for item in self.client.zscan("z")], [("m", 1.5)])
        self.assertEqual({item async for item in self.client.scan()}, {"n", "s", "z"})

    async def test_messages_jobs_and_events(self):
        async with asyncio.timeout(60):
            async with await self.client.subscribe("news", patterns=["x*"]) as subscription:
                await self.client.call("PUBLISH", "news", "one")
                await self.client.call("PUBLISH", "xy", "two")
                self.assertEqual(await subscription.get(), Message("message", "news", None, "one"))
                self.assertEqual(await subscription.get(), Message("pmessage", "xy", "x*", "two"))
            self.assertEqual([item async for item in subscription], [])
            await self.client.push_job("mail", "a", id="1")
            async with self.client.jobs("mail") as worker:
                job = await worker.take(10)
                await worker.ack(job)
                self.assertEqual((job.id, await worker.take(0.01)), ("1", None))
            async with self.client.events(["connection"]) as events:
                async with aio.Client(self.client.sentinel) as other:
                    await other.call("PING")
                self.assertEqual((await events.get()).kind, "connection")
            self.assertEqual(await self.client.admin("PING"), "PONG")

    async def test_the_hook_hears_of_calls(self):
        told = []
        self.client.hook = lambda *parts: told.append(parts)
        await self.client.call("GET", "secret")
        with self.assertRaises(vigie_redis.Server):
            await self.client.call("NOSUCHCOMMAND")
        await self.client.pipeline([("PING",)]).run()
        self.assertEqual([parts[0] for parts in told], ["GET", "NOSUCHCOMMAND", "PIPELINE"])
        self.assertIsInstance(told[1][3], vigie_redis.Server)
        self.assertNotIn("secret", repr(told))

    async def blocked(self):
        """The names of the commands that wait at the server."""
        return await self.client.call("CLIENT", "LIST")

    async def test_a_cancelled_task_ends_with_the_librarys_error_as_cause(self):
        task = asyncio.create_task(self.call_and_return("BLPOP", "none", 0))
        while "cmd=blpop" not in await self.blocked():
            await asyncio.sleep(0.005)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError) as raised:
            await task
        self.assertTrue(task.cancelled())
        self.assertIsInstance(raised.exception.__cause__, vigie_redis.Cancelled)
        self.assertIsInstance(raised.exception.__cause__, MaybeExecuted)

    async def call_and_return(self, *words):
        return await self.client.call(*words)

    async def test_a_time_limit_of_asyncio_ends_a_call(self):
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.client.call("BLPOP", "none", 0)
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(self.client.call("BLPOP", "none", 0), 0.05)

    async def test_a_call_that_is_cancelled_in_its_first_tick_ends_too(self):
        call = self.client.call("BLPOP", "none", 0)
        call.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await call

    async def test_cancelled_calls_leave_no_reply_to_their_neighbours(self):
        wrong = []

        async def echo(number):
            try:
                if (got := await self.client.call("ECHO", number)) != str(number):
                    wrong.append((number, got))
            except asyncio.CancelledError:
                return 1
            return 0

        cancelled = 0
        for turn in range(20):
            tasks = [asyncio.create_task(echo(turn * 100 + i)) for i in range(100)]
            await asyncio.sleep(0)
            for task in tasks[turn % 3 :: 3]:
                task.cancel()
            cancelled += sum(await asyncio.gather(*tasks))
        self.assertEqual(wrong, [])
        self.assertGreater(cancelled, 0)

    async def test_closing_waits_for_the_calls_of_the_loop(self):
        async with aio.Client(servers.uri) as client:
            calls = [client.call("ECHO", i) for i in range(10)]
        self.assertEqual([await call for call in calls], [b"%d" % i for i in range(10)])
        with self.assertRaises(vigie_redis.Closed):
            await client.call("PING")


class Loops(unittest.TestCase):
    def test_each_thread_may_have_a_loop_of_its_own(self):
        client = aio.Client(servers.uri)
        got = []

        async def work(number):
            replies = await asyncio.gather(*(client.call("ECHO", f"{number}:{i}") for i in range(300)))
            got.append(replies == [f"{number}:{i}".encode() for i in range(300)])

        threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n))) for n in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(got, [True] * 8)
        asyncio.run(client.close())

    def test_more_calls_than_the_queue_holds_are_all_answered(self):
        async def work():
            async with aio.Client(servers.uri) as client:
                await client.call("DEL", "n")
                return await asyncio.gather(*(client.call("INCR", "n") for _ in range(5000)))

        with mock.patch.object(aio, "CAPACITY", 256), mock.patch.object(aio, "GATHERED", 64):
            self.assertEqual(asyncio.run(work()), list(range(1, 5001)))

    def test_a_client_serves_one_loop_after_another(self):
        client = aio.Client(servers.uri)

        async def work():
            return await client.call("PING")

        before = [asyncio.run(work()) for _ in range(3)] and kit.descriptors()
        self.assertEqual([asyncio.run(work()) for _ in range(20)], [b"PONG"] * 20)
        self.assertLessEqual(kit.descriptors(), before + 6)
        asyncio.run(client.close())


if __name__ == "__main__":
    unittest.main()
