"""What the tests start: a deployment of real servers and Sentinels, and the server that answers with given bytes.

Both end with this process, because their standard input ends with it.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import time

PACKAGES = pathlib.Path(os.environ["VIGIE_ROOT"]) / "packages"
KIT = PACKAGES / "testkit"
VECTORS = PACKAGES / "vectors"
QUICK = os.environ.get("VIGIE_QUICK") == "1"


class Program:
    """A program of the test kit, which speaks JSON line by line."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} has ended: {self.process.wait()}")
        told = json.loads(line)
        if "error" in told:
            raise RuntimeError(told["error"])
        return told

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Deployment(Program):
    """One primary, two replicas, three Sentinels."""

    def __init__(self, replicas=2, sentinels=3):
        super().__init__(str(KIT / "deployment"), str(replicas), str(sentinels))

    @property
    def uri(self):
        return self.told["uri"]


class Scripted(Program):
    """Answers `GET reply:NAME` with the bytes of the vectors."""

    def __init__(self, *options):
        super().__init__(str(KIT / "scripted"), *options)


@contextlib.contextmanager
def deployment(replicas=2, sentinels=3):
    it = Deployment(replicas, sentinels)
    try:
        yield it
    finally:
        it.end()


def until(what, condition, seconds=60):
    """Waits for a condition; only a fault lasts for so long."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.005)
    return value


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def resident_kb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
