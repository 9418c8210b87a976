"""All servers that are compared: how each is started, what it can serve, and why one cannot run here."""
import dataclasses
import functools
import importlib
import sys

import iocpcore
import programs

PEERS = programs.HERE / "peers"
PYTHON_SERVICES = frozenset({"echo", "two-writes", "bulk", "broadcast"})


class Unavailable(Exception):
    """This machine cannot run the server; the message says why."""


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    command: tuple  # without the arguments that are the same for all
    services: frozenset
    base: str  # the server that its figures are a multiple of: raw C on the same backend, where there is one
    check: object = None  # raises Unavailable
    module: str | None = None  # what its users import
    hog: str | None = None  # where the busy loop of test_busy.py is: "inside" its process, or "outside"

    @property
    def peer(self):
        """Whose it is: what is before the comma of a name such as "uvloop, loop outside"."""
        return self.name.partition(",")[0]

    def started_with(self, service):
        """The command that serves that on a port which the system chooses."""
        return (*self.command, "--port", "0", "--service", service, *(["--hog"] if self.hog == "inside" else []))

    def missing(self):
        """Why it cannot run here, or None."""
        try:
            if self.check:
                self.check()
        except Unavailable as reason:
            return str(reason)
        return None


def importable(module):
    """A check: whether Python can import it, and if not, what pip said."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        why = programs.not_installed(module)
        raise Unavailable(f"{error}; {why}" if why else str(error)) from None


def backend_usable(name):
    backends = iocpcore.backends()
    reason = backends.get(name, "this build of iocpcore does not have it")
    if reason:
        raise Unavailable(reason)


@functools.cache
def built(name, *packages):
    try:
        programs.program(name, *packages)
    except programs.NotHere as reason:
        raise Unavailable(str(reason)) from None


def script(name, *arguments):
    return (sys.executable, str(PEERS / name), *arguments)


def raw_c(backend, services, *packages):
    name = f"server_{backend}"
    check = functools.partial(built, name, *packages)
    return Server(f"c-{backend}", (str(programs.BUILD / name),), frozenset(services), "c-epoll", check)


def on_iocpcore(name, backend, services, *arguments):
    command = script("iocpcore_server.py", "--backend", backend, *arguments)
    check = functools.partial(backend_usable, backend)
    return Server(f"{name}-{backend}", command, frozenset(services), f"c-{backend}", check, "iocpcore")


def on_asyncio(module):
    command = script("asyncio_server.py", "--loop", module)
    return Server(module, command, PYTHON_SERVICES, "c-epoll", functools.partial(importable, module), module)


SERVERS = [
    raw_c("epoll", PYTHON_SERVICES),
    raw_c("uring", PYTHON_SERVICES - {"broadcast"}, "liburing"),
    on_iocpcore("iocpcore", "epoll", {"echo"}, "--native"),
    on_iocpcore("iocpcore", "uring", {"echo"}, "--native"),
    on_iocpcore("python", "epoll", PYTHON_SERVICES),
    on_iocpcore("python", "uring", PYTHON_SERVICES),
    on_asyncio("asyncio"),
    on_asyncio("uvloop"),
    on_asyncio("rsloop"),
    Server(
        "twisted",
        script("twisted_server.py"),
        PYTHON_SERVICES,
        "c-epoll",
        functools.partial(importable, "twisted"),
        "twisted.internet.reactor",
    ),
]


def offering(service):
    return [server for server in SERVERS if service in server.services]


def from_command_line(text):
    """NAME=COMMAND: a server of the user's own, which is given --port and --service and must say where it listens."""
    name, _, command = text.partition("=")
    if not name or not command:
        raise ValueError(f"NAME=COMMAND is wanted, not {text!r}")
    return Server(name, tuple(command.split()), PYTHON_SERVICES, "c-epoll")
