"""All servers that are compared: how each is started, what it can serve, and why one cannot run here."""
import dataclasses
import functools
import importlib
import sys

import iocpcore
import programs
from programs import Unavailable

PEERS = programs.HERE / "peers"
SERVICES = frozenset({"echo", "two-writes", "bulk", "broadcast", "patient"})


class NotThis(Unavailable):
    """The server has no part in this group of cases; the message says why."""


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    command: tuple  # without the arguments that are the same for all
    services: frozenset
    base: str  # the server that its figures are a multiple of: raw C on the same backend, where there is one
    check: object = None  # raises Unavailable
    module: str | None = None  # what its users import
    lacks: str = "it does not serve that"  # why it has no other service
    counts: bool = False  # a line on its standard input is answered: how often it took the GIL, and its packets

    @property
    def peer(self):
        """Whose it is: what is before the comma of a name such as "uvloop, loop outside"."""
        return self.name.partition(",")[0]

    def started_with(self, service):
        """The command that serves that on a port which the system chooses."""
        return (*self.command, "--port", "0", "--service", service)

    def missing(self):
        """Why it cannot run here, whatever it is to serve, or None."""
        try:
            if self.check:
                self.check()
        except Unavailable as reason:
            return str(reason)
        return None


def importable(module):
    """A check: whether Python can import it."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(str(error)) from None


def backend_usable(name):
    backends = iocpcore.backends()
    reason = backends.get(name, "this build of iocpcore does not have it")
    if reason:
        raise Unavailable(reason)


def script(name, *arguments):
    return (sys.executable, str(PEERS / name), *arguments)


def raw_c(backend, *packages):
    name = f"server_{backend}"
    check = functools.partial(programs.program, name, *packages)
    services = SERVICES - {"patient"}
    lacks = "it has no back-pressure"
    return Server(f"c-{backend}", (str(programs.BUILD / name),), services, "c-epoll", check, lacks=lacks)


def on_iocpcore(name, backend, *arguments, **more):
    command = script("iocpcore_server.py", "--backend", backend, *arguments)
    check = functools.partial(backend_usable, backend)
    more = {"services": SERVICES, "counts": True} | more
    return Server(f"{name}-{backend}", command, base=f"c-{backend}", check=check, module="iocpcore", **more)


def native(backend):
    echo = frozenset({"echo", "patient"})
    return on_iocpcore("iocpcore", backend, "--native", services=echo, lacks="the native handler only echoes")


def on_asyncio(module):
    command = script("asyncio_server.py", "--loop", module)
    return Server(module, command, SERVICES, "c-epoll", functools.partial(importable, module), module)


def on_twisted():
    check = functools.partial(importable, "twisted")
    services, reactor = SERVICES - {"patient"}, "twisted.internet.reactor"
    return Server("twisted", script("twisted_server.py"), services, "c-epoll", check, reactor)


ALL = [
    raw_c("epoll"),
    raw_c("uring", "liburing"),
    native("epoll"),
    native("uring"),
    on_iocpcore("python", "epoll"),
    on_iocpcore("python", "uring"),
    on_asyncio("asyncio"),
    on_asyncio("uvloop"),
    on_asyncio("rsloop"),
    on_twisted(),
]
SERVERS = {server.name: server for server in ALL}


def from_command_line(text):
    """NAME=COMMAND: a server of the user's own, which is given --port and --service and must say where it listens."""
    name, _, command = text.partition("=")
    if not name or not command:
        raise ValueError(f"NAME=COMMAND is wanted, not {text!r}")
    return Server(name, tuple(command.split()), SERVICES, "c-epoll")
