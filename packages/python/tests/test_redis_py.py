"""The door for redis-py: what its programs do, done by both clients and compared; Django's cache and RQ on top."""

import asyncio
import contextlib
import os
import threading
import unittest
import unittest.mock
import warnings

import kit
import vigie_redis

try:
    import redis
    import redis.asyncio
except ImportError:
    raise unittest.SkipTest("redis-py is not installed: scripts/setup test fetches it") from None

from vigie_redis import redis_py
from vigie_redis.redis_py import asyncio as redis_py_asyncio


def setUpModule():
    global servers
    servers = kit.Deployment()


def tearDownModule():
    servers.end()


# Each is one program of redis-py: what it returns or raises is compared.
PROGRAMS = {
    "texts": lambda r: [r.set("k", "é"), r.get("k"), r.get("none"), r.append("k", b"\xff"), r.strlen("k")],
    "numbers": lambda r: [r.set("f", 1.0), r.get("f"), r.incr("n"), r.incrbyfloat("n", 1.5), r.set("big", 2**70), r.get("big")],
    "expiry": lambda r: [r.set("k", 1, ex=100, nx=True), r.set("k", 1, nx=True), r.ttl("none"), r.expire("k", 50), r.persist("k")],
    "hashes": lambda r: [r.hset("h", mapping={"a": 1, "b": 2}), r.hgetall("h"), r.hmget("h", "a", "none"), list(r.hscan_iter("h"))],
    "lists": lambda r: [r.rpush("l", *range(5)), r.lrange("l", 0, -1), r.blpop("l", timeout=1), r.blpop("none", timeout=0.01)],
    "sets": lambda r: [r.sadd("s", "a"), r.smembers("s"), r.sismember("s", "a"), list(r.sscan_iter("s"))],
    "sorted sets": lambda r: [r.zadd("z", {"a": 1.5, "b": 2}), r.zrange("z", 0, -1, withscores=True), r.zscore("z", "a"), list(r.zscan_iter("z"))],
    "streams": lambda r: [r.xadd("x", {"f": "v"}, id="1-1"), r.xrange("x"), r.xread({"x": 0}), r.xgroup_create("x", "g"), r.xlen("x")],
    "scripts": lambda r: [r.eval("return {KEYS[1], ARGV[1], 3}", 1, "k", "v"), r.register_script("return ARGV[1]")(args=[7])],
    "scan": lambda r: [r.mset({f"key{i}": i for i in range(50)}), sorted(r.scan_iter("key*"))],
    "types": lambda r: [r.type("none"), r.exists("a", "b"), r.delete("a"), r.keys("nothing*"), r.dbsize() >= 0, r.ping(), r.echo("x")],
    "geo": lambda r: [r.geoadd("g", (13.361389, 38.115556, "Palermo")), r.geopos("g", "Palermo"), r.geosearch("g", longitude=15, latitude=37, radius=200, unit="km")],
    "nothing to do": lambda r: [r.mget([]), r.zadd("z", {"m": 1}, nx=True)],
    "dump": lambda r: [r.set("d", "v"), r.dump("d")],
    "pipeline": lambda r: r.pipeline().set("k", 1).incr("k").hset("h2", "f", "v").hgetall("h2").execute(),
    "pipeline without transaction": lambda r: r.pipeline(transaction=False).set("k", 1).lpush("k", 1).get("k").execute(raise_on_error=False),
    "an empty pipeline": lambda r: r.pipeline().execute(),
    "an error": lambda r: [r.set("k", 1), r.lpush("k", 1)],
    "an error in a pipeline": lambda r: r.pipeline().set("k", 1).lpush("k", 1).execute(),
    "a refused transaction": lambda r: r.pipeline().set("k", 1).execute_command("NOSUCHCOMMAND").execute(),
    "an unknown script": lambda r: r.evalsha("0" * 40, 0),
    "a wrong type": lambda r: r.set("k", None),
    "an error inside a reply": lambda r: r.eval("return {1, redis.error_reply('MY error')}", 0),
    "object": lambda r: [r.set("o", 1), r.object("encoding", "o"), r.config_get("maxmemory"), r.client_getname()],
}


def outcome(program, client):
    try:
        return normal(program(client))
    except redis.DataError as error:  # the sentence is each client's own
        return type(error).__name__, ""
    except redis.RedisError as error:
        return type(error).__name__, str(error)


def normal(value):
    if isinstance(value, Exception):
        return type(value).__name__, str(value)
    if isinstance(value, (list, tuple)):
        return [normal(item) for item in value]
    return value


