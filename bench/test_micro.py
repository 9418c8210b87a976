"""Microbenchmarks: single steps of the core, without a byte on a socket."""
import contextlib
import importlib.util
import socket

import pytest

import iocpcore
import programs

BATCH = 64
COUNT = BATCH * 300  # operations a round
ROUNDS = 5


@pytest.fixture(scope="session")
def micro():
    try:
        path = programs.extension(programs.HERE / "micro" / "_micro.pyx")
    except programs.Unavailable as reason:
        pytest.skip(str(reason))
    spec = importlib.util.spec_from_file_location("_micro", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measure(request):
    """measure(name, run): run() does COUNT operations and returns how many nanoseconds they took."""

    def measure(name, run):
        run()  # warm-up
        rounds = [{"ns": run() / COUNT} for _ in range(ROUNDS)]
        request.config.bench.add("micro", name, {"ns": "ns per operation"}, {"iocpcore": rounds})

    return measure


def nothing(argument):
    pass


def nothing_at_all():
    pass


@contextlib.contextmanager
def polled():
    """A proactor that runs when it is told to."""
    with iocpcore.Proactor(0, "epoll") as proactor:
        yield proactor


def test_attach(measure, micro):
    measure("attach and detach", lambda: micro.attach(COUNT))


def test_call(measure, micro):
    """The floor of a callback: a function in Python called from C."""
    measure("call of a Python function", lambda: micro.call(nothing, None, COUNT))


def test_inbox(measure, micro):
    measure(f"inbox, {BATCH} items a wake-up", lambda: micro.inbox(COUNT, BATCH))


def in_batches(run):
    return lambda: sum(run() for _ in range(COUNT // BATCH))


def test_posting(measure, micro):
    """From another thread than the worker's, or from outside of its turn: the worker is woken once."""
    with polled() as proactor:

        def run():
            spent = micro.call(proactor.post, nothing_at_all, BATCH)
            proactor.poll(0)
            return spent

        measure(f"post, {BATCH} a wake-up", in_batches(run))


def test_running_what_was_posted(measure, micro):
    """One attach for all of them, and a call of Python for each."""
    with polled() as proactor:

        def run():
            micro.call(proactor.post, nothing_at_all, BATCH)
            return micro.call(proactor.poll, 0, 1)

        measure(f"posted call, {BATCH} an attach", in_batches(run))


def test_sending(measure, micro):
    """In a callback, as far as the session's queue: the system is asked after it."""
    with polled() as proactor:
        measure("send of 14 bytes", lambda: Sending(micro, COUNT).run(proactor))


class Sending:
    """A handler that sends into a queue which nobody will read."""

    def __init__(self, micro, count):
        self.micro = micro
        self.count = count
        self.spent = None

    def on_connect(self, session):
        self.spent = self.micro.call(session.send, b"fourteen bytes", self.count)
        session.abort()

    def run(self, proactor):
        mine, peer = connected_pair()
        with peer:
            proactor.adopt(self, mine, send_limit=None)
            while self.spent is None:
                proactor.poll(1.0)
        return self.spent


def connected_pair():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        return listening.accept()[0], peer
