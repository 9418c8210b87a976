"""A fuzzer of the Python API: random calls with good and bad arguments, from everywhere a program may call.

    python tests/soak/fuzz.py --calls 20000 --backend epoll --seed 1 --jobs 2

Each seed is a process of its own, so that a crash is that seed's. In it the main thread, two more threads, callbacks
and signals call proactors (threaded and polled), listeners, sessions and loads, while plain sockets connect to the
listeners, send, end and reset. Arguments are right, of a wrong type, huge, negative, closed, of another proactor, or
objects whose own code makes a call in the middle of ours.

What must hold: no crash and no hang, no exception but those that are documented, and at the end of each seed every
proactor closes with statistics that balance and nothing left. What a seed tries is fixed; how the system runs its
threads is not. Exit status 1: a rule was broken; the seed is named, and `--first SEED --seeds 1` runs it again.

tools/sanitize asan --script tests/soak/fuzz.py does so under ASan and UBSan (make fuzz).
"""

import argparse
import contextlib
import enum
import faulthandler
import gc
import json
import logging
import math
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import iocpcore

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run by hand it is on its own

from support import balanced

CALLS = 2000  # of a seed
PATIENCE = 300.0  # seconds that a seed may take
THREADS = 2  # that call, beside the main one
KEPT = 30  # of each kind of object: the oldest is let go
DRAINS = (0, 0, 0, 0.001, 0.01)  # seconds
# OSError: those of sockets, SessionClosed and what a resolver says; BufferError: SendLimitExceeded, and bytes that are
# not in one piece.
DOCUMENTED = (TypeError, ValueError, OSError, BufferError, RuntimeError, MemoryError)


class Thrown(Exception):
    """What our own callbacks and arguments raise; it comes back only through the log, or from the argument."""


class Broken(AssertionError):
    """A rule was broken."""


class Liar(int):
    """An int that compares as it likes."""

    def __lt__(self, other):
        return False

    def __le__(self, other):
        return True

    __gt__, __ge__ = __lt__, __le__


class Port(enum.IntEnum):
    NONE = 0
    HUGE = 1 << 40


class World:
    """All that a seed makes, and the sums of what it did. Lists are changed in single steps under the GIL."""

    def __init__(self, seed, backend, calls):
        self.seed, self.backend, self.wanted = seed, backend, calls
        self.calls = 0
        self.raised = {}
        self.broken = []
        self.proactors, self.listeners, self.sessions, self.loads, self.peers = [], [], [], [], []
        self.every = []  # proactors, for the end: (proactor, the thread that made it)
        self.over = False

    def keep(self, kind, thing):
        kind.append(thing)
        if len(kind) > KEPT:
            with contextlib.suppress(IndexError):
                return kind.pop(0)
        return None

    def enough(self):
        return self.over or self.calls >= self.wanted or bool(self.broken)


