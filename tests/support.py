"""Shared by the tests: plain sockets as peers, bounded waits, and checks that nothing is left."""

import contextlib
import ctypes
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

WAIT = 30.0  # seconds after which a test fails because something hangs
WORK = 100.0  # ... for a program that has much to do, on a busy machine; below pytest's own timeout

# A tenth of the load where everything is slow: under wine, and under sanitizers and valgrind, whose runners set it.
SCALE = float(os.environ.get("IOCPCORE_SCALE", "0.1" if sys.platform == "win32" else "1"))


def balanced(stats):
    """Has every submitted operation ended once, or is it in flight? In each worker's row and in the sums."""
    return all(
        row.submitted == row.packets + row.inline_successes + row.failed_starts + row.in_flight
        for row in [stats, *stats.workers]
    )


def assert_nothing_left(proactor):
    """After close(): no session, operation, buffer or queued byte is left."""
    stats = proactor.stats()
    assert balanced(stats)
    left = {name: getattr(stats, name) for name in ("active", "in_flight", "buffers_used", "bytes_queued", "undrained")}
    assert left == dict.fromkeys(left, 0)


def receive_exactly(sock, length):
    data = bytearray()
    while len(data) < length:
        piece = sock.recv(min(65536, length - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)


def receive_to_end(sock):
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


def reset(sock):
    """Close with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0))
    sock.close()


def until(condition):
    """Wait until the condition holds, for at most WAIT seconds. For conditions that only statistics show."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.001)


@contextlib.contextmanager
def refusing_port():
    """A port that refuses connections: a socket is bound to it, but does not listen.

    An unused port will not do: the system may give it to the very socket that connects to it, which TCP then connects
    to itself.
    """
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Recorder:
    """A handler that notes every callback in `calls`: (name, session, value)."""

    def __init__(self):
        self.calls = []

    def on_connect(self, session):
        self.calls.append(("on_connect", session, None))

    def on_receive(self, session, data):
        self.calls.append(("on_receive", session, data))

    def on_drain(self, session):
        self.calls.append(("on_drain", session, None))

    def on_end(self, session):
        self.calls.append(("on_end", session, None))

    def on_close(self, session, error):
        self.calls.append(("on_close", session, error))

    def of(self, name):
        """(session, value) of each callback of that name."""
        return [(session, value) for called, session, value in list(self.calls) if called == name]

    def names(self):
        return [name for name, _, _ in list(self.calls)]

    def received(self):
        return b"".join(data for _, data in self.of("on_receive"))

    def wait_for(self, name, count=1):
        """Wait for the count-th callback of that name: (session, value)."""
        until(lambda: len(self.of(name)) >= count)
        return self.of(name)[count - 1]


class Acting(Recorder):
    """A Recorder that then calls the function given for the callback: Acting(on_connect=lambda session: ...)."""

    def __init__(self, **actions):
        super().__init__()
        self.actions = actions

    def act(self, name, *arguments):
        getattr(super(), name)(*arguments)
        if name in self.actions:
            self.actions[name](*arguments)

    def on_connect(self, session):
        self.act("on_connect", session)

    def on_receive(self, session, data):
        self.act("on_receive", session, data)

    def on_drain(self, session):
        self.act("on_drain", session)

    def on_end(self, session):
        self.act("on_end", session)

    def on_close(self, session, error):
        self.act("on_close", session, error)


def send_until_nothing_moves(peer, data):
    """Send until the path to the other side is full; returns how many bytes went out."""
    peer.setblocking(False)
    sent = 0
    while sent < len(data) and select.select([], [peer], [], 1.0)[1]:
        sent += peer.send(data[sent : sent + 65536])
    peer.settimeout(WAIT)
    return sent


def open_handles():
    """Descriptors, or handles on Windows, that this process has open."""
    if sys.platform != "win32":
        return len(os.listdir("/proc/self/fd"))
    # GetProcessHandleCount says 0 under wine; the list of all handles in the system is exact.
    size = 1 << 16
    while True:
        table = ctypes.create_string_buffer(size)
        if ctypes.windll.ntdll.NtQuerySystemInformation(16, table, size, None) == 0:
            break
        size *= 2
    count = int.from_bytes(table[:4], "little")
    entry = 24  # bytes of SYSTEM_HANDLE_TABLE_ENTRY_INFO; the table begins at 8, each entry with the process's id
    mine = os.getpid() & 0xFFFF
    return sum(int.from_bytes(table[8 + i * entry : 10 + i * entry], "little") == mine for i in range(count))


def is_wine():
    """Call this only where sys.platform says Windows."""
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


def spawn(start, command, **options):
    """Call start, which is subprocess.run or Popen, with these arguments.

    Once in a few hundred times wine 8 fails to start a process, with error 1359 (internal error). Nothing has run then,
    so it is tried again.
    """
    for _ in range(3):
        try:
            return start(command, **options)
        except OSError as error:
            if getattr(error, "winerror", None) != 1359:
                raise
            failure = error
    raise failure


def run_python(code, *, timeout=WAIT, **environment):
    """Run a program in a process of its own, which must succeed; returns what it printed."""
    done = spawn(
        subprocess.run,
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# For a user, a pipe is buffered. A test must not see output earlier than a user would.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

# Windows cannot send a signal to one process alone, so there the process raises the signals whose names it reads. It
# reads with os.read(): the interpreter cannot end while a thread holds the lock of a buffered stream.
OBEY = """
import os, signal, sys, threading

def obey():
    while name := os.read(0, 64).decode().strip():
        signal.raise_signal(getattr(signal, name))

threading.Thread(target=obey, daemon=True).start()
"""


class Child:
    """A process whose output can be awaited line by line, with a timeout."""

    def __init__(self, command, pass_fds=(), **environment):
        pipe = subprocess.PIPE
        self.process = spawn(
            subprocess.Popen,
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            encoding="utf-8",
            pass_fds=pass_fds,
            env={**ENVIRONMENT, **environment},
        )
        self.lines = queue.Queue()
        self.errors = queue.Queue()
        self.readers = [
            threading.Thread(target=self.read, args=pair)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.put(line.rstrip("\n"))

    def line(self):
        return self.lines.get(timeout=WAIT)

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def signal(self, name):
        if sys.platform == "win32":
            self.tell(name)
        else:
            self.process.send_signal(getattr(signal, name))

    def end(self):
        """Wait for its end: its exit status, and the lines of its standard output and error that were not taken yet."""
        status = self.process.wait(WAIT)
        for reader in self.readers:
            reader.join(WAIT)
        return status, list(self.lines.queue), list(self.errors.queue)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):  # it has ended, and cannot get input that is still buffered
                stream.close()
