"""`iocpcore pitfalls`: four ways to get a completion port wrong, and how to get each right, over real sockets.

The servers are native (iocpcore/_pitfalls.pyx). Each pitfall runs in a process of its own, which prints its steps as
lines of JSON: `python -m iocpcore._cli.pitfalls NAME BACKEND`.
"""

import contextlib
import ctypes
import json
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import Proactor, _pitfalls
from .common import DONE, Failed, refusals
from .output import print_json, print_line, print_table, rich_console, written

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Told = dict[str, Any]  # a line of JSON from a pitfall's process, or a result that is printed as JSON

HELP = "four classic mistakes with a completion port, each made and avoided"
DESCRIPTION = """Run four small servers over real sockets, each in a wrong and in a right version, and print step by
step what happens. Exit status 0: each wrong version failed, and each right version held."""

PATIENCE = 60.0  # seconds for the process of one pitfall
WAIT = 10.0  # seconds for what a peer must receive
BUFFER = 65536  # bytes the system holds for a peer that does not read
WIDEST = 100  # columns of a line
NARROWEST = 60  # columns of the narrowest terminal that shows the two versions side by side

kernel32: Any = getattr(getattr(ctypes, "windll", None), "kernel32", None)  # on Windows


class Pitfall(NamedTuple):
    name: str
    mistake: str
    wrong: str
    right: str


PITFALLS = [
    Pitfall(
        "use-after-free",
        "a session is freed while one of its operations is still in flight",
        "the server frees a session as soon as its connection is closed.",
        "the server counts what is in flight, and frees a closed session when that is 0.",
    ),
    Pitfall(
        "send-buffer",
        "a buffer is written to while its WSASend is in flight",
        "the server writes the next message into the buffer of the last one.",
        "the server leaves a buffer alone until the packet of its WSASend has come.",
    ),
    Pitfall(
        "stale-overlapped",
        "an OVERLAPPED is used again without being zeroed",
        "the server starts an operation with the OVERLAPPED as the last one left it.",
        "the server zeroes the OVERLAPPED before every start.",
    ),
    Pitfall(
        "unchecked-dequeue",
        "the results of the dequeue and of the operation are not checked",
        "the server takes every return of the dequeue for a packet, and every packet for a success.",
        "the server checks the dequeue's result, and then the packet's status.",
    ),
]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    parser.add_argument("--only", choices=[pitfall.name for pitfall in PITFALLS], metavar="NAME", help="run this one")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="auto, or one that `iocpcore info` lists (default: the environment's IOCPCORE_BACKEND, else auto)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    chosen = [pitfall for pitfall in PITFALLS if options.only in (None, pitfall.name)]
    if options.list:
        show_list(chosen, options.json)
        return DONE
    backend = choose_backend(options.backend)
    results = []
    if not options.json:
        print_line(f"Pitfalls of a completion port, over real sockets on {backend}")
    for pitfall in chosen:
        results.append(play(pitfall, backend))
        if not options.json:
            show(pitfall, results[-1])
    if options.json:
        print_json({"backend": backend, "ok": all(result["ok"] for result in results), "pitfalls": results})
    surprising = [result["name"] for result in results if not result["ok"]]
    if surprising:
        raise Failed(f"wrong result: {', '.join(surprising)}")
    return DONE


def choose_backend(name: str | None) -> str:
    """The backend that a Proactor takes by that name, so that errors have the same text."""
    with refusals(None), Proactor(1, name) as proactor:
        return proactor.backend


# ---- one pitfall, in a process of its own ----


def play(pitfall: Pitfall, backend: str) -> Told:
    """The result of both versions, and whether the wrong one has failed and the right one held."""
    lines, error = tell_by_child(pitfall.name, backend)
    versions = {}
    for version in ("wrong", "right"):
        told = [line for line in lines if line["version"] == version]
        verdict = next((line for line in told if "seen" in line), {"expected": None, "seen": None})
        versions[version] = {
            "does": getattr(pitfall, version),
            "steps": [line["step"] for line in told if "step" in line],
            "expected": verdict["expected"],
            "seen": verdict["seen"],
            "held": verdict["expected"] == verdict["seen"] if verdict["seen"] else None,
            "error": None if verdict["seen"] else error or "it ended without a result",
        }
    ok = versions["wrong"]["held"] is False and versions["right"]["held"] is True
    return {"name": pitfall.name, "mistake": pitfall.mistake, "ok": ok and error is None, **versions}


def tell_by_child(name: str, backend: str) -> tuple[list[Told], str | None]:
    """The lines that the process printed, and why it ended too early, or None."""
    try:
        done = subprocess.run(
            child_command(name, backend), stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as late:
        return parse(late.stdout or b""), f"its process did not end in {PATIENCE:.0f} seconds"
    except OSError as error:
        raise Failed(f"cannot start a process: {error}") from error
    if done.returncode == 0:
        return parse(done.stdout), None
    words = done.stderr.decode(errors="backslashreplace").strip().splitlines()[-1:]
    return parse(done.stdout), ": ".join([f"its process ended with status {done.returncode}", *words])


def child_command(name: str, backend: str) -> list[str]:
    return [sys.executable, "-m", __name__, name, backend]


def parse(output: bytes) -> list[Told]:
    """Only whole lines: a process may die in the middle of one."""
    return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]