class Caller:
    """Makes random calls: one for each thread, for all callbacks of a handler, and for a signal."""

    def __init__(self, world, name):
        self.world = world
        self.random = random.Random(f"{world.seed} {name}")
        self.depth = 0
        self.here = threading.get_ident()

    # ---- arguments ----

    def one_of(self, things):
        """Another thread may take the last one away."""
        try:
            return self.random.choice(things)
        except IndexError:
            return None

    def odd(self):
        """Something that hardly anything takes."""
        return self.random.choice(
            (
                lambda: None,
                lambda: True,
                lambda: False,
                lambda: -1,
                lambda: 0,
                lambda: 1,
                lambda: 1 << 31,
                lambda: 1 << 63,
                lambda: 1 << 70,
                lambda: -(1 << 70),
                lambda: 1.5,
                lambda: math.nan,
                lambda: math.inf,
                lambda: "",
                lambda: "x" * 300,
                lambda: "a\0b",
                lambda: "\ud800",
                lambda: "127.0.0.1",
                lambda: b"127.0.0.1",
                lambda: b"",
                lambda: memoryview(b"abcdef")[::2],
                lambda: [],
                lambda: [None],
                lambda: {},
                lambda: (),
                lambda: object(),
                lambda: Liar(self.random.choice((-5, 0, 3, 1 << 40))),
                lambda: Port.HUGE,
                lambda: self.meddler(),
                lambda: int,
                lambda: self.one_of(self.world.sessions),
                lambda: self.one_of(self.world.proactors),
                lambda: self.one_of(self.world.loads),
                lambda: iocpcore.ECHO,
                lambda: self.sock(),
            )
        )()

    def meddler(self):
        """An argument whose own code makes a call, or raises."""
        caller = self

        class Meddler:
            def meddle(self):
                caller.nested()
                if caller.random.random() < 0.3:
                    raise Thrown("an argument's own code")
                return 1

            def __getattr__(self, name):
                self.meddle()
                raise AttributeError(name)

            __index__ = __int__ = __len__ = __hash__ = meddle

            def __bool__(self):
                return bool(self.meddle())

            def __str__(self):
                self.meddle()
                return "a meddler"

            __repr__ = __str__

            def __eq__(self, other):
                return bool(self.meddle())

            def __iter__(self):
                self.meddle()
                return iter((0, 1))

        return Meddler()

    def maybe(self, good, odds=0.12):
        """Mostly good."""
        return self.odd() if self.random.random() < odds else good()

    def some(self, **choices):
        """Some of the keyword arguments, each mostly good."""
        few = self.random.choice((0.0, 0.1, 0.5))
        return {name: self.maybe(good) for name, good in choices.items() if self.random.random() < few}

    def whole(self, *choices):
        return lambda: self.random.choice(choices)

    def options(self):
        return self.some(
            idle_timeout=self.whole(None, 0.001, 0.05, 5),
            send_timeout=self.whole(None, 0.001, 0.05, 5),
            linger=self.whole(0, 0.001, 1),
            keep_alive=self.whole(None, (1, 1, 1), (60, 10, 3), (0, 0, 0), (1 << 40, 1, 1)),
            no_delay=self.whole(True, False),
            receive_size=self.whole(1, 100, 16384, 262144, 262145),
            high_water=self.whole(0, 1, 1000, 65536),
            low_water=self.whole(0, 1, 1000),
            send_limit=self.whole(None, 1, 1000, 1 << 20),
            **({"unknown": lambda: 1} if self.random.random() < 0.02 else {}),
        )

    def host(self):
        return self.random.choice(("127.0.0.1", "127.0.0.1", "127.0.0.1", "::1", "localhost", None, ""))

    def port(self):
        listener = self.one_of(self.world.listeners)
        return 0 if listener is None or self.random.random() < 0.1 else listener.port

    def data(self):
        length = self.random.choice((0, 1, 10, 900, 1000, 16384, 16385, 70000, 300000))
        return self.random.choice((bytes, bytes, bytearray, lambda count: memoryview(bytes(count))))(length)

    def sock(self):
        """Of any kind, in any state. Ours to lose."""
        return self.random.choice(
            (
                self.connected,
                self.connected,
                self.connected,
                self.bound,
                self.listening,
                self.closed,
                self.unbound,
                self.datagram,
                self.reset_one,
                self.local,
                self.duplicate,
            )
        )()

    def connected(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            sock, _ = listening.accept()
        self.drop(self.world.keep(self.world.peers, peer))
        return sock

    def reset_one(self):
        sock = self.connected()
        with contextlib.suppress(IndexError, OSError):  # another thread may have had it, and have closed it
            reset(self.world.peers.pop())
        return sock

    def bound(self):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        return sock

    def listening(self):
        return socket.create_server(("127.0.0.1", 0), backlog=self.random.choice((0, 1, 100)))

    def closed(self):
        sock = socket.socket()
        sock.close()
        return sock

    def unbound(self):
        return socket.socket(self.random.choice((socket.AF_INET, socket.AF_INET6)))

    def datagram(self):
        return socket.socket(type=socket.SOCK_DGRAM)

    def local(self):
        return socket.socket(socket.AF_UNIX) if hasattr(socket, "AF_UNIX") else self.unbound()

    def duplicate(self):
        """Another descriptor of a peer's own socket: both ends of the connection may be ours then."""
        peer = self.one_of(self.world.peers)
        try:
            return self.unbound() if peer is None else peer.dup()
        except OSError:
            return self.unbound()

    def drop(self, sock):
        if sock is not None:
            sock.close()

    def handler(self):
        kind = self.random.random()
        if kind < 0.15:
            return iocpcore.ECHO
        if kind < 0.2:
            return iocpcore.DISCARD
        return made_handler(self)

    # ---- calls ----

    def call(self, name, function, *arguments, **named):
        """Make it; None if it raised what it may raise."""
        world = self.world
        world.calls += 1
        try:
            return function(*arguments, **named)
        except (Thrown, *DOCUMENTED) as error:
            kind = f"{name}: {type(error).__name__}"
            world.raised[kind] = world.raised.get(kind, 0) + 1
        except (KeyboardInterrupt, SystemExit) as error:
            if "Thrown" not in str(error):  # a callback of ours had raised it
                world.broken.append(f"{name}: {error!r}")
        except BaseException as error:
            world.broken.append(f"{name}{arguments_text(arguments, named)}: {type(error).__name__}: {error}")
        return None

    def nested(self):
        """In a callback, in a signal, or in an argument's own code: but not for ever."""
        if self.depth < 2 and not self.world.enough():
            self.depth += 1
            try:
                self.act()
            finally:
                self.depth -= 1

    def act(self):
        self.random.choices(ACTIONS, WEIGHTS)[0](self)

    def make_proactor(self):
        if len([one for one in self.world.proactors if not one.closing]) >= 4:
            return
        workers = self.whole(1, 2, 3, 0) if threading.get_ident() == self.here and not self.depth else self.whole(1, 2)
        made = self.call(
            "Proactor",
            iocpcore.Proactor,
            self.maybe(workers, 0.05),
            self.maybe(lambda: self.world.backend, 0.05),
            **self.some(max_sessions=self.whole(None, 1, 3, 1000), skip_on_success=self.whole(True, False)),
        )
        if made is None:
            return
        self.world.every.append((made, threading.get_ident()))
        if made.workers == 0:
            POLLED[id(made)] = threading.get_ident()
            self.call("poll", made.poll, 0)  # before another thread knows it, which would be the one that polls
        for worker in range(made.workers):
            self.call("post", made.post, at_home, made, worker=worker)
        self.world.keep(self.world.proactors, made)

    def proactor(self):
        if self.random.random() < 0.01:
            return iocpcore.Proactor.__new__(iocpcore.Proactor)
        return self.one_of(self.world.proactors)

    def listen(self):
        proactor = self.proactor()
        if proactor is None or not can_answer(proactor):
            return
        more = self.some(
            backlog=self.whole(None, 1, 100),
            max_sessions=self.whole(None, 1, 5),
            when_full=self.whole("wait", "refuse"),
            workers=self.whole(None, [0], [0, 1], (0,), range(3)),
            shared=self.whole(False, True),
        )
        if self.random.random() < 0.2:
            sock = more["sock"] = self.maybe(
                lambda: self.random.choice((self.bound, self.listening, self.sock))(), 0.05
            )
            arguments = ()
        else:
            sock = None
            arguments = (self.maybe(self.host, 0.05), self.maybe(lambda: 0, 0.05))
        listener = self.call(
            "listen", proactor.listen, self.maybe(self.handler, 0.05), *arguments, **more, **self.options()
        )
        if listener is None:
            self.lose(sock)
        else:
            self.world.keep(self.world.listeners, listener)

    def lose(self, sock):
        """One that the call has not taken; or has, and then it is closed."""
        if isinstance(sock, socket.socket):
            sock.close()

    def connect(self):
        proactor = self.proactor()
        if proactor is None:
            return
        more = self.some(
            timeout=self.whole(None, 0.001, 1), local_address=self.whole(None, ("127.0.0.1", 0), ("::1", 0))
        )
        session = self.call(
            "connect",
            proactor.connect,
            self.maybe(self.handler, 0.05),
            self.maybe(self.host, 0.05),
            self.maybe(lambda: self.port() or 1, 0.05),
            **more,
            **self.options(),
        )
        self.have(session)

    def have(self, session):
        if session is not None:
            self.world.keep(self.world.sessions, session)

    def adopt(self):
        proactor = self.proactor()
        if proactor is None:
            return
        sock = self.maybe(lambda: self.random.choice((self.connected, self.sock))(), 0.05)
        session = self.call("adopt", proactor.adopt, self.maybe(self.handler, 0.05), sock, **self.options())
        if session is None:
            self.lose(sock)
        self.have(session)

    def post(self):
        proactor = self.proactor()
        if proactor is not None:
            self.call(
                "post",
                proactor.post,
                self.maybe(lambda: self.nested, 0.1),
                *[None] * self.random.choice((0, 0, 0, 1)),
                **self.some(worker=self.whole(None, 0, 1, 5)),
            )

    def poll(self):
        proactor = self.proactor()
        if proactor is not None:
            self.call("poll", proactor.poll, self.maybe_seconds(0, 0.001, 0.01))

    def maybe_seconds(self, *choices):
        """Good or bad, but never for long."""
        value = self.maybe(self.whole(*choices))
        long = isinstance(value, (int, float)) and value > 1 and value <= 366 * 86400
        return choices[0] if value is None or long or isinstance(value, bool) else value

    def close_proactor(self):
        """Not often: then there would be little to call. In a callback of a worker it is that worker's proactor: two
        callbacks that closed each other's would wait for each other."""
        proactor = HOMES.get(threading.get_ident()) or self.proactor()
        if proactor is not None and self.random.random() < 0.1:
            self.call("Proactor.close", proactor.close, self.maybe_seconds(*DRAINS))

    def look_at_proactor(self):
        proactor = self.proactor()
        if proactor is None:
            return
        what = self.random.choice(("stats", "repr", "workers", "backend", "again"))
        if what == "stats":
            stats = self.call("Proactor.stats", proactor.stats)
            if stats is not None and not balanced(stats):
                self.world.broken.append(f"statistics do not balance: {stats}")
        elif what == "again":
            self.call("Proactor.__init__", proactor.__init__, self.odd())
        else:
            self.call(what, (lambda: repr(proactor)) if what == "repr" else (lambda: getattr(proactor, what)))

    def of_listener(self):
        listener = self.one_of(self.world.listeners)
        if listener is None:
            return
        what = self.random.choice(("close", "stats", "repr", "port", "address", "proactor"))
        if what == "close" and not can_answer(listener.proactor):
            return
        self.use("Listener", listener, what)

    def use(self, kind, thing, what):
        """A method without arguments, or an attribute."""
        name = f"{kind}.{what}"
        if what == "repr":
            self.call(name, repr, thing)
            return
        got = self.call(name, getattr, thing, what)
        if callable(got) and what != "handler":
            self.call(name, got)

    def send(self):
        session = self.one_of(self.world.sessions)
        if session is not None:
            self.call("send", session.send, self.maybe(self.data))

    def of_session(self):
        session = self.one_of(self.world.sessions)
        if session is None:
            return
        what = self.random.choice(
            (
                "end",
                "pause",
                "resume",
                "resume",
                "close",
                "abort",
                "stats",
                "repr",
                "peername",
                "sockname",
                "unsent",
                "closing",
                "closed",
                "id",
                "listener",
                "marks",
                "data",
            )
        )
        if what == "marks":
            self.call(
                "set_water_marks",
                session.set_water_marks,
                self.maybe(self.whole(0, 1, 1000, 1 << 20)),
                *[self.odd()] * self.random.choice((0, 0, 1)),
            )
        elif what == "data":
            session.data = self.odd()
        else:
            self.use("Session", session, what)

    def make_load(self):
        load = self.call(
            "Load",
            iocpcore.Load,
            self.maybe(self.whole(1, 2, 5), 0.05),
            self.maybe(self.whole(1, 5, 50), 0.05),
            self.maybe(self.whole(1, 64, 20000, (1, 100), (5, 1)), 0.05),
            self.maybe(self.whole(1, 4), 0.05),
        )
        if load is not None and isinstance(load, iocpcore.Load):
            self.world.keep(self.world.loads, load)

    def of_load(self):
        load = self.one_of(self.world.loads)
        if load is None:
            return
        what = self.random.choice(("start", "start", "wait", "result", "echoes", "repr"))
        if what == "start":
            self.call(
                "Load.start",
                load.start,
                self.maybe(self.proactor),
                self.maybe(self.host, 0.05),
                self.maybe(lambda: self.port() or 1, 0.05),
            )
        elif what == "wait":
            self.call("Load.wait", load.wait, self.maybe_seconds(0, 0.001))
        else:
            self.use("Load", load, what)

    def misuse(self):
        """What nobody should make, and methods of the wrong object."""
        one = self.random.choice((iocpcore.Session, iocpcore.Listener, iocpcore.Handler, type(iocpcore.ECHO)))
        what = self.random.choice(("make", "new", "unbound", "subclass"))
        if what == "make":
            self.call(f"{one.__name__}()", one)
        elif what == "new":
            made = self.call(f"{one.__name__}.__new__", one.__new__, one)
            name = self.one_of([name for name in dir(one) if not name.startswith("_")])
            if made is not None and name is not None:
                self.use(one.__name__, made, name)
        elif what == "unbound":
            self.call("Session.send of another", iocpcore.Session.send, self.odd(), b"x")
        else:
            self.call("subclass", type, "Sub", (one,), {})

    # ---- peers: no calls of ours, but what makes sessions live ----

    def peer(self):
        listener = self.one_of(self.world.listeners)
        if listener is None:
            return
        address = listener.address[:2]
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.connect((address[0].replace("0.0.0.0", "127.0.0.1"), address[1]))
        self.drop(self.world.keep(self.world.peers, sock))

    def of_peer(self):
        sock = self.one_of(self.world.peers)
        if sock is None:
            return
        what = self.random.random()
        with contextlib.suppress(OSError, ValueError):
            sock.setblocking(False)
            if what < 0.5:
                sock.send(bytes(self.random.choice((1, 100, 16384, 70000))))
            elif what < 0.8:
                sock.recv(70000)
            elif what < 0.9:
                sock.shutdown(socket.SHUT_WR)
            elif what < 0.95:
                reset(sock)
            else:
                sock.close()


def arguments_text(arguments, named):
    try:
        return repr((arguments, named))[:300]
    except Exception:
        return "(...)"


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0))
    sock.close()


