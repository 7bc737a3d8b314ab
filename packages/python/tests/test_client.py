"""The blocking client against real servers: what each function returns, refuses and leaves behind."""

import logging
import math
import pickle
import threading
import unittest

import kit
import vigie_redis
from vigie_redis import Client, MaybeExecuted, Message, Sentinel, Server, Shards


def setUpModule():
    global servers
    servers = kit.Deployment()


def tearDownModule():
    servers.end()


class Calls(unittest.TestCase):
    def setUp(self):
        self.client = Client(servers.uri)
        self.addCleanup(self.client.close)
        self.client.call("FLUSHALL")

    def test_texts_are_bytes_or_str_as_the_client_or_the_call_says(self):
        call = self.client.call
        self.assertEqual(call("SET", "k", "é"), b"OK")
        self.assertEqual(call("GET", "k"), "é".encode())
        self.assertEqual(call("GET", "k", decode=True), "é")
        with Client(self.client.sentinel, decode_responses=True) as texts:
            self.assertEqual((texts.call("GET", "k"), texts.call("GET", "none")), ("é", None))
            self.assertEqual(texts.call("GET", "k", decode=False), "é".encode())

    def test_what_is_no_utf_8_survives_as_str(self):
        raw = bytes(range(256))
        self.client.call("SET", "k", raw)
        text = self.client.call("GET", "k", decode=True)
        self.client.call("SET", "k2", text)
        self.assertEqual(self.client.call("GET", "k2"), raw)

    def test_buffers_are_taken_as_they_are(self):
        self.client.call("RPUSH", "l", bytearray(b"a"), memoryview(b"bc")[1:], b"")
        self.assertEqual(self.client.call("LRANGE", "l", 0, -1), [b"a", b"c", b""])

    def test_a_command_with_many_arguments(self):
        self.client.call("RPUSH", "l", *range(1000))
        self.assertEqual(self.client.call("LRANGE", "l", 0, -1), [b"%d" % i for i in range(1000)])

    def test_an_error_of_the_server_has_its_class_and_its_parts(self):
        self.client.call("SET", "k", "text")
        with self.assertRaises(vigie_redis.WrongType) as raised:
            self.client.call("LPUSH", "k", 1)
        error = raised.exception
        self.assertIsInstance(error, Server)
        self.assertNotIsInstance(error, MaybeExecuted)
        self.assertEqual((error.code, error.status, error.name, error.maybe_executed), ("WRONGTYPE", -400, "SERVER", False))
        self.assertEqual(error.endpoint, f"127.0.0.1:{servers.told['primary']}")
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(again), str(again), again.code), (type(error), str(error), "WRONGTYPE"))

    def test_an_error_that_may_have_run_is_one_by_its_class_and_can_be_pickled(self):
        # For less than the second after which the Sentinels would consider the primary down: they publish there, too.
        self.client.call("CLIENT", "PAUSE", 600, "WRITE")
        try:
            with self.assertRaises(MaybeExecuted) as raised:
                self.client.call("SET", "k", 1, timeout=0.2)
        finally:
            with Client(servers.uri) as other:
                other.call("CLIENT", "UNPAUSE")
        error = raised.exception
        self.assertIsInstance(error, vigie_redis.Timeout)
        self.assertIsInstance(error, TimeoutError)
        again = pickle.loads(pickle.dumps(error))
        self.assertIsInstance(again, MaybeExecuted)
        self.assertEqual((again.maybe_executed, again.status, str(again)), (True, error.status, str(error)))

    def test_a_timeout_of_nothing_sends_nothing(self):
        with self.assertRaises(vigie_redis.Timeout) as raised:
            self.client.call("SET", "k", 1, timeout=0)
        self.assertFalse(raised.exception.maybe_executed)
        self.assertIsNone(self.client.call("GET", "k", timeout=math.inf))

    def test_an_unknown_keyword_is_refused_with_the_known_ones(self):
        with self.assertRaisesRegex(TypeError, "timeout, decode, idempotent"):
            self.client.call("GET", "k", timout=1)
        with self.assertRaises(TypeError):
            self.client.call()

    def test_a_replica_reads_and_refuses_to_write(self):
        self.client.call("SET", "k", "v", replicas=2)
        with Client(self.client.sentinel, read="replica") as replica:
            self.assertEqual(replica.call("GET", "k"), b"v")
            with self.assertRaises(vigie_redis.ReadOnlyClient):
                replica.call("SET", "k", 1)
        with self.assertRaisesRegex(ValueError, "primary, replica, split"):
            Client(self.client.sentinel, read="nearest")

    def test_too_few_replicas_is_an_error_that_counts_them(self):
        with self.assertRaises(vigie_redis.Replicas) as raised:
            self.client.call("SET", "k", "v", replicas=3, timeout=0.5)
        self.assertEqual(raised.exception.count, 2)
        self.assertEqual(raised.exception.reply, b"OK")

    def test_many_threads_share_a_client_and_each_gets_its_own_replies(self):
        wrong = []

        def work(number):
            for i in range(200):
                if self.client.call("ECHO", f"{number}:{i}") != f"{number}:{i}".encode():
                    wrong.append((number, i))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(wrong, [])

    def test_a_closed_client_says_so(self):
        self.client.close()
        self.client.close()
        self.assertTrue(self.client.closed)
        with self.assertRaises(vigie_redis.Closed):
            self.client.call("PING")

    def test_a_wrong_option_names_the_right_one(self):
        with self.assertRaisesRegex(vigie_redis.Config, "pool.max"):
            Client(servers.uri, options={"pool.maxx": 4})


