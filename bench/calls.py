"""Counts the calls that a program makes to Windows, under wine: the same in each run, where a time would mean nothing.

Wine can print each call (its relay). The program is a server and its client in one process, and is told how many
echoes to make: N, then 2N. The difference divided by N is what an echo costs; starting and ending fall out. The two
calls of the client are in it.
"""
import os
import subprocess

import programs
from process import Failed
from programs import Unavailable

WINDOWS = programs.ROOT / "tests" / "windows"
INSTALLED = programs.ROOT / "build" / "windows" / "site-packages" / "iocpcore"
ECHOES = 200  # the difference between two runs
RUNS_WITHIN = 180  # seconds
PORT_CALLS = ("GetQueuedCompletionStatus", "GetQueuedCompletionStatusEx", "PostQueuedCompletionStatus")
RELAYED = ["ws2_32.*", *(f"kernel32.{name}" for name in PORT_CALLS), "ntdll.NtRemoveIoCompletion"]
RELAYED += ["ntdll.NtRemoveIoCompletionEx", "ntdll.NtCancelIoFileEx"]  # of CancelIoEx in kernel32 wine tells nothing


def python(*arguments, debug="-all"):
    """What Python and wine have printed, in one order. The script ends it in time."""
    done = subprocess.run(
        [WINDOWS / "python", *map(str, arguments)],
        cwd=programs.ROOT,
        env={**os.environ, "WINEDEBUG": debug, "IOCPCORE_WINDOWS_TIMEOUT": str(RUNS_WITHIN)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        said = [line for line in done.stdout.splitlines() if ":Call " not in line and ":Ret " not in line]
        raise Failed(f"{arguments[0]} under wine: status {done.returncode}, {' | '.join(said[-5:])}")
    return done.stdout


def set_up():
    """Choose what wine prints. Raises Unavailable where the Windows build is not installed."""
    if not INSTALLED.exists():
        raise Unavailable("the Windows build is not installed: tests/windows/install")
    python(programs.HERE / "wine" / "relay.py", ";".join(RELAYED))


def calls_of(*command):
    """How many calls the program makes; its last argument is the number of echoes."""
    said = python(*command, debug="-all,+relay")
    # Not as a line: threads write in between each other.
    if f"echoed {command[-1]}" not in said:
        raise Failed(f"{command[0]} under wine: {command[-1]} echoes have failed: {said[-1000:]}")
    return said.count(":Call ")


def calls_per_echo(*command):
    return (calls_of(*command, 2 * ECHOES) - calls_of(*command, ECHOES)) / ECHOES