def can_answer(proactor):
    """A polled one answers listen() only when its thread polls, which may be waiting for ours: that thread asks it."""
    return POLLED.get(id(proactor), threading.get_ident()) == threading.get_ident()


POLLED = {}  # id of a polled proactor -> the thread that made it
HOMES = {}  # a worker's thread -> its proactor


def at_home(proactor):
    HOMES[threading.get_ident()] = proactor


def made_handler(parent):
    """One with some of the callbacks, each of which may call anything, or raise."""
    caller = Caller(parent.world, parent.random.random())

    def act(session, *_):
        caller.have(session)
        for _ in range(caller.random.choice((0, 0, 0, 1, 1, 3))):
            caller.nested()
        chance = caller.random.random()
        if chance < 0.02:
            raise Thrown("a callback")
        if chance < 0.0202:
            raise SystemExit("Thrown")

    def on_receive(session, data):
        if caller.random.random() < 0.5:
            caller.call("send", session.send, data)
        act(session)

    every = {
        "on_connect": lambda self, session: act(session),
        "on_receive": lambda self, session, data: on_receive(session, data),
        "on_drain": lambda self, session: act(session),
        "on_end": lambda self, session: act(session),
        "on_close": lambda self, session, error: act(session),
        "on_shutdown": lambda self, session: act(session),
    }
    have = caller.random.choice((0.5, 0.9, 1))
    names = [name for name in every if caller.random.random() < have] or ["on_receive"]
    return type("Fuzzed", (), {name: every[name] for name in names})()


