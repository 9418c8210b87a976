"""`iocpcore echo`: a native echo server that runs until a signal ends it."""

import math
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

from .. import ECHO, Proactor, Stats, WorkerStats
from .._serve import SIGNALS, StopSignals
from .._stats import Counters
from .common import DONE, add_native, add_port, address_text, refusals, seconds
from .output import (
    Row,
    ShowTable,
    amount,
    columns_that_fit,
    count,
    live_table,
    print_json,
    print_line,
    print_table,
    ratio,
    screen_width,
)

HELP = "serve: send back every byte that comes"
DESCRIPTION = """Send back every byte that comes. The first line on standard output is `listening on HOST:PORT`.
Ctrl+C (or SIGTERM, on Windows Ctrl+Break) stops accepting, gives sessions a second to finish, and prints the
statistics; a second one ends the process at once."""

# The columns of a row and their widths, the most important first: a narrow terminal leaves out the last ones.
COLUMNS = {
    "seconds": 8,
    "active": 8,
    "received/s": 12,
    "sent/s": 12,
    "accepted": 9,
    "closed": 9,
    "packets/s": 10,
    "per dequeue": 11,
    "in flight": 9,
    "queued": 10,
}
ROWS_A_HEADER = 20
DRAIN = 1.0  # seconds for sessions to finish
WORKERS_SHOWN = 8  # columns of workers at most; a narrow terminal shows the first of them

Text = Callable[[int], str]  # formats a number


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help='address or name; "" is every address, IPv4 and IPv6 (default: %(default)s)'
    )
    add_port(parser, 0, "0 lets the system choose")
    add_native(parser)
    parser.add_argument("--stats", type=seconds, metavar="SECONDS", help="show statistics at this interval")
    parser.add_argument("--json", action="store_true", help="print statistics as JSON, one object a line")


def run(options: Namespace) -> int:
    with StopSignals() as signals:
        with refusals(options.host):
            proactor = Proactor(options.workers, options.backend)
        try:
            with refusals(options.host):
                listener = proactor.listen(ECHO, options.host, options.port)
            started = time.monotonic()
            print_line(f"listening on {address_text(listener.address)}")
            with live_table(options.stats is not None and not options.json) as show:
                report = make_report(options, started, proactor.stats(), show)
                until_signal(signals, started, options.stats, lambda: report.row(proactor.stats()))
            let_the_next_signal_end_the_process()
        finally:
            proactor.close(DRAIN)
        report.end(proactor.stats())
    return DONE


def until_signal(signals: StopSignals, started: float, period: float | None, tell: Callable[[], None]) -> None:
    """Wait for a signal; tell() every `period` seconds, without drift."""
    due = started
    while True:
        due = max(due + period, time.monotonic()) if period else math.inf
        if signals.wait(due - time.monotonic()):
            return
        tell()


def let_the_next_signal_end_the_process() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if sys.stderr.isatty():
        print("finishing what is open; Ctrl+C again ends it at once", file=sys.stderr)


def make_report(
    options: Namespace, started: float, stats: Stats, show: ShowTable | None
) -> "JsonReport | TextReport":
    if options.json:
        return JsonReport(started)
    return LiveReport(started, stats, show) if show else TextReport(started, stats)


class JsonReport:
    """Prints each row, and the last one: {"seconds": since the start, and the fields of Proactor.stats()}."""

    def __init__(self, started: float) -> None:
        self.started = started

    def row(self, stats: Stats) -> None:
        print_json({"seconds": round(time.monotonic() - self.started, 3), **stats.as_dict()})

    end = row


class TextReport:
    """A line for each row, a table at the end."""

    def __init__(self, started: float, stats: Stats) -> None:
        self.started = self.before = started
        self.last = stats
        self.rows = 0

    def row(self, stats: Stats) -> None:
        """Print what has happened since the last row."""
        now = time.monotonic()
        self.show(stats, now - self.started, max(now - self.before, 0.001))  # Windows' clock may not have moved
        self.rows += 1
        self.before = now
        self.last = stats

    def since(self, stats: Stats, name: str) -> int:
        return number(stats, name) - number(self.last, name)

    def show(self, stats: Stats, seconds: float, passed: float) -> None:
        if self.rows % ROWS_A_HEADER == 0:
            print_line(line_of(list(COLUMNS)))
        print_line(
            line_of(
                [
                    f"{seconds:,.1f}",
                    count(stats.active),
                    amount(self.since(stats, "bytes_received") / passed),
                    amount(self.since(stats, "bytes_sent") / passed),
                    count(stats.accepted),
                    count(stats.closed),
                    count(round(self.since(stats, "packets") / passed)),
                    ratio(self.since(stats, "packets"), self.since(stats, "dequeues")),
                    count(stats.in_flight),
                    amount(stats.bytes_queued),
                ]
            )
        )

    def end(self, stats: Stats) -> None:
        workers = shown_workers(stats)
        header = ["", "all", *worker_names(workers)] if workers else None
        sections = [
            [[label, *(cell(row) for row in [stats, *workers])] for label, cell in section] for section in SUMMARY
        ]
        print_table(title_of(stats, time.monotonic() - self.started), sections, header)


