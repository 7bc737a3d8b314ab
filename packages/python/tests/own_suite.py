"""Runs redis-py's own tests of the blocking client against the door. Those that fail must be listed in own_suite.txt, with the reason, and
those that are listed must fail: so the list says what differs, and nothing else. It is for VERSION of redis-py and Redis 7.0.

usage: own_suite.py SOURCES [asyncio]     SOURCES: the unpacked source archive of redis-py; asyncio: its tests of the client for asyncio, all of
whose failures are printed, because there is no list of them
Needs pytest, pytest-asyncio and pytest-timeout beside redis-py. Prints what is not as listed, and ends with 1 then.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import kit
import redis

FILES = ["commands", "pipeline", "lock", "scripting", "encoding", "function", "pubsub"]
VERSION = "8.1.0"
HERE = pathlib.Path(__file__).parent

# Before redis-py's tests import anything, its classes are the door's.
PLUGIN = """
import redis, redis.asyncio
from vigie_redis import redis_py
from vigie_redis.redis_py import asyncio as door
redis.Redis = redis.StrictRedis = redis_py.Redis
redis.ConnectionPool = redis_py.ConnectionPool
redis.asyncio.Redis = redis.asyncio.StrictRedis = door.Redis
redis.asyncio.ConnectionPool = door.ConnectionPool
"""


def listed():
    """{test: reason}"""
    found, reason = {}, None
    for line in (HERE / "own_suite.txt").read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line.strip():
            found[line.strip()] = reason
    return found


def run(sources, port, places):
    """The names of the tests that failed, and the last line."""
    with tempfile.TemporaryDirectory() as scratch:
        place = pathlib.Path(scratch)
        shutil.copytree(pathlib.Path(sources) / "tests", place / "tests")
        shutil.copy(pathlib.Path(sources) / "pyproject.toml", place)
        (place / "vigie_door.py").write_text(PLUGIN)
        names = [f"tests/{at}test_{name}.py" for at in places for name in FILES]
        names = [name for name in names if (place / name).exists()]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "vigie_door", "-p", "no:cacheprovider", "--timeout", "10", "--tb=no", "-r", "fE"]
        command += ["--redis-url", f"redis://127.0.0.1:{port}/0", "--maxfail", "100000", *names]
        ran = subprocess.run(command, cwd=place, capture_output=True, text=True, errors="replace")
    failed = {re.sub(r"\[.*", "", name) for name in re.findall(r"^(?:FAILED|ERROR) tests/(\S+)", ran.stdout, re.M)}
    return failed, ran.stdout.strip().splitlines()[-1]


def main():
    if redis.__version__ != VERSION:
        print(f"skipped: the list of what differs is of redis-py {VERSION}, and {redis.__version__} is installed")
        return
    asyncio = sys.argv[2:] == ["asyncio"]
    with kit.deployment(0, 1) as servers:
        failed, last = run(sys.argv[1], servers.told["primary"], ["test_asyncio/"] if asyncio else [""])
    known = {} if asyncio else listed()
    print(f"redis-py's own tests: {last}")
    for name in sorted(failed - known.keys()):
        print(f"  fails and is not listed: {name}")
    for name in sorted(known.keys() - failed):
        print(f"  is listed and does not fail: {name} ({known[name]})")
    sys.exit(failed != known.keys())


main()
