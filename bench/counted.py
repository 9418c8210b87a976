"""What the gate counts: fixed amounts of work, driven by poll() in one thread, so that no batch depends on chance.

    counted.py poll|send            several cases; prints a line for each: its name, and how many operations it counted
    counted.py native|python COUNT  so many echoes, one at a time

The first is run under callgrind, which collects only inside the functions that the gate names, and writes a part of its
output at each mark(); the second under wine, which prints the calls.
"""
from __future__ import annotations

import concurrent.futures
import gc
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import iocpcore

BACKEND = "epoll" if sys.platform == "linux" else "auto"
WAIT = 60.0  # seconds after which a step has failed
MESSAGE = b"fourteen bytes"
LARGE = bytes(20_000)  # more than is copied


def mark() -> None:
    """Callgrind writes what it has counted since the last mark: nothing else here calls this function."""
    os.getppid()


def count(name: str, operations: int, times: int, step: Callable[[], object]) -> None:
    """`operations` are done by each step; the first steps, which fill caches and pools, are not counted."""
    for _ in range(5):
        step()
    mark()
    for _ in range(times):
        step()
    mark()
    print(name, operations * times, flush=True)


class Echo:
    def on_receive(self, session, data):
        session.send(data)


class Twice:
    """A header, then a body."""

    def on_receive(self, session, data):
        session.send(b"14\n")
        session.send(data)


class Large:
    def on_receive(self, session, data):
        session.send(LARGE)


class Broadcast:
    """Whatever one session says goes to all."""

    def __init__(self):
        self.sessions = []

    def on_connect(self, session):
        self.sessions.append(session)

    def on_receive(self, session, data):
        for each in self.sessions:
            each.send(data)


def receive(peer: socket.socket, length: int) -> None:
    while length > 0:
        piece = peer.recv(length)
        assert piece, "the connection was lost"
        length -= len(piece)


@contextmanager
def served(handler: object, connections: int) -> Iterator[tuple[iocpcore.Proactor, list[socket.socket], int]]:
    """A polled proactor, its peers, accepted all, and the port."""
    with iocpcore.Proactor(0, BACKEND) as proactor, ExitStack() as stack:
        port = proactor.listen(handler, "127.0.0.1", backlog=256).port
        peers = []
        for _ in range(connections):
            peers.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT)))
            while proactor.stats().active < len(peers):
                proactor.poll(WAIT)
        yield proactor, peers, port
        for peer in peers:
            peer.close()
        while proactor.stats().active:
            proactor.poll(WAIT)


def turn(proactor: iocpcore.Proactor, talking: list[socket.socket], hearing: list[socket.socket], length: int) -> None:
    """Each of some says something, one poll serves them all, and what has come back is read."""
    for peer in talking:
        peer.sendall(MESSAGE)
    packets = proactor.poll(WAIT)
    assert packets == len(talking), f"{packets} packets in a batch of {len(talking)}"
    for peer in hearing:
        receive(peer, length)


def count_turns(name: str, handler: object, connections: int, times: int, length: int = len(MESSAGE)) -> None:
    with served(handler, connections) as (proactor, peers, _):
        count(name, connections, times, lambda: turn(proactor, peers, peers, length))


def count_broadcast(connections: int, times: int) -> None:
    with served(Broadcast(), connections) as (proactor, peers, _):
        count("broadcast, a session", connections, times, lambda: turn(proactor, peers[:1], peers, len(MESSAGE)))


def count_foreign_sends(connections: int, times: int) -> None:
    """Sends from another thread than the session's: through the inbox."""
    handler = Broadcast()

    def step():
        for session in handler.sessions:
            thread.submit(session.send, MESSAGE).result(WAIT)
        proactor.poll(WAIT)
        for peer in peers:
            receive(peer, len(MESSAGE))

    with served(handler, connections) as (proactor, peers, _), concurrent.futures.ThreadPoolExecutor(1) as thread:
        count("send from another thread", connections, times, step)


def count_connections(name: str, handler: object, times: int) -> None:
    def step():
        with socket.create_connection(("127.0.0.1", port), WAIT) as peer:
            peer.sendall(MESSAGE)
            while not readable(peer):
                proactor.poll(0)
            receive(peer, len(MESSAGE))
        while proactor.stats().active:
            proactor.poll(0)

    with served(handler, 0) as (proactor, _, port):
        count(name, 1, times, step)


def readable(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0])


def count_in_poll() -> None:
    count_turns("native echo, alone", iocpcore.ECHO, 1, 1000)
    count_turns("native echo, 50 a batch", iocpcore.ECHO, 50, 40)
    count_turns("Python echo, alone", Echo(), 1, 1000)
    count_turns("Python echo, 50 a batch", Echo(), 50, 40)
    count_turns("two writes", Twice(), 50, 40, len(MESSAGE) + 3)
    count_turns("large send", Large(), 10, 40, len(LARGE))
    count_broadcast(50, 40)
    count_connections("connect, native echo, close", iocpcore.ECHO, 100)
    count_connections("connect, Python echo, close", Echo(), 100)


def echo(handler: object, echoes: int) -> None:
    with served(handler, 1) as (proactor, peers, _):
        peers[0].settimeout(None)  # with one, a select() would come before each of its calls
        for _ in range(echoes):
            turn(proactor, peers, peers, len(MESSAGE))
    print(f"\nechoed {echoes}", flush=True)


def main() -> None:
    gc.disable()  # when it would run depends on all that was made since the interpreter's start
    what, *echoes = sys.argv[1:]
    if what == "poll":
        count_in_poll()
    elif what == "send":
        count_foreign_sends(20, 20)
    else:
        echo(iocpcore.ECHO if what == "native" else Echo(), *map(int, echoes))


if __name__ == "__main__":
    main()