TURNS = {
    Caller.make_proactor: 4,
    Caller.listen: 8,
    Caller.connect: 15,
    Caller.adopt: 6,
    Caller.post: 6,
    Caller.poll: 10,
    Caller.close_proactor: 4,
    Caller.look_at_proactor: 4,
    Caller.of_listener: 5,
    Caller.send: 20,
    Caller.of_session: 20,
    Caller.make_load: 2,
    Caller.of_load: 4,
    Caller.misuse: 2,
    Caller.peer: 10,
    Caller.of_peer: 20,
}
ACTIONS, WEIGHTS = list(TURNS), list(TURNS.values())


# ---- a seed ----


def call_until_enough(world, name):
    caller = Caller(world, name)
    while not world.enough():
        caller.act()
        poll_own(world, caller)
    close_own(world)


def own(world):
    me = threading.get_ident()
    return [proactor for proactor, thread in list(world.every) if thread == me and proactor.workers == 0]


def poll_own(world, caller):
    """Those who wait for a polled proactor, and its sessions, get on."""
    for proactor in own(world):
        if not proactor.closing:
            caller.call("poll", proactor.poll, 0)


def close_own(world):
    """Polled proactors are closed by the thread that polled them."""
    for proactor in own(world):
        check_end(world, proactor)


def check_end(world, proactor):
    """It closes, and nothing is left."""
    for _ in range(3):
        try:
            proactor.close(0)
            break
        except (SystemExit, KeyboardInterrupt):
            continue  # a callback had raised it: told once
        except BaseException as error:
            world.broken.append(f"close(): {type(error).__name__}: {error}")
            return
    stats = proactor.stats()
    left = {name: getattr(stats, name) for name in ("active", "in_flight", "bytes_queued", "buffers_used", "undrained")}
    if any(left.values()) or not balanced(stats):
        world.broken.append(f"after close(): {stats}")