class Programs(unittest.TestCase):
    def compare(self, **arguments):
        own = redis.Redis(port=servers.ask("state")["primary"], **arguments)
        door = redis_py.Redis.from_url(servers.uri, **arguments)
        self.addCleanup(own.close)
        self.addCleanup(door.close)
        for name, program in PROGRAMS.items():
            with self.subTest(name):
                own.flushall()
                wanted = outcome(program, own)
                own.flushall()
                self.assertEqual(outcome(program, door), wanted)

    def test_bytes(self):
        self.compare()

    def test_texts(self):
        programs = {key: value for key, value in PROGRAMS.items() if key != "texts"}  # which ends in bytes that are no text
        with unittest.mock.patch.dict(PROGRAMS, programs, clear=True):
            self.compare(decode_responses=True)

    def test_protocol_2_and_3(self):
        self.compare(protocol=2)
        self.compare(protocol=3)

    def test_another_encoding(self):
        door = redis_py.Redis.from_url(servers.uri, encoding="latin-1", decode_responses=True)
        self.addCleanup(door.close)
        self.assertEqual((door.set("k", "é"), door.get("k"), door.strlen("k")), (True, "é", 1))
        self.assertEqual(door.pipeline().get("k").execute(), ["é"])


class Door(unittest.TestCase):
    def setUp(self):
        self.redis = redis_py.Redis.from_url(servers.uri, decode_responses=True)
        self.addCleanup(self.redis.close)
        self.redis.flushall()

    def test_a_watched_key_that_is_changed_is_a_watch_error_and_transaction_begins_anew(self):
        self.redis.set("n", 1)
        with self.redis.pipeline() as pipe:
            pipe.watch("n")
            value = int(pipe.get("n"))
            self.redis.incr("n")
            pipe.multi()
            pipe.set("n", value * 10)
            with self.assertRaises(redis.WatchError):
                pipe.execute()

        tries = []

        def work(pipe):
            tries.append(int(pipe.get("n")))
            if len(tries) == 1:
                self.redis.incr("n")
            pipe.multi()
            pipe.set("n", tries[-1] * 10)

        self.assertEqual(self.redis.transaction(work, "n"), [True])
        self.assertEqual((tries, self.redis.get("n")), ([2, 3], "30"))

    def test_messages_with_handlers_and_in_a_thread(self):
        got = []
        with self.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(news=lambda message: got.append(message["data"]))
            pubsub.psubscribe(**{"x*": lambda message: None})
            thread = pubsub.run_in_thread(sleep_time=0.01)
            kit.until("the message", lambda: self.redis.publish("news", "one") and got)
            thread.stop()
            thread.join()
        self.assertEqual(got[0], "one")

    def test_a_lock_is_held_by_one(self):
        with self.redis.lock("lock", timeout=30):
            self.assertFalse(self.redis.lock("lock").acquire(blocking=False))
        self.assertTrue(self.redis.lock("lock").acquire(blocking=False))

    def test_what_may_have_run_is_one_of_both_worlds(self):
        self.redis.client_pause(600, all=False)
        with self.assertRaises(vigie_redis.MaybeExecuted) as raised:
            redis_py.Redis.from_url(servers.uri, socket_timeout=0.1).set("k", 1)
        self.assertIsInstance(raised.exception, redis.TimeoutError)
        self.assertTrue(raised.exception.__cause__.maybe_executed)
        kit.until("the end of the pause", lambda: self.redis.set("k", 2))

    def test_a_write_that_too_few_replicas_have_does_not_look_refused(self):
        door = redis_py.Redis.from_url(servers.uri, options={"write.replicas": 9, "timeout.call": 400})
        with self.assertRaises(redis.ResponseError) as raised:
            door.incr("short")
        self.assertIsInstance(raised.exception, vigie_redis.MaybeExecuted)
        self.assertIsInstance(raised.exception.__cause__, vigie_redis.Replicas)
        self.assertEqual(self.redis.get("short"), "1")

    def test_a_single_connection_is_a_session(self):
        with self.redis.client() as single:
            self.assertTrue(single.client_setname("me"))
            self.assertEqual((single.client_getname(), single.client_id()), ("me", single.client_id()))

    def test_arguments_that_mean_nothing_here_are_refused_or_known(self):
        with self.assertRaisesRegex(TypeError, "ssl_ciphers"):
            redis_py.Redis.from_url(servers.uri, ssl_ciphers="x").ping()
        with self.assertRaisesRegex(TypeError, "redis_connect_func"):
            redis_py.Redis.from_url(servers.uri, redis_connect_func=print).ping()
        with self.assertRaisesRegex(redis.RedisError, "no connections to give"):
            self.redis.monitor().__enter__()
        one = redis_py.Redis(host="127.0.0.1", port=servers.ask("state")["primary"], db=1, socket_timeout=2, max_connections=4)
        self.addCleanup(one.close)
        one.set("in-db-1", 1)
        self.assertIsNone(self.redis.get("in-db-1"))

    def test_a_closed_client_of_redis_py_opens_again(self):
        self.redis.close()
        self.assertTrue(self.redis.ping())


