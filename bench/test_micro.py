"""Microbenchmarks: single steps of the core, without a byte on a socket.

A step is a function that does COUNT operations and says how many nanoseconds they took. The loops are in C, in
micro/_micro.pyx, and are compiled with the core's own sources.
"""
import dataclasses
import functools
import importlib.util
import socket
from collections.abc import Callable

import pytest

import iocpcore
import programs
from rounds import Measure
from servers import Server

BATCH = 64
COUNT = BATCH * 300  # operations a round


@functools.cache
def micro():
    path = programs.extension(programs.HERE / "micro" / "_micro.pyx")
    spec = importlib.util.spec_from_file_location("_micro", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclasses.dataclass(frozen=True)
class Step(Measure):
    run: Callable[[], int] | None = None
    figure = "ns"

    def units(self):
        return {"ns": "ns per operation"}

    def warm_up(self, server, options):
        self.run()

    def round(self, server, options):
        yield 0
        return {"ns": self.run() / COUNT}


def nothing(argument):
    pass


def nothing_at_all():
    pass


def attach():
    return micro().attach(COUNT)


def call():
    """The floor of a callback: a function in Python called from C."""
    return micro().call(nothing, None, COUNT)


def inbox():
    return micro().inbox(COUNT, BATCH)


def in_batches(step):
    """That step again and again, with a proactor that runs when it is told to."""

    def run():
        with iocpcore.Proactor(0, "epoll") as proactor:
            return sum(step(proactor) for _ in range(COUNT // BATCH))

    return run


def post(proactor):
    """From another thread than the worker's, or from outside of its turn: the worker is woken once."""
    spent = micro().call(proactor.post, nothing_at_all, BATCH)
    proactor.poll(0)
    return spent


def posted_calls(proactor):
    """One attach for all of them, and a call of Python for each."""
    micro().call(proactor.post, nothing_at_all, BATCH)
    return micro().call(proactor.poll, 0, 1)


class Sending:
    """A handler that sends into a queue which nobody will read."""

    spent = None

    def on_connect(self, session):
        self.spent = micro().call(session.send, b"fourteen bytes", COUNT)
        session.abort()


def send():
    """In a callback, as far as the session's queue: the system is asked after it."""
    sending = Sending()
    with socket.create_server(("127.0.0.1", 0)) as peer, iocpcore.Proactor(0, "epoll") as proactor:
        proactor.connect(sending, *peer.getsockname(), send_limit=None)
        while sending.spent is None:
            proactor.poll(1.0)
    return sending.spent


STEPS = {
    "attach and detach": attach,
    "call of a Python function": call,
    f"inbox, {BATCH} items a wake-up": inbox,
    f"post, {BATCH} a wake-up": in_batches(post),
    f"posted call, {BATCH} an attach": in_batches(posted_calls),
    "send of 14 bytes": send,
}


@pytest.mark.parametrize("name", STEPS)
def test_step(compare, name):
    compare(Step("micro", name, run=STEPS[name]), [Server("iocpcore", (), frozenset({"echo"}), None, check=micro)])
