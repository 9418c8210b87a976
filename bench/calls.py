"""Counts the calls of the system that a server makes under wine: the cost of the Windows path, the same in each run.

Wall time and CPU time mean nothing there. Wine can write down each call (its relay); what N echoes more in one process
cost is a number of calls, and N times the calls of one echo. The client's own two are in it.
"""
import os
import subprocess
import sys

import programs
from process import Failed
from servers import Unavailable

HERE = programs.HERE / "wine"
BUILD = programs.BUILD / "wine"
PACKAGES = BUILD / "site-packages"
TOOLS = programs.ROOT / "tests" / "windows"
COMPILER = "x86_64-w64-mingw32-gcc-posix"
RELAYED = ["ws2_32.*", "GetQueuedCompletionStatus", "GetQueuedCompletionStatusEx", "PostQueuedCompletionStatus"]
RELAYED += ["NtCancelIoFileEx", "NtRemoveIoCompletion", "NtRemoveIoCompletionEx"]  # CancelIoEx itself is not told
SET_UP_WITHIN = 1800  # seconds: wine, a Python, and the wheel
RUNS_WITHIN = 90
# What runs: of which packages; the names of a result.
SERVERS = {
    "c-iocp": [],
    "iocpcore-windows": [],
    "python-windows": [],
    "asyncio-proactor": [],
    "winloop": ["winloop"],
    "twisted-iocp": ["Twisted", "twisted-iocpsupport", "pywin32"],
}


def run(*command, seconds=RUNS_WITHIN, **environment):
    """A completed process with its output, errors included; the system's own messages are in it."""
    words = [str(word) for word in command]
    pipe, also = subprocess.PIPE, subprocess.STDOUT
    environment = {**os.environ, **environment}
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=also, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{words[0]} did not end in {seconds} seconds") from None


def last_line(done):
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return lines[-1].strip("* ") if lines else "it said nothing"


def set_up():
    """Wine, its Python, and iocpcore as it is now; raises Unavailable."""
    done = run(TOOLS / "run", "--version", seconds=SET_UP_WITHIN, IOCPCORE_WINDOWS="required")
    if done.returncode != 0:
        raise Unavailable(last_line(done))
    key = ["add", r"HKCU\Software\Wine\Debug", "/v", "RelayInclude", "/d", ";".join(RELAYED), "/f"]
    done = python("-c", f"import subprocess; subprocess.run(['reg', *{key!r}], check=True)")
    if done.returncode != 0:
        raise Unavailable(f"wine's registry: {last_line(done)}")


def install(packages):
    wanted = python("-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.decode().strip()
    command = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", PACKAGES, *packages]
    done = run(*command, "--platform", "win_amd64", "--python-version", wanted, "--only-binary", ":all:")
    if done.returncode != 0:
        raise Unavailable(last_line(done))


def compile_floor():
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "echo_iocp.exe"
    flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-static", "-o", program]
    try:
        done = run(COMPILER, *flags, HERE / "echo_iocp.c", "-lws2_32")
    except FileNotFoundError:
        raise Unavailable(f"{COMPILER} is not installed") from None
    if done.returncode != 0:
        raise Failed(last_line(done))
    return program


def python(*arguments, **environment):
    """The script ends Python in time: who kills the script leaves Python behind."""
    environment["IOCPCORE_WINDOWS_TIMEOUT"] = str(RUNS_WITHIN)
    return run(TOOLS / "python", *arguments, seconds=2 * RUNS_WITHIN, **environment)


def windows_path(path):
    return "Z:" + str(path)


def calls_of(name, echoes):
    """How many calls a process makes that starts the server and has so many echoes."""
    program = [windows_path(BUILD / "echo_iocp.exe")] if name == "c-iocp" else []
    command = [windows_path(HERE / "echo.py"), name, str(echoes), windows_path(PACKAGES), *program]
    done = python(*command, WINEDEBUG="-all,+relay")
    # Threads write in between each other: a line may hold two.
    if done.returncode != 0 or f"echoed {echoes}".encode() not in done.stdout:
        said = [line for line in done.stdout.splitlines() if b":Call " not in line and b":Ret " not in line]
        raise Failed(f"{name} under wine: status {done.returncode}, {b' | '.join(said[-5:]).decode(errors='replace')}")
    return done.stdout.count(b":Call ")


def calls_per_echo(name, echoes):
    return (calls_of(name, 2 * echoes) - calls_of(name, echoes)) / echoes
