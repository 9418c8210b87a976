"""Builds the programs of the suite into build/bench, and knows what is not here."""
import functools
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
CORE = ROOT / "iocpcore"
FOLDERS = sorted({file.parent for file in CORE.rglob("*.pxd")})  # with what Cython and the C compiler include
FLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra"]


class Unavailable(Exception):
    """This machine cannot run it; the message says why."""


def native_compiler():
    return shlex.split(os.environ.get("CC", "cc"))


def package_flags(names):
    command = ["pkg-config", "--cflags", "--libs", *names]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() if names else []
    except (OSError, subprocess.CalledProcessError):
        raise Unavailable(f"pkg-config finds no {' '.join(names)}") from None


@functools.cache
def program(name, *packages):
    """The path of reference/NAME.c compiled; raises Unavailable. A source that does not compile is an error of ours."""
    return compile_c(BUILD / name, HERE / "reference" / f"{name}.c", *package_flags(packages))


def extension(pyx):
    """The path of a module that is made of the core's own sources."""
    if importlib.util.find_spec("Cython") is None:
        raise Unavailable("Cython is not installed")
    BUILD.mkdir(parents=True, exist_ok=True)
    code = BUILD / f"{pyx.stem}.c"
    cython = [sys.executable, "-m", "cython", "-3", *(f"-I{folder}" for folder in FOLDERS)]
    subprocess.run([*cython, "-o", code, pyx], check=True)
    linux = [CORE / "calls" / "linux" / f"{name}.c" for name in ("port", "socket", "epoll")]
    include = [f"-I{path}" for path in (*FOLDERS, sysconfig.get_paths()["include"])]
    options = ["-shared", "-fPIC", "-Wno-unused-parameter", "-Wno-missing-field-initializers", *include]
    return compile_c(BUILD / f"{pyx.stem}{sysconfig.get_config_var('EXT_SUFFIX')}", code, *linux, *options)


def compile_c(target, *arguments, compiler=None):
    BUILD.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{os.getpid()}-{target.name}")  # another run may be using the old one
    try:
        subprocess.run([*(compiler or native_compiler()), *FLAGS, "-o", fresh, *arguments], check=True)
    except FileNotFoundError as error:
        raise Unavailable(f"no C compiler: {error.filename}") from None
    return fresh.replace(target)
