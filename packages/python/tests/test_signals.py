"""Ctrl-C: it ends a call of the main thread within 200 ms, and what the call had got is not lost."""

import os
import re
import signal
import threading
import time
import unittest

import kit
import vigie_redis
from vigie_redis import Client


def setUpModule():
    global servers
    # A shell has programs in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    servers = kit.Deployment(0, 1)


def tearDownModule():
    servers.end()


class CtrlC(unittest.TestCase):
    def setUp(self):
        # Without Sentinels, which would consider a primary down that is paused.
        self.client = Client(f"redis://127.0.0.1:{servers.told['primary']}", decode_responses=True)
        self.addCleanup(self.client.close)

    def interrupted(self, wait, ready):
        """Sends SIGINT when ready() says so. (exception, seconds from the signal to it)"""
        sent = []

        def send():
            try:
                kit.until("the wait", ready)
            finally:
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            wait()
        except KeyboardInterrupt as error:
            return error, time.monotonic() - sent[0]
        finally:
            thread.join()
        self.fail("the wait ended without KeyboardInterrupt")

    def waits_at_server(self, command):
        """Whether a client is blocked in it; a connection that is idle shows its last command as well."""
        blocked = re.compile(rf" flags=\w*b\w* .* cmd={command}")
        return lambda: blocked.search(self.client.call("CLIENT", "LIST"))

    def best_of_three(self, wait, ready):
        """A machine that is busy elsewhere for a moment says nothing about the library."""
        return min(self.interrupted(wait, ready)[1] for _ in range(3))

    def test_a_blocking_command_ends_within_200_ms_with_the_cause(self):
        wait = lambda: self.client.call("BLPOP", "none", 0)
        error, _ = self.interrupted(wait, self.waits_at_server("blpop"))
        self.assertIsInstance(error.__cause__, vigie_redis.Cancelled)
        self.assertLess(self.best_of_three(wait, self.waits_at_server("blpop")), 0.2)
        self.assertEqual(self.client.call("PING"), "PONG")

    def test_a_blocking_command_of_a_session_ends_too(self):
        with self.client.session() as session:
            error, seconds = self.interrupted(lambda: session.call("BLPOP", "none", 0), self.waits_at_server("blpop"))
        self.assertIsInstance(error.__cause__, vigie_redis.Cancelled)

    def test_a_call_that_the_server_does_not_answer_ends_as_one_that_may_have_run(self):
        # From another client, because what is behind the paused command on its connection waits with it.
        other = Client(f"redis://127.0.0.1:{servers.told['primary']}")
        self.addCleanup(other.close)
        other.call("CLIENT", "PAUSE", 60000, "WRITE")
        self.addCleanup(other.call, "CLIENT", "UNPAUSE")
        error, _ = self.interrupted(lambda: self.client.call("SET", "k", 1, timeout=60), self.waits_at_server("set"))
        self.assertIsInstance(error.__cause__, vigie_redis.MaybeExecuted)

    def test_messages_jobs_and_events_end_within_200_ms(self):
        with self.client.subscribe("news") as subscription, self.client.jobs("mail") as worker, self.client.events() as events:
            for wait in (subscription.get, events.get):
                tries = []
                for _ in range(3):
                    begun = threading.Event()
                    tries.append(self.interrupted(lambda: (begun.set(), wait()), begun.is_set)[1])
                self.assertLess(min(tries), 0.2)
            self.assertLess(self.best_of_three(lambda: worker.take(60), self.waits_at_server("bl")), 0.2)

    def test_a_handler_that_returns_does_not_end_the_call(self):
        came = []
        before = signal.signal(signal.SIGUSR1, lambda *_: came.append(self.client.call("PING")))
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

        def send():
            try:
                kit.until("the wait", self.waits_at_server("blpop"))
                for _ in range(3):
                    os.kill(os.getpid(), signal.SIGUSR1)
                    kit.until("the handler", lambda: came)
                    came.clear()
            finally:
                self.client.call("RPUSH", "list", "x")

        thread = threading.Thread(target=send)
        thread.start()
        self.assertEqual(self.client.call("BLPOP", "list", 0), ["list", "x"])
        thread.join()


if __name__ == "__main__":
    unittest.main()