class Stage:
    """What a scenario needs from outside: peers, and a way to report its steps."""

    def __init__(self, backend: str, version: str) -> None:
        self.backend = backend
        self.version = version
        self.peers: list[socket.socket] = []
        # Only Windows has events; elsewhere a scenario runs without one.
        self.event = kernel32.CreateEventW(None, True, False, None) if sys.platform == "win32" else 0

    def tell(self, step: str) -> None:
        print_json({"version": self.version, "step": step})

    def wait_for_event(self) -> None:
        if kernel32.WaitForSingleObject(self.event, int(WAIT * 1000)) != 0:
            raise TimeoutError("the event did not come")

    def connect(self) -> tuple[socket.socket, int]:
        """A peer's socket, and the descriptor of the server's socket, which the caller now owns.

        The system's buffers are small, so that a peer that does not read makes sends pend. With SO_SNDBUF 0 Windows
        sends from the caller's buffer; otherwise it would copy, and a change of the buffer would go unnoticed.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            peer.settimeout(WAIT)
            peer.connect(listening.getsockname())
            server, _ = listening.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0 if sys.platform == "win32" else BUFFER)
        self.peers.append(peer)
        return peer, server.detach()

    def read(self, peer: socket.socket, length: int) -> bytes:
        """That many bytes, or fewer if the connection ends or breaks before."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while len(data) < length and (piece := peer.recv(length - len(data))):
                data += piece
        return data

    def read_some(self, peer: socket.socket) -> bytes:
        """The bytes that have arrived by now."""
        peer.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            return peer.recv(1 << 20)
        return b""

    def reset(self, peer: socket.socket) -> None:
        """Close it with a reset, so that the other side gets an error."""
        peer.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        )
        peer.close()

    def end(self) -> None:
        for peer in self.peers:
            peer.close()
        if self.event:
            kernel32.CloseHandle(self.event)


def tell_story(name: str, backend: str) -> None:
    """Run the right version first: the wrong one may leave the process in any state."""
    for version in ("right", "wrong"):
        stage = Stage(backend, version)
        expected, seen = _pitfalls.run(name, version == "wrong", stage)
        print_json({"version": version, "expected": expected, "seen": seen})
        stage.end()


# ---- output for people ----


def show_list(pitfalls: list[Pitfall], as_json: bool) -> None:
    if as_json:
        print_json({"pitfalls": [{"name": pitfall.name, "mistake": pitfall.mistake} for pitfall in pitfalls]})
    else:
        print_table("Pitfalls", [[[pitfall.name, pitfall.mistake] for pitfall in pitfalls]], justify="left")


def show(pitfall: Pitfall, result: Told) -> None:
    console = rich_console()
    if console is not None and console.width >= NARROWEST:
        show_rich(console, pitfall, result)
        return
    width = min(shutil.get_terminal_size().columns, WIDEST)
    print_line("")
    print_line(f"{PITFALLS.index(pitfall) + 1}. {pitfall.name}: {pitfall.mistake}")
    for version in ("wrong", "right"):
        print_line("")
        print_line("\n".join(plain_version(version, result[version], width)))


def plain_version(version: str, told: Told, width: int) -> Iterator[str]:
    yield from indented(f"{version.capitalize()}: ", "", told["does"], width, 3)
    for number, step in enumerate(told["steps"], 1):
        yield from indented(f"{number}. ", "   ", step, width, 5)
    if told["seen"]:
        yield from indented("expected: ", "", told["expected"], width, 5)
        yield from indented("seen:     ", "", told["seen"], width, 5)
    yield f"     -> {verdict(version, told)}"


def indented(label: str, hanging: str, text: str, width: int, indent: int) -> Iterator[str]:
    start = " " * indent + label
    yield from textwrap.wrap(
        text, width, initial_indent=start, subsequent_indent=" " * (indent + len(hanging) or len(start))
    )


def verdict(version: str, told: Told) -> str:
    if told["held"] is None:
        return f"no result: {told['error']}"
    if version == "wrong":
        return "it holds, and should have failed" if told["held"] else "it fails, as it must"
    return "it holds" if told["held"] else "it fails, and should have held"


def show_rich(console: "Console", pitfall: Pitfall, result: Told) -> None:
    """The wrong version beside the right one."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{PITFALLS.index(pitfall) + 1}. {pitfall.name}: {pitfall.mistake}",
        title_justify="left",
        title_style="bold",
        box=box.ROUNDED,
        padding=(0, 1),
        expand=True,
    )
    for version, colour in (("wrong", "red"), ("right", "green")):
        table.add_column(Text(f"{version.capitalize()}: {result[version]['does']}", style=colour), ratio=1)
    table.add_row(*[rich_steps(result[version]["steps"]) for version in ("wrong", "right")])
    table.add_section()
    table.add_row(*[Text("\n".join(rich_end(version, result[version]))) for version in ("wrong", "right")])
    with written():
        console.print()
        console.print(table)


def rich_steps(steps: list[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="cyan")
    grid.add_column()
    for number, step in enumerate(steps, 1):
        grid.add_row(f"{number}.", Text(step))
    return grid


def rich_end(version: str, told: Told) -> Iterator[str]:
    if told["seen"]:
        yield f"expected: {told['expected']}"
        yield f"seen: {told['seen']}"
    yield f"-> {verdict(version, told)}"


if __name__ == "__main__":
    tell_story(*sys.argv[1:])