class Lists(unittest.TestCase):
    def setUp(self):
        self.client = Client(servers.uri, decode_responses=True)
        self.addCleanup(self.client.close)
        self.client.call("FLUSHALL")

    def test_a_pipeline_has_errors_in_their_places(self):
        with self.client.pipeline() as pipe:
            self.assertEqual(pipe.call("SET", "k", "v"), 0)
            pipe.call("LPUSH", "k", 1)
            pipe.call("GET", "k")
        self.assertEqual((pipe.replies[0], pipe.replies[2]), ("OK", "v"))
        self.assertIsInstance(pipe.replies[1], vigie_redis.WrongType)
        self.assertEqual(pipe.run(), [])

    def test_a_pipeline_whose_block_raises_sends_nothing(self):
        with self.assertRaises(ZeroDivisionError), self.client.pipeline() as pipe:
            pipe.call("SET", "k", "v")
            raise ZeroDivisionError
        self.assertIsNone(self.client.call("GET", "k"))

    def test_a_refused_argument_leaves_the_list_as_it_was(self):
        pipe = self.client.pipeline([("SET", "k", "v")])
        with self.assertRaises(TypeError):
            pipe.call("SET", "k", None)
        self.assertEqual((len(pipe), pipe.run()), (1, ["OK"]))

    def test_multi_runs_as_a_whole_or_not_at_all(self):
        self.assertEqual(self.client.multi([("INCR", "n"), ("INCR", "n")]).run(), [1, 2])
        with self.assertRaises(vigie_redis.ExecAbort):
            self.client.multi([("INCR", "n"), ("NOSUCHCOMMAND",)]).run()
        self.assertEqual(self.client.call("GET", "n"), "2")

    def test_a_transaction_begins_anew_when_a_watched_key_is_changed(self):
        self.client.call("SET", "n", 1)
        tries = []

        def work(session, multi):
            value = int(session.call("GET", "n"))
            if not tries:
                self.client.call("INCR", "n")
            tries.append(value)
            multi.call("SET", "n", value * 10)
            return value

        self.assertEqual(self.client.transaction(work, "n"), (["OK"], 2))
        self.assertEqual((tries, self.client.call("GET", "n")), ([1, 2], "20"))

    def test_a_session_keeps_its_connection(self):
        with self.client.session() as session:
            self.assertEqual(len({session.call("CLIENT", "ID") for _ in range(3)}), 1)
            session.call("WATCH", "k")
            self.client.call("SET", "k", 1)
            with self.assertRaises(vigie_redis.TxnAborted):
                session.multi([("SET", "k", 2)]).run()

    def test_scans_give_every_element(self):
        self.client.pipeline([("SET", f"key:{i}", i) for i in range(500)]).run()
        self.assertEqual(set(self.client.scan(match="key:*", count=50)), {f"key:{i}" for i in range(500)})
        self.client.call("HSET", "h", "a", 1, "b", 2)
        self.assertEqual(dict(self.client.hscan("h")), {"a": "1", "b": "2"})
        self.client.call("SADD", "s", "x", "y")
        self.assertEqual(set(self.client.sscan("s")), {"x", "y"})
        self.client.call("ZADD", "z", 1.5, "m", 2, "n")
        self.assertEqual(dict(self.client.zscan("z")), {"m": 1.5, "n": 2.0})

    def test_a_script_runs_by_its_hash_after_the_first_time(self):
        script = self.client.script("return {KEYS[1], ARGV[1]}")
        self.assertEqual([script(["k"], [1]) for _ in range(2)], [["k", "1"]] * 2)
        self.client.call("SCRIPT", "FLUSH")
        self.assertEqual(script(["k"], [2]), ["k", "2"])


