"""Builds the wheel and the source archive of vigie-redis (PEP 517), with the C compiler and Python alone.

The wheel holds one extension for every Python from 3.11 on, with libvigie.a linked in. Its tag says which glibc it needs, by the symbols that
the extension really uses. The library is looked for in VIGIE_DIR (a prefix), in the source tree around, and with pkg-config. CC names the
compiler; with VIGIE_ZIG=1 it is the one of the package ziglang, which builds for an older glibc.
"""

import base64
import hashlib
import io
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
DIST = f"vigie_redis-{VERSION}"
ZIG_GLIBC = "2.17"
# A fixed time, so that the same sources give the same bytes.
STAMP = (2020, 1, 1, 0, 0, 0)


def library():
    """(directory of vigie.h, libvigie.a)"""
    prefix = os.environ.get("VIGIE_DIR")
    places = [(pathlib.Path(prefix, "include"), pathlib.Path(prefix, "lib", "libvigie.a"))] if prefix else []
    places.append((ROOT / "include", ROOT / "build" / "libvigie.a"))
    for include, archive in places:
        if (include / "vigie.h").exists() and archive.exists():
            return include, archive
    ask = lambda what: subprocess.run(["pkg-config", f"--variable={what}", "vigie"], capture_output=True, text=True).stdout.strip()
    try:
        include, archive = pathlib.Path(ask("includedir")), pathlib.Path(ask("libdir"), "libvigie.a")
    except OSError:
        include = archive = pathlib.Path("-")
    if (include / "vigie.h").exists() and archive.exists():
        return include, archive
    raise SystemExit("vigie-redis: libvigie.a was not found: install the library (make install), and set VIGIE_DIR to its prefix or have pkg-config find it")


def compiler():
    """(command, further arguments for the linker)"""
    if os.environ.get("VIGIE_ZIG"):
        target = f"{platform.machine()}-linux-gnu.{ZIG_GLIBC}"
        return [sys.executable, "-m", "ziglang", "cc", "-target", target], ["-lunwind"]
    return shlex.split(os.environ.get("CC", "cc")), ["-lgcc_s", "-Wl,--as-needed"]


def compile_extension(directory):
    """_core.abi3.so, which shows its entry alone and leaves no symbol open but Python's."""
    include, archive = library()
    command, libraries = compiler()
    output = directory / "_core.abi3.so"
    exports = directory / "exports.map"
    exports.write_text("{ global: PyInit__core; local: *; };\n")
    python = sysconfig.get_path("include")
    sources = sorted(str(path) for path in (HERE / "csrc").glob("*.c"))
    flags = ["-O2", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-cast-function-type", f"-I{include}", f"-I{python}"]
    link = ["-shared", f"-Wl,--version-script={exports}", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,nodelete", "-Wl,--gc-sections", "-Wl,-s"]
    subprocess.run([*command, *flags, *sources, *link, "-o", str(output), str(archive), *libraries, "-lpthread", "-lm", "-ldl"], check=True)
    check_open_symbols(output)
    return output


def dynamic_symbols(path):
    return subprocess.run(["objdump", "-T", str(path)], capture_output=True, text=True, check=True).stdout


def check_open_symbols(path):
    """-z defs cannot be used, because Python's symbols are open in an extension: so what else is open is looked for here."""
    needed = {line.split()[-1] for line in dynamic_symbols(path).splitlines() if "*UND*" in line and "GLIBC" not in line and "GCC" not in line}
    stray = sorted(name for name in needed if not name.startswith(("Py", "_Py")) and name not in WEAK)
    if stray:
        raise SystemExit(f"vigie-redis: the extension would not load: nothing defines {', '.join(stray)}")


WEAK = {"__cxa_finalize", "__gmon_start__", "_ITM_registerTMCloneTable", "_ITM_deregisterTMCloneTable", "__cxa_thread_atexit_impl", "statx",
        "gettid", "getrandom", "copy_file_range", "preadv2", "pwritev2", "__tls_get_addr", "__pthread_get_minstack"}  # fmt: skip


def platform_tag(path):
    """manylinux_2_X for the glibc that the symbols ask for; linux where the C library is another one."""
    versions = re.findall(r"GLIBC_2\.(\d+)", dynamic_symbols(path))
    kind = f"manylinux_2_{max(map(int, versions))}" if versions else "linux"
    return f"{kind}_{platform.machine()}"


def metadata():
    readme = (HERE / "README.md").read_text()
    extras = PROJECT["optional-dependencies"]
    lines = ["Metadata-Version: 2.4", "Name: vigie-redis", f"Version: {VERSION}", f"Summary: {PROJECT['description']}",
             f"Requires-Python: {PROJECT['requires-python']}", f"License-Expression: {PROJECT['license']}", f"Keywords: {','.join(PROJECT['keywords'])}",
             "License-File: LICENSE", "License-File: THIRD-PARTY"]  # fmt: skip
    lines += [f"Classifier: {line}" for line in PROJECT["classifiers"]]
    for extra, requirements in extras.items():
        lines += [f"Provides-Extra: {extra}"] + [f'Requires-Dist: {one}; extra == "{extra}"' for one in requirements]
    return "\n".join([*lines, "Description-Content-Type: text/markdown", "", readme])


def licence(name):
    """In the source tree they stand at its root, in the source archive beside this file."""
    return next(path for path in (HERE / name, ROOT / name) if path.exists())


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with tempfile.TemporaryDirectory() as scratch:
        extension = compile_extension(pathlib.Path(scratch))
        tag = f"cp311-abi3-{platform_tag(extension)}"
        source = HERE / "src"
        found = [path for path in sorted((source / "vigie_redis").rglob("*")) if path.suffix in (".py", ".pyi") or path.name == "py.typed"]
        files = {str(path.relative_to(source)): path.read_bytes() for path in found}
        files["vigie_redis/_core.abi3.so"] = extension.read_bytes()
    info = f"{DIST}.dist-info"
    files[f"{info}/METADATA"] = metadata().encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: vigie\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    for name in ("LICENSE", "THIRD-PARTY"):
        files[f"{info}/licenses/{name}"] = licence(name).read_bytes()
    record = "".join(f"{name},sha256={digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    wheel = f"{DIST}-{tag}.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, wheel), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def build_sdist(sdist_directory, config_settings=None):
    name = f"{DIST}.tar.gz"
    with tarfile.open(pathlib.Path(sdist_directory, name), "w:gz") as archive:
        for path in sorted(HERE.rglob("*")):
            parts = path.relative_to(HERE).parts
            if path.is_file() and "__pycache__" not in parts and (path.suffix in (".py", ".pyi", ".c", ".h", ".toml", ".md") or path.name in ("py.typed", "build", "test")):
                archive.add(path, f"{DIST}/{'/'.join(parts)}")
        for extra in ("LICENSE", "THIRD-PARTY"):
            archive.add(licence(extra), f"{DIST}/{extra}")
        text = metadata().encode()
        entry = tarfile.TarInfo(f"{DIST}/PKG-INFO")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return name


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(target / build_wheel(target))
