"""A polite client beside connections that flood: what one waits for a small echo while others send all they can.

The flooders are a process of their own: each writes whenever the system takes something, and reads whatever comes. The
polite client sends a message, waits until it has come back, rests for a moment, and so on. It is driven as the load
generator is: it prints `ready` before the timed part and `done` after it, and goes on at a line on standard input.

What is measured is the server, not how long the client waits for its CPU, which the flooders use. So these have the
lowest priority, and the time of an answer ends where the kernel's stamp (SO_TIMESTAMPNS) says that it reached the
client's socket: a kernel that does not preempt system calls lets the client run only after the flooder's call, which
moves up to 256 KiB.
"""
import argparse
import contextlib
import json
import os
import select
import signal
import socket
import statistics
import struct
import sys
import time

PIECE = bytes(64 * 1024)
ROOM = 256 * 1024
REST = 0.001  # seconds between an answer and the next message
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python names it since 3.14
STAMP = struct.Struct("@qq")  # a timespec of a 64-bit system: seconds, nanoseconds


def connect(options):
    sock = socket.create_connection(("127.0.0.1", options.port), timeout=options.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def flood(socks, begun):
    """Until it is killed."""
    poll = select.epoll()
    by_number = {}
    room = bytearray(ROOM)
    for sock in socks:
        sock.setblocking(False)
        by_number[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN | select.EPOLLOUT)
    os.write(begun, b"!")
    while True:
        for number, events in poll.poll():
            try:
                if events & select.EPOLLIN and not by_number[number].recv_into(room):
                    raise ConnectionError("the server has ended a connection that floods")
                if events & select.EPOLLOUT:
                    by_number[number].send(PIECE)
            except BlockingIOError:
                pass


@contextlib.contextmanager
def flooding(options):
    """Meanwhile a process floods."""
    socks = [connect(options) for _ in range(options.connections)]
    for sock in socks:
        exchange(sock, options)
    waiting, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.nice(19)
            flood(socks, begun)
        finally:
            os._exit(1)
    for sock in socks:
        sock.close()
    try:
        os.close(begun)
        os.read(waiting, 1)
        yield
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise ConnectionError("the flooders have ended")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def exchange(sock, options):
    """Send a message and have it back: when it was sent, and what the kernel told with the answer."""
    message = os.urandom(options.size)
    begun = time.time_ns()
    sock.sendall(message)
    answer, ancillary, _, _ = sock.recvmsg(options.size, socket.CMSG_SPACE(STAMP.size), socket.MSG_WAITALL)
    if answer != message:
        raise ConnectionError(f"{len(answer)} bytes came back, or others, for {options.size}")
    return begun, ancillary


def await_stamps(sock, options):
    """The kernel begins to stamp packets a moment after a socket has asked for it."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    until = time.monotonic() + options.timeout
    while not exchange(sock, options)[1]:
        if time.monotonic() > until:
            raise TimeoutError("the kernel does not stamp what it receives")


def ask(sock, options):
    """Microseconds from sending a message until its answer was in the socket."""
    begun, ((_, _, stamp),) = exchange(sock, options)
    time.sleep(REST)
    seconds, nanoseconds = STAMP.unpack(stamp)
    return (seconds * 1_000_000_000 + nanoseconds - begun) / 1000


def gate(state):
    print(state, flush=True)
    sys.stdin.readline()


def run(options):
    """The flood is part of what is timed: other servers' rounds may be waiting meanwhile, and theirs must not flood."""
    polite = connect(options)
    await_stamps(polite, options)
    gate("ready")
    with flooding(options):
        begun = time.perf_counter()
        latencies = [ask(polite, options) for _ in range(options.requests)]
        seconds = time.perf_counter() - begun
    gate("done")
    within = statistics.quantiles(latencies, n=1000, method="inclusive")
    figures = {"p50_us": within[499], "p99_us": within[989], "p999_us": within[998]}
    print(json.dumps({"requests": options.requests, "requests_per_s": options.requests / seconds, **figures}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=100, help="that flood (100)")
    parser.add_argument("--requests", type=int, default=500, help="of the polite client (500)")
    parser.add_argument("--size", type=int, default=14, help="bytes of its messages (14)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for each step (60)")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