def run_seed(seed, backend, calls):
    """In this process; what it did, for the parent."""
    logging.getLogger("iocpcore").addHandler(logging.NullHandler())
    logging.getLogger("iocpcore").propagate = False
    sys.unraisablehook = lambda failure: None  # what finalizers and failing logs raise is no crash
    "a".encode("idna")  # imported now: a signal's handler that needs it while it is being imported would not find it
    faulthandler.enable()
    faulthandler.dump_traceback_later(PATIENCE * 0.9, exit=True)
    began = time.monotonic()
    world = World(seed, backend, calls)
    threads = [threading.Thread(target=call_until_enough, args=(world, number)) for number in range(THREADS)]
    if hasattr(signal, "setitimer"):
        interrupted = Caller(world, "a signal")
        signal.signal(signal.SIGALRM, lambda number, frame: interrupted.nested())
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    for thread in threads:
        thread.start()
    call_until_enough(world, "main")
    world.over = True
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    while any(thread.is_alive() for thread in threads):  # one may wait for a proactor that another polls
        threads[0].join(0.05)
        threads[1].join(0.05)
    for proactor, _ in world.every:
        if proactor.workers != 0:
            check_end(world, proactor)
    for sock in world.peers:
        sock.close()
    ends = [proactor.stats() for proactor, _ in world.every]
    gc.collect()
    faulthandler.cancel_dump_traceback_later()
    return {
        "seed": seed,
        "calls": world.calls,
        "seconds": time.monotonic() - began,
        "raised": world.raised,
        "sessions": sum(stats.accepted + stats.connected + stats.adopted for stats in ends),
        "callbacks": sum(stats.callbacks for stats in ends),
        "broken": world.broken,
    }


