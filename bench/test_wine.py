"""Calls of the system per echo on Windows' path, under wine: one connection, one message at a time.

Each server is its own client; calls.py says how calls are counted. iocpcore is the build that tests/windows/install has
installed.
"""
import dataclasses
import functools
import subprocess

import calls
import programs
from programs import Unavailable
from rounds import Measure
from servers import PEERS, NotThis, Server

WINE = programs.HERE / "wine"
FLOOR = programs.BUILD / "echo_iocp.exe"
RUN_FLOOR = f"import subprocess, sys; sys.exit(subprocess.call([r'Z:{FLOOR}', sys.argv[1]]))"


@dataclasses.dataclass(frozen=True)
class Calls(Measure):
    figure = "calls_per_echo"
    most_rounds = 1  # the next would count the same

    def units(self):
        return {"calls_per_echo": "calls of the system"}

    def round(self, server, options):
        yield 0
        return {"calls_per_echo": calls.calls_per_echo(*server.command)}


def compile_floor():
    programs.compile_c(FLOOR, WINE / "echo_iocp.c", "-static", "-lws2_32", compiler=["x86_64-w64-mingw32-gcc-posix"])


def install(*packages):
    done = subprocess.run([WINE / "install", *packages], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Unavailable(done.stdout.strip().splitlines()[-1])


def ready(prepare):
    """A server's check; what is missing is missing in this group alone."""
    try:
        calls.set_up()
        prepare()
    except Unavailable as reason:
        raise NotThis(str(reason)) from None


def under_wine(name, *command, prepare=lambda: None):
    return Server(name, command, frozenset({"echo"}), "c-iocp", functools.partial(ready, prepare))


def in_python(name, script, *arguments, packages=()):
    prepare = functools.partial(install, *packages) if packages else lambda: None
    return under_wine(name, PEERS / script, "--port", "0", *arguments, "--echoes", prepare=prepare)


SERVERS = [
    under_wine("c-iocp", "-c", RUN_FLOOR, prepare=compile_floor),
    in_python("iocpcore-windows", "iocpcore_server.py", "--native"),
    in_python("python-windows", "iocpcore_server.py"),
    in_python("asyncio-proactor", "asyncio_server.py"),
    in_python("winloop", "asyncio_server.py", "--loop", "winloop", packages=["winloop"]),
    in_python(
        "twisted-iocp",
        "twisted_server.py",
        "--reactor",
        "iocpreactor",
        packages=["Twisted", "twisted-iocpsupport", "pywin32"],
    ),
]


def test_calls(compare):
    compare(Calls("wine", "calls per echo"), SERVERS)