def line_of(cells: Row) -> str:
    """The cells in one line, as many as the terminal has room for."""
    widths = list(COLUMNS.values())
    fit = columns_that_fit(widths, 1, screen_width())
    return " ".join(cell.rjust(width) for cell, width in zip(cells[:fit], widths, strict=False))


class LiveReport(TextReport):
    """A table that each row replaces."""

    def __init__(self, started: float, stats: Stats, show_table: ShowTable) -> None:
        super().__init__(started, stats)
        self.show_table = show_table

    def show(self, stats: Stats, seconds: float, passed: float) -> None:
        workers = shown_workers(stats)
        sections = [[self.cells(stats, workers, passed, *line) for line in section] for section in LIVE]
        self.show_table(title_of(stats, seconds), sections, ["", "all", "per second", *worker_names(workers)])

    def cells(
        self,
        stats: Stats,
        workers: Sequence[WorkerStats],
        passed: float,
        label: str,
        name: str,
        text: Text,
        rises: bool,
    ) -> Row:
        rate = text(round(self.since(stats, name) / passed)) if rises else ""
        return [label, text(number(stats, name)), rate, *(text(number(row, name)) for row in workers)]


def title_of(stats: Stats, seconds: float) -> str:
    return f"{stats.backend}, {seconds:,.1f} seconds"


def shown_workers(stats: Stats) -> Sequence[WorkerStats]:
    """The workers that have a column of their own."""
    return stats.workers if 1 < len(stats.workers) <= WORKERS_SHOWN else ()


def worker_names(workers: Sequence[WorkerStats]) -> list[str]:
    return [f"worker {number}" for number in range(len(workers))]


def number(row: Counters, name: str) -> int:
    value: int = getattr(row, name)
    return value


def counter(name: str, text: Text = count) -> Callable[[Counters], str]:
    return lambda row: text(number(row, name))


# (label, attribute, its format, whether it is a counter)
LIVE: list[list[tuple[str, str, Text, bool]]] = [
    [
        ("sessions", "active", count, False),
        ("  accepted", "accepted", count, True),
        ("  closed", "closed", count, True),
        ("  refused", "refused", count, True),
    ],
    [
        ("received", "bytes_received", amount, True),
        ("sent", "bytes_sent", amount, True),
        ("queued", "bytes_queued", amount, False),
    ],
    [
        ("packets", "packets", count, True),
        ("inline successes", "inline_successes", count, True),
        ("in flight", "in_flight", count, False),
    ],
    [
        ("dequeues", "dequeues", count, True),
        ("packets per dequeue", "packets_per_dequeue", "{:,.2f}".format, False),
    ],
]
SUMMARY: list[list[tuple[str, Callable[[Counters], str]]]] = [
    [
        ("sessions accepted", counter("accepted")),
        ("  closed by the peer", counter("closed_by_peer")),
        ("  closed by us", counter("closed_by_us")),
        ("  closed by an error", counter("closed_by_error")),
        ("  closed by a timeout", counter("closed_by_timeout")),
        ("  refused", counter("refused")),
        ("accepts that failed", counter("accept_failures")),
    ],
    [
        ("received", counter("bytes_received", amount)),
        ("sent", counter("bytes_sent", amount)),
        ("unsent", counter("bytes_unsent", amount)),
    ],
    [
        ("operations submitted", counter("submitted")),
        ("  ended as packets", counter("packets")),
        ("  inline successes", counter("inline_successes")),
        ("  failed starts", counter("failed_starts")),
        ("packets: cancelled", counter("cancelled")),
        ("packets: failed", counter("failed")),
    ],
    [
        ("dequeues", counter("dequeues")),
        ("packets per dequeue", lambda row: ratio(row.packets, row.dequeues)),
        ("wake-ups", counter("wakeups")),
    ],
]
