"""The package as it was installed: what the wheel holds, what the extension shows and needs, what help() says."""

import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import pydoc
import re
import shutil
import subprocess
import sys
import tomllib
import unittest
import zipfile

import kit
import vigie_redis
from vigie_redis import _core, aio

OUT = pathlib.Path(os.environ.get("VIGIE_OUT", "/nonexistent"))


class Package(unittest.TestCase):
    def test_one_version_everywhere(self):
        cargo = tomllib.loads((kit.PACKAGES.parent / "Cargo.toml").read_text())["package"]["version"]
        self.assertEqual({vigie_redis.__version__, _core.version, importlib.metadata.version("vigie-redis")}, {cargo})

    def test_it_runs_from_the_environment_and_not_from_the_sources(self):
        self.assertNotIn(str(kit.PACKAGES), vigie_redis.__file__)

    @unittest.skipUnless(OUT.exists(), "VIGIE_OUT is not set")
    def test_the_wheel_has_the_licences_and_types_and_says_which_glibc_it_needs(self):
        (wheel,) = OUT.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        for wanted in ("licenses/LICENSE", "licenses/THIRD-PARTY", "vigie_redis/py.typed", "vigie_redis/_core.pyi"):
            self.assertTrue(any(name.endswith(wanted) for name in names), wanted)
        self.assertRegex(wheel.name, r"-cp311-abi3-manylinux_2_\d+_\w+\.whl$")
        self.assertTrue(list(OUT.glob("*.tar.gz")))

    @unittest.skipUnless(shutil.which("objdump"), "there is no objdump")
    def test_the_extension_shows_its_entry_alone_and_needs_only_the_c_library(self):
        table = subprocess.run(["objdump", "-T", _core.__file__], capture_output=True, text=True, check=True).stdout
        shown = {line.split()[-1] for line in table.splitlines()[4:] if line and "*UND*" not in line}
        self.assertEqual(shown, {"PyInit__core"})
        headers = subprocess.run(["objdump", "-p", _core.__file__], capture_output=True, text=True, check=True).stdout
        needed = set(re.findall(r"NEEDED +(\S+)", headers))
        self.assertLessEqual({name.split(".so")[0] for name in needed}, {"libc", "libm", "libgcc_s", "libpthread", "libdl", "ld-linux-x86-64", "ld-linux-aarch64"})
        self.assertNotRegex(headers, "R(UN)?PATH")

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed: scripts/setup test fetches it")
    @unittest.skipIf(kit.QUICK, "takes long")
    def test_mypy_strict_has_nothing_to_say(self):
        places = [str(pathlib.Path(vigie_redis.__file__).parent), str(kit.PACKAGES / "python/tests/typed.py")]
        ran = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *places], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_everything_public_is_documented(self):
        missing = [name for name in vigie_redis.__all__ if not inspect.getdoc(getattr(vigie_redis, name))]
        for module in (vigie_redis, aio):
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if cls.__module__.startswith("vigie_redis.") and not cls.__name__.startswith("_"):
                    members = inspect.getmembers(cls, lambda member: inspect.isfunction(member) and member.__module__.startswith("vigie_redis") and not member.__qualname__.startswith("_"))
                    missing += [f"{cls.__qualname__}.{name}" for name, member in members if not name.startswith("_") and not inspect.getdoc(member)]
        self.assertEqual(missing, [])
        self.assertIn("idempotent", pydoc.render_doc(vigie_redis.Client.call))


if __name__ == "__main__":
    unittest.main()
