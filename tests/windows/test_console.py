"""Ctrl+C as it is typed: wine's console on a pseudo-terminal, with the Windows Python on it.

No other run than that of `tests/windows/run` without arguments collects this folder.
"""

import os
import pty
import re
import select
import socket
import subprocess
import termios
import time
from pathlib import Path

import pytest

from support import WAIT, receive_exactly

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START = 4 * WAIT  # wine may have to make its prefix first
CTRL_C = b"\x03"
LISTENING = r"listening on 127\.0\.0\.1:(\d+)"
# Much longer than any wait here: only a second Ctrl+C can end such a drain.
PATIENT_COMMAND = """
import sys
from iocpcore._cli import echo
from iocpcore.__main__ import main
echo.DRAIN = 3600.0
sys.exit(main(["echo", "--port", "0"]))
"""
PATIENT_SERVE = """
import iocpcore
def announce(listener):
    print("listening on %s:%d" % listener.address[:2], flush=True)
iocpcore.serve(iocpcore.ECHO, drain=3600.0, started=announce)
"""


def as_text(written):
    """What a terminal was sent. Wine's console moves the cursor where it would only write spaces."""
    text = re.sub(r"\x1b\[(\d*)C", lambda move: " " * int(move[1] or 1), written.decode(errors="replace"))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)


class Console:
    """The Windows Python with a terminal of its own, at which somebody types."""

    def __init__(self, *arguments):
        try:
            self.terminal, theirs = pty.openpty()
        except OSError as error:
            pytest.skip(f"this machine has no pseudo-terminals: {error}")
        termios.tcsetwinsize(theirs, (60, 120))
        self.process = subprocess.Popen(
            [HERE / "python", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "IOCPCORE_WINDOWS_CONSOLE": "yes"},
        )
        os.close(theirs)
        self.written = b""
        self.peers = []

    def read(self, deadline):
        """Some more; whether there will be more."""
        left = deadline - time.monotonic()
        assert left > 0 and select.select([self.terminal], [], [], left)[0], f"it hangs after {self.shown()!r}"
        try:
            piece = os.read(self.terminal, 65536)
        except OSError:  # Linux says EIO when the last writer has gone
            piece = b""
        self.written += piece
        return bool(piece)

    def wait_for(self, pattern, seconds=WAIT):
        """The match of what was written; a word is whole when the cursor moves on behind it."""
        deadline = time.monotonic() + seconds
        whole = re.compile(pattern.encode() + rb"(?=[\x1b\r])")
        while not (found := whole.search(self.written)):
            assert self.read(deadline), f"it ended: {self.shown()!r}"
        return found

    def connect(self):
        """A client whose connection is served: an echo has come back."""
        port = int(self.wait_for(LISTENING, START)[1])
        self.peers.append(socket.create_connection(("127.0.0.1", port), timeout=WAIT))
        self.peers[-1].sendall(b"12345")
        assert receive_exactly(self.peers[-1], 5) == b"12345"
        return self.peers[-1]

    def type(self, keys):
        os.write(self.terminal, keys)

    def end(self):
        """Its exit status, and all that was shown."""
        deadline = time.monotonic() + WAIT
        while self.read(deadline):
            pass
        return self.process.wait(WAIT), self.shown()

    def shown(self):
        return as_text(self.written)

    def close(self):
        for peer in self.peers:
            peer.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT)
        os.close(self.terminal)


@pytest.fixture
def start():
    """Start the Windows Python on a console; it is gone after the test."""
    consoles = []

    def start(*arguments):
        consoles.append(Console(*arguments))
        return consoles[-1]

    yield start
    for console in consoles:
        console.close()


def test_ctrl_c_ends_the_command_with_its_statistics(start):
    console = start("-m", "iocpcore", "echo", "--port", "0")
    console.connect().close()
    console.type(CTRL_C)
    status, shown = console.end()
    assert status == 0
    assert re.search(r"sessions accepted\W+1\W", shown) and re.search(r"sent\W+5 B", shown)
    *_, last_row, _ = shown.strip().splitlines()
    assert "wake-ups" in last_row
    assert "Traceback" not in shown


def test_a_second_ctrl_c_ends_the_commands_drain_at_once(start):
    console = start("-c", PATIENT_COMMAND)
    peer = console.connect()
    console.type(CTRL_C)
    console.wait_for("Ctrl\\+C again ends it at once")
    assert peer.recv(1) == b""  # it has begun to close, and would wait for the peer's end
    console.type(CTRL_C)
    _, shown = console.end()  # wine says 0 here; Windows says STATUS_CONTROL_C_EXIT
    assert "sessions accepted" not in shown and "Traceback" not in shown


def test_a_second_ctrl_c_ends_the_drain_of_serve_at_once(start):
    console = start("-c", PATIENT_SERVE)
    peer = console.connect()
    console.type(CTRL_C)
    assert peer.recv(1) == b""
    console.type(CTRL_C)
    _, shown = console.end()
    assert shown.strip().endswith("KeyboardInterrupt")


# Not embed.py: under wine its asyncio at times complains of the signal itself (a wake-up descriptor that would block).
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("echo_server.py", ["listening"]),
        ("http_server.py", ["listening"]),
        ("tick_loop.py", ["listening"]),
    ],
)
def test_ctrl_c_ends_an_example_that_then_says_nothing_more(start, name, said):
    console = start(f"examples/{name}", "--port", "0")
    console.wait_for(rf"{said[-1]} on 127\.0\.0\.1:\d+", START)
    console.type(CTRL_C)
    status, shown = console.end()
    assert status == 0
    assert re.sub(r"127\.0\.0\.1:\d+|\^C|\s", "", shown) == "".join(f"{what}on" for what in said)
