"""The examples run as they stand, and so does the beginning of the README."""

import os
import re
import signal
import subprocess
import sys
import unittest
import urllib.request

import kit
from vigie_redis import Client

HOME = kit.PACKAGES / "python"


def setUpModule():
    global servers
    servers = kit.Deployment()


def tearDownModule():
    servers.end()


class Examples(unittest.TestCase):
    def setUp(self):
        self.client = Client(servers.uri, decode_responses=True)
        self.addCleanup(self.client.close)
        self.client.call("FLUSHALL")

    def start(self, name, *arguments):
        program = subprocess.Popen([sys.executable, HOME / "examples" / f"{name}.py", servers.uri, *arguments], stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, program)
        return program

    def end(self, program, number=signal.SIGKILL):
        if program.poll() is None:
            program.send_signal(number)
        program.wait()
        program.stdout.close()

    def whole(self, name, *arguments):
        program = self.start(name, *arguments)
        text = program.stdout.read()
        self.assertEqual(program.wait(), 0)
        return text

    def test_the_web_handler_counts(self):
        program = self.start("web", "0")
        port = int(program.stdout.readline())
        pages = [urllib.request.urlopen(f"http://127.0.0.1:{port}/a").read() for _ in range(2)]
        self.assertEqual(pages, [b"/a: 1 visits\n", b"/a: 2 visits\n"])

    def test_the_worker_does_jobs_and_ctrl_c_ends_it(self):
        program = self.start("worker", "numbers")
        self.client.push_job("numbers", 12, id="one")
        self.assertEqual(program.stdout.readline(), "one: 144\n")
        program.send_signal(signal.SIGINT)
        self.assertEqual(program.stdout.readline(), "handing back what is in hand\n")
        self.assertEqual(program.wait(), 0)

    def test_the_subscriber_keeps_its_copy(self):
        program = self.start("subscriber", "changes")
        self.assertEqual(program.stdout.readline(), "begun with {}\n")
        self.client.call("HSET", "settings", "color", "red")
        self.client.call("PUBLISH", "changes", "color")
        self.assertEqual(program.stdout.readline(), "{'color': 'red'}\n")

    def test_the_transaction_moves_what_is_there(self):
        self.client.call("SET", "a", 15)
        self.assertEqual(self.whole("transaction", "a", "b", "10"), "moved: [5, 10]\n")
        self.assertEqual(self.whole("transaction", "a", "b", "10"), "there are only 5\n")

    def test_the_event_loop_does_its_tasks(self):
        self.assertEqual(self.whole("event_loop"), "1000 of 1000 tasks are done\n")

    def test_the_readme_begins_with_lines_that_run(self):
        code = re.search(r"```python\n(.*?)```", (HOME / "README.md").read_text(), re.S).group(1)
        self.assertLessEqual(len(code.splitlines()), 10)
        code = re.sub(r"redis-sentinel://[^\"]*", servers.uri, code)
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
        self.assertEqual((ran.stdout, ran.stderr), ("[8, 1] 8\n", ""))


if __name__ == "__main__":
    unittest.main()