class DoorOfAsyncio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.redis = redis_py_asyncio.Redis.from_url(servers.uri, decode_responses=True)
        self.addAsyncCleanup(self.redis.aclose)
        await self.redis.flushall()

    async def test_commands_pipelines_locks_and_errors(self):
        r = self.redis
        self.assertEqual(await asyncio.gather(r.set("k", 1), r.get("k"), r.incr("k")), [True, "1", 2])
        async with r.pipeline() as pipe:
            self.assertEqual(await pipe.set("k", 5).hset("h", "a", 1).hgetall("h").execute(), [True, 1, {"a": "1"}])
        with self.assertRaises(redis.ResponseError):
            await r.lpush("k", 1)
        with self.assertRaises(redis.DataError):
            await r.set("k", None)
        async with r.lock("lock", timeout=30):
            self.assertEqual(await r.exists("lock"), 1)
        self.assertEqual(await r.register_script("return ARGV[1]")(args=[7]), "7")
        self.assertIsInstance(await r.dump("k"), bytes)
        self.assertEqual(sorted([key async for key in r.scan_iter()]), ["h", "k"])

    async def test_a_transaction_begins_anew(self):
        await self.redis.set("n", 1)
        tries = []

        async def work(pipe):
            tries.append(int(await pipe.get("n")))
            if len(tries) == 1:
                await self.redis.incr("n")
            pipe.multi()
            pipe.set("n", tries[-1] * 10)

        self.assertEqual(await self.redis.transaction(work, "n"), [True])
        self.assertEqual((tries, await self.redis.get("n")), ([1, 2], "20"))

    async def test_messages(self):
        async with self.redis.pubsub() as pubsub:
            await pubsub.subscribe("news")
            self.assertEqual((await pubsub.get_message(timeout=30))["type"], "subscribe")
            await self.redis.publish("news", "one")
            self.assertEqual((await pubsub.get_message(timeout=30))["data"], "one")
            self.assertIsNone(await pubsub.get_message())


@unittest.skipIf(kit.QUICK, "takes long")
class Failover(unittest.TestCase):
    def test_a_program_of_redis_py_goes_on_through_a_failover(self):
        r = redis_py.Redis.from_url(servers.uri, socket_timeout=20)
        self.addCleanup(r.close)
        stop, written, errors = threading.Event(), [], []

        def write(name):
            number = 0
            while not stop.is_set():
                key = f"{name}:{number}"
                number += 1
                try:
                    r.set(key, key)
                    written.append(key)
                except Exception as error:
                    errors.append(error)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        [thread.start() for thread in threads]
        try:
            kit.until("some writes", lambda: len(written) > 100)
            servers.ask("failover")
            before = len(written)
            kit.until("more writes", lambda: len(written) > before + 100)
        finally:
            stop.set()
            [thread.join() for thread in threads]
        values = [value for start in range(0, len(written), 500) for value in r.mget(written[start : start + 500])]
        self.assertEqual([key for key, value in zip(written, values) if value != key.encode()], [])
        self.assertEqual([error for error in errors if not isinstance(error, redis.RedisError)], [])


class Frameworks(unittest.TestCase):
    def test_djangos_cache(self):
        try:
            from django.conf import settings
            from django.core.cache import caches
        except ImportError:
            self.skipTest("Django is not installed")
        if not settings.configured:
            backend = {"BACKEND": "vigie_redis.redis_py.django.RedisCache", "LOCATION": servers.uri}
            settings.configure(CACHES={"default": backend})
        cache = caches["default"]
        cache.clear()
        cache.set("k", {"a": [1, "é"]}, 100)
        self.assertEqual(cache.get("k"), {"a": [1, "é"]})
        self.assertEqual((cache.add("k", 1), cache.add("n", 1), cache.incr("n", 4)), (False, True, 5))
        cache.set_many({"x": 1, "y": 2})
        self.assertEqual(cache.get_many(["x", "y", "none"]), {"x": 1, "y": 2})
        self.assertEqual((cache.touch("k", 10), cache.has_key("none"), cache.delete("k"), cache.get("k", "gone")), (True, False, True, "gone"))

    def test_rq_runs_jobs_in_forked_children(self):
        try:
            import rq
        except ImportError:
            self.skipTest("RQ is not installed")
        connection = redis_py.Redis.from_url(servers.uri)
        self.addCleanup(connection.close)
        queue = rq.Queue(connection=connection)
        jobs = [queue.enqueue(os.path.join, "a", str(i)) for i in range(3)]
        failing = queue.enqueue(os.path.join)
        with contextlib.redirect_stderr(None), warnings.catch_warnings():
            # RQ warns that it does not know its address, because a connection that is shared takes no name.
            warnings.simplefilter("ignore")
            rq.Worker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
        self.assertEqual([job.return_value() for job in jobs], [f"a/{i}" for i in range(3)])
        self.assertTrue(failing.is_failed)
        self.assertEqual(failing.get_status(refresh=True), "failed")


if __name__ == "__main__":
    unittest.main()