class Messages(unittest.TestCase):
    def setUp(self):
        self.client = Client(servers.uri, decode_responses=True)
        self.addCleanup(self.client.close)

    def test_a_subscription_hears_channels_and_patterns_in_order(self):
        with self.client.subscribe("news", patterns=["n*s"]) as subscription:
            self.assertEqual(self.client.call("PUBLISH", "news", "one"), 2)
            got = {subscription.get(10), subscription.get(10)}
            self.assertEqual(got, {Message("message", "news", None, "one"), Message("pmessage", "news", "n*s", "one")})
            subscription.add("more")
            self.client.call("PUBLISH", "more", "two")
            self.assertEqual(subscription.get(10).data, "two")
            self.assertIsNone(subscription.get(0.01))

    def test_closing_ends_the_iteration_of_another_thread(self):
        subscription = self.client.subscribe("news")
        got = []
        thread = threading.Thread(target=lambda: got.extend(item.data for item in subscription))
        thread.start()
        self.client.call("PUBLISH", "news", "x")
        kit.until("the message", lambda: got == ["x"])
        subscription.close()
        thread.join(60)
        self.assertFalse(thread.is_alive())

    def test_jobs_are_taken_acknowledged_and_given_back(self):
        self.client.call("DEL", "mail")
        self.assertEqual(self.client.push_job("mail", "a", id="1"), 1)
        with self.client.jobs("mail") as worker:
            job = worker.take(10)
            self.assertEqual((job.id, job.payload, job.redelivered), ("1", "a", 0))
            worker.give_back(job)
            again = worker.take(10)
            self.assertEqual((again.id, again.redelivered > 0), ("1", True))
            worker.ack(again)
            self.assertIsNone(worker.take(0.01))
            with self.assertRaises(vigie_redis.InvalidState):
                worker.ack(again)

    def test_events_of_a_watch_end_with_it(self):
        with self.client.events(["connection"]) as events:
            with Client(self.client.sentinel) as other:
                other.call("PING")
            event = events.get(30)
            self.assertEqual((event.kind, event.data["open"]), ("connection", True))
        self.assertIsNone(events.get())
        with self.assertRaises(ValueError):
            self.client.events(["nonsense"])

    def test_the_bridge_hands_lines_to_a_logger_and_only_when_asked(self):
        records = []
        logger = logging.Logger("test")
        handler = logging.Handler()
        handler.emit = records.append
        logger.addHandler(handler)
        with Client(servers.uri) as client:
            bridge = vigie_redis.log_to(client, logger, "debug")
            client.call("PING")
            kit.until("a line", lambda: records)
            bridge.close()
        self.assertIn("message", records[0].vigie)

    def test_the_hook_hears_of_calls_and_lists_without_arguments(self):
        told = []
        self.client.hook = lambda *parts: told.append(parts)
        self.client.call("SET", "secret", "value")
        self.client.pipeline([("PING",)]).run()
        with self.assertRaises(Server):
            self.client.call("NOSUCHCOMMAND")
        self.assertEqual([parts[0] for parts in told], ["SET", "PIPELINE", "NOSUCHCOMMAND"])
        self.assertEqual({parts[1] for parts in told}, {f"127.0.0.1:{servers.told['primary']}"})
        self.assertTrue(all(parts[2] > 0 for parts in told))
        self.assertEqual([type(parts[3]) for parts in told], [type(None), type(None), Server])
        self.assertNotIn("secret", repr(told))
        self.client.hook = None
        self.client.call("PING")
        self.assertEqual(len(told), 3)


class Administration(unittest.TestCase):
    def test_topology_services_and_figures(self):
        with Sentinel(servers.uri, timeout=10) as sentinel:
            client = Client(sentinel)
            client.call("PING")
            primary = f"127.0.0.1:{servers.told['primary']}"
            self.assertIn(primary, repr(client.topology()["primary"]))
            self.assertEqual(sentinel.services()["mymaster"]["primary"], primary)
            self.assertEqual(sentinel.admin("MASTERS")[0]["name"], "mymaster")
            self.assertEqual(set(sentinel.admin("PING", all=True).values()), {"PONG"})
            self.assertEqual(client.stats()["calls"], 1)
            self.assertIn("vigie_", client.metrics())
            self.assertIn("# EOF", sentinel.metrics(openmetrics=True))
            sentinel.configure({"log.level": "error"})
            sentinel.refresh("mymaster")
        self.assertTrue(client.closed)

    def test_a_primary_without_sentinels_and_shards(self):
        port = servers.told["primary"]
        with Client(f"redis://127.0.0.1:{port}") as client:
            self.assertEqual(client.call("PING"), b"PONG")
        with kit.deployment(0, 1) as others:
            ports = port, others.told["primary"]
            with Shards([f"node_{n}=redis://127.0.0.1:{at}" for n, at in enumerate(ports, 1)], decode_responses=True) as shards:
                shards.pipeline([("SET", f"k{i}", i) for i in range(20)]).run()
                self.assertEqual(shards.call("MGET", *[f"k{i}" for i in range(20)]), [str(i) for i in range(20)])
                self.assertEqual({shards.shard_of(f"k{i}") for i in range(20)}, {0, 1})


if __name__ == "__main__":
    unittest.main()
