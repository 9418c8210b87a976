"""How late a time limit strikes: connections that idle until their idle_timeout, on each backend that can run here.

    python bench/timers.py             measures, and prints the table
    python bench/timers.py --save      writes bench/report/timers.json too: docs/api.md shows it

The time runs from before the connect, so that what is shown as late includes it, and none can seem to be early.
"""
from __future__ import annotations

import argparse
import math
import socket
import statistics
import threading
import time

import iocpcore
from report import quoted, results, tables

LIMITS = (0.05, 0.5, 2.0)  # seconds
SESSIONS = 150  # for each limit
PATIENCE = 30  # seconds


class Late:
    """A handler that notes when each of so many sessions has ended, by its peer's port."""

    def __init__(self, sessions: int) -> None:
        self.ended: dict[int, float] = {}
        self.sessions = sessions
        self.over = threading.Event()

    def on_close(self, session: iocpcore.Session, error: OSError | None) -> None:
        self.ended[session.peername[1]] = time.perf_counter()
        if len(self.ended) == self.sessions:
            self.over.set()


def lateness(backend: str, limit: float, sessions: int) -> list[float]:
    """Seconds after the limit, of each session."""
    handler = Late(sessions)
    begun = {}
    peers = []
    with iocpcore.Proactor(1, backend) as proactor:
        listener = proactor.listen(handler, idle_timeout=limit)
        for _ in range(sessions):
            at = time.perf_counter()
            peers.append(socket.create_connection(listener.address[:2]))
            begun[peers[-1].getsockname()[1]] = at
        if not handler.over.wait(limit + PATIENCE):
            raise SystemExit(f"timers: {sessions - len(handler.ended)} sessions on {backend} have not ended")
    for peer in peers:
        peer.close()
    return [handler.ended[port] - at - limit for port, at in begun.items()]


def in_words(late: list[float]) -> dict[str, float]:
    """Milliseconds: a median, and the worst, rounded up."""
    return {"median": round(1000 * statistics.median(late), 2), "latest": math.ceil(10_000 * max(late)) / 10}


def measured(limits: tuple[float, ...] = LIMITS, sessions: int = SESSIONS) -> dict[str, dict[str, float]]:
    columns: dict[str, dict[str, float]] = {}
    for backend, missing in iocpcore.backends().items():
        if missing is None:
            lateness(backend, min(limits), sessions)  # a first accept and a first end take longer
            columns[backend] = {
                f"{limit:g} s, {name}": milliseconds
                for limit in limits
                for name, milliseconds in in_words(lateness(backend, limit, sessions)).items()
            }
    return columns


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How late a time limit strikes, in milliseconds.")
    parser.add_argument("--save", action="store_true", help="write timers.json, which docs/api.md shows")
    options = parser.parse_args(arguments)
    columns = measured()
    print(tables.by_column(columns, {}))
    if options.save:
        results.write(columns, quoted.TIMERS)


if __name__ == "__main__":
    main()
