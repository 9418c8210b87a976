"""`iocpcore demo`: an echo server and its client, both in this process, over real sockets."""

import contextlib
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from .. import ECHO, Load, Proactor, Stats
from .client import latency_rows, result_rows
from .common import DONE, Failed, add_native, refusals, whole
from .load import complaint, run_load
from .output import Row, count, print_json, print_line, print_table, progress, ratio

if TYPE_CHECKING:
    from .._core import _Result

HELP = "a server and a client in one go, with every byte checked"
DESCRIPTION = """Run a server and a client in this process, over real sockets of this machine, and check every byte.
Exit status 1: something was lost."""

HOST = "127.0.0.1"
CONNECTIONS = 50
SIZE = 64
TIMEOUT = 60.0  # seconds without an echo


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--echoes",
        type=whole(1, 1 << 40),
        default=1_000_000,
        metavar="N",
        help="number of echoes, rounded up to the same number for each connection (default: %(default)s)",
    )
    add_native(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead, always with the same keys")


def run(options: Namespace) -> int:
    connections = min(CONNECTIONS, options.echoes)
    messages = -(-options.echoes // connections)
    load = Load(connections, messages, SIZE)
    with contextlib.ExitStack() as stack:
        with refusals(HOST):
            client = stack.enter_context(Proactor(options.workers, options.backend))
            others = worker_threads()
            server = stack.enter_context(Proactor(options.workers, options.backend))
            threads = worker_threads() - others
            listener = server.listen(ECHO, HOST)
            load.start(client, HOST, listener.port)
        if options.json:
            finished = run_load(load, TIMEOUT)
        else:
            print_line(f"{connections} connections to port {listener.port} on {server.backend}, {SIZE} bytes a message")
            with progress("echoes", connections * messages) as advance:
                finished = run_load(load, TIMEOUT, advance)
        nanoseconds = processor_time(threads)
    result = load.result()
    wrong = complaint(result, connections * messages, finished, TIMEOUT)
    if options.json:
        print_json({**result, "error": wrong, "server": server_facts(server.stats(), nanoseconds, result)})
    else:
        sections = [result_rows(result), latency_rows(result), server_rows(server.stats(), nanoseconds, result)]
        print_table("Echo demo", sections)
    if wrong:
        raise Failed(wrong)
    return DONE


def worker_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("iocpcore-worker-")}


def processor_time(threads: set[threading.Thread]) -> int | None:
    """The CPU time of these running threads, in nanoseconds; None on Windows, where Python cannot tell."""
    if sys.platform == "win32":
        return None
    running = [thread.ident for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime_ns(time.pthread_getcpuclockid(ident)) for ident in running)


def server_facts(stats: Stats, nanoseconds: int | None, result: "_Result") -> dict[str, Any]:
    """The server's part of the JSON; a value is None if it is not known."""
    echoes = result["echoes"]
    return {
        "backend": stats.backend,
        "submitted": stats.submitted,
        "inline_successes": stats.inline_successes,
        "packets_per_dequeue": stats.packets_per_dequeue,
        "cpu_us_per_echo": None if nanoseconds is None or not echoes else nanoseconds / 1000 / echoes,
    }


def server_rows(stats: Stats, nanoseconds: int | None, result: "_Result") -> list[Row]:
    rows = [
        ["server: backend", stats.backend],
        ["server: operations", count(stats.submitted)],
        ["server: inline successes", count(stats.inline_successes)],
        ["server: packets per dequeue", ratio(stats.packets, stats.dequeues)],
    ]
    if nanoseconds is not None:
        rows.append(["server: CPU time an echo", f"{ratio(nanoseconds / 1000, result['echoes'])} us"])
    return rows
