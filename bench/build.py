"""Builds the C programs of the suite into build/bench, and knows what is not here."""
import os
import shlex
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
FLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra"]


class NotHere(Exception):
    """Something that the program needs; the message says what."""


def compiler():
    return shlex.split(os.environ.get("CC", "cc"))


def package_flags(names):
    command = ["pkg-config", "--cflags", "--libs", *names]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() if names else []
    except (OSError, subprocess.CalledProcessError):
        raise NotHere(f"pkg-config finds no {' '.join(names)}") from None


def program(name, *packages):
    """The path of reference/NAME.c compiled; raises NotHere. A source that does not compile is an error of ours."""
    source, target = HERE / "reference" / f"{name}.c", BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{name}.{os.getpid()}")  # another run may be executing the old one
    try:
        subprocess.run([*compiler(), *FLAGS, "-o", fresh, source, *package_flags(packages)], check=True)
    except FileNotFoundError as error:
        raise NotHere(f"no C compiler: {error.filename}") from None
    return fresh.replace(target)


def not_installed(name):
    """What install.py heard from pip about the package, or nothing."""
    try:
        return (BUILD / "not-installed" / name).read_text().strip()
    except FileNotFoundError:
        return ""
