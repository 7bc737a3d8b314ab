"""A prefork server: clients are made before fork(), and parent and children go on with them, each with connections of its own."""

import asyncio
import os
import threading
import unittest

import kit
import vigie_redis
from vigie_redis import Client, aio

WORKERS = 4
CALLS = 100 if kit.QUICK else 3000


def setUpModule():
    global servers
    servers = kit.Deployment()


def tearDownModule():
    servers.end()


def in_child(work):
    """Runs work in a forked child; its process id. A child that fails ends with 1."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        os.write(2, f"child: {error!r}\n".encode())
    finally:
        os._exit(status)


def statuses(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


class Fork(unittest.TestCase):
    def setUp(self):
        self.client = Client(servers.uri, decode_responses=True)
        self.addCleanup(self.client.close)
        self.client.call("FLUSHALL")

    def echo(self, name):
        for i in range(CALLS):
            if (got := self.client.call("ECHO", f"{name}:{i}")) != f"{name}:{i}":
                raise AssertionError(f"{name}:{i} was answered with {got}")

    def test_a_prefork_server_under_load_mixes_no_replies(self):
        ids = self.client.call("CLIENT", "ID")
        failed = []

        def load(number):
            try:
                self.echo(f"thread{number}")
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        [thread.start() for thread in threads]
        pids = [in_child(lambda n=n: self.echo(f"child{n}")) for n in range(WORKERS)]
        [thread.join() for thread in threads]
        self.assertEqual((statuses(pids), failed), ([0] * WORKERS, []))
        self.assertEqual(self.client.call("CLIENT", "ID"), ids)

    @unittest.skipIf(kit.QUICK, "takes long")
    def test_children_write_through_a_failover_and_lose_nothing(self):
        self.client.call("PING")
        read, write = os.pipe()

        def work(number):
            def run():
                for i in range(CALLS * 2):
                    key = f"{number}:{i}"
                    try:
                        self.client.call("SET", key, key, timeout=20)
                    except vigie_redis.Error:
                        continue
                    os.write(write, f"{key}\n".encode())

            return run

        pids = [in_child(work(n)) for n in range(WORKERS)]
        os.close(write)
        lines = []
        def take():
            with os.fdopen(read) as pipe:
                lines.extend(pipe.read().split())

        reader = threading.Thread(target=take)
        reader.start()
        kit.until("the children to write", lambda: self.client.call("DBSIZE") > 20)
        servers.ask("failover")
        reader.join()
        self.assertEqual(statuses(pids), [0] * WORKERS)
        found = self.client.pipeline([("GET", key) for key in lines]).run()
        self.assertEqual([key for key, value in zip(lines, found) if key != value], [])

    def test_what_is_one_conversation_says_that_it_is_the_parents(self):
        session = self.client.session()
        self.addCleanup(session.close)
        session.call("PING")
        subscription = self.client.subscribe("news")
        self.addCleanup(subscription.close)

        def work():
            for use in (lambda: session.call("PING"), lambda: subscription.get(1)):
                try:
                    use()
                except vigie_redis.Forked:
                    continue
                raise AssertionError("no Forked")
            assert self.client.call("PING") == "PONG"

        self.assertEqual(statuses([in_child(work)]), [0])
        self.assertEqual(session.call("PING"), "PONG")

    def test_a_client_for_asyncio_works_in_a_new_loop_of_the_child(self):
        client = aio.Client(servers.uri)

        async def ping():
            return await client.call("PING")

        def work():
            assert asyncio.run(ping()) == b"PONG"

        asyncio.run(ping())
        self.assertEqual(statuses([in_child(work) for _ in range(2)]), [0, 0])
        self.assertEqual(asyncio.run(ping()), b"PONG")

    def test_a_child_that_only_ends_leaves_the_parents_connections(self):
        id_ = self.client.call("CLIENT", "ID")
        self.assertEqual(statuses([in_child(lambda: None) for _ in range(20)]), [0] * 20)
        self.assertEqual(self.client.call("CLIENT", "ID"), id_)


if __name__ == "__main__":
    unittest.main()