# ---- many ----


def run_child(seed, backend, calls):
    """A seed in its own process: what it did, or how it ended."""
    command = [sys.executable, __file__, "--one", str(seed), "--calls", str(calls), "--backend", backend]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = "a hang"
        output.seek(0)
        errors.seek(0)
        told = output.read().decode(errors="replace").strip().splitlines()
        said = errors.read().decode(errors="replace")
    result = (
        json.loads(told[-1])
        if status == 0 and told
        else {"seed": seed, "calls": 0, "sessions": 0, "callbacks": 0, "raised": {}, "broken": []}
    )
    if status != 0:
        result["broken"].append(f"ended with {status}:\n{said[-6000:]}")
    return result


def run_many(first, seeds, backend, calls, jobs, tell=print):
    """The sums; the seeds that broke a rule are told with what replays them."""
    began = time.monotonic()
    raised, failures = {}, []
    total = dict.fromkeys(("calls", "sessions", "callbacks"), 0)
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda seed: run_child(seed, backend, calls), range(first, first + seeds))
        for result in results:
            total = {name: count + result[name] for name, count in total.items()}
            for kind, count in result["raised"].items():
                raised[kind] = raised.get(kind, 0) + count
            if result["broken"]:
                failures.append(result["seed"])
                tell(f"seed {result['seed']} on {backend}: {len(result['broken'])} rules broken")
                for line in result["broken"][:5]:
                    tell(f"  {line}")
                again = f"--first {result['seed']} --seeds 1 --calls {calls} --backend {backend}"
                tell(f"again: python tests/soak/fuzz.py {again}")
    seconds = time.monotonic() - began
    return {
        **total,
        "seconds": round(seconds, 1),
        "calls_per_second": round(total["calls"] / seconds),
        "raised": raised,
        "failures": failures,
    }


def usable():
    return [name for name, missing in iocpcore.backends().items() if not missing]


def summary(total):
    often = sorted(total["raised"].items(), key=lambda pair: -pair[1])[:8]
    return (
        f"{total['calls']:,} calls in {total['seconds']:,} s, {total['calls_per_second']:,} a second, "
        f"{total['sessions']:,} sessions, {total['callbacks']:,} callbacks; refused most often: "
        f"{', '.join(f'{count:,} {kind}' for kind, count in often)}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="of all seeds of a backend together")
    parser.add_argument("--backend", choices=usable(), help="default: each that runs here")
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--seeds", type=int, help="how many; the calls are of each then")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--one", type=int, metavar="SEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run_seed(options.one, options.backend, options.calls)), flush=True)
        return 0
    calls = options.calls if options.seeds else CALLS
    seeds = options.seeds or -(-options.calls // CALLS)
    failed = False
    for backend in [options.backend] if options.backend else usable():
        total = run_many(options.first, seeds, backend, calls, options.jobs, lambda line: print(line, flush=True))
        failed |= bool(total["failures"])
        print(f"{backend}: {summary(total)}; {len(total['failures'])} of {seeds} seeds failed", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
