"""What people read: tables, progress and numbers; and JSON, one object a line, for programs.

rich makes it pretty where it is installed and standard output is a terminal. Nothing needs it.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = list[str]  # its label and its cells
Sections = Sequence[Sequence[Row]]
Justify = Literal["left", "right"]
ShowTable = Callable[[str, Sections, Row], None]


def print_line(text: str) -> None:
    """Flushed: whoever reads a pipe sees it at once."""
    print(text, flush=True)


def print_json(values: dict[str, Any]) -> None:
    print_line(json.dumps(values))


# ---- numbers ----


def count(number: int) -> str:
    return f"{number:,}"


def ratio(number: float, of: float) -> str:
    """How many to one; nothing to nothing is none."""
    return f"{number / of:,.2f}" if of else "-"


UNITS = ("KiB", "MiB", "GiB", "TiB")


def amount(number: float) -> str:
    """Bytes; many of them in a larger unit."""
    if number < 10_000:
        return f"{number:,.0f} B"
    power = 1
    while number >= 1024 ** (power + 1) and power < len(UNITS):
        power += 1
    return f"{number / 1024**power:,.1f} {UNITS[power - 1]}"


def microseconds(number: float) -> str:
    return f"{number:,.1f} us" if number < 10_000 else f"{number / 1000:,.1f} ms"


# ---- tables ----


def rich_console() -> "Console | None":
    """rich's console, where rich is installed and a person looks; else None."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()


def print_table(title: str, sections: Sections, header: Row | None = None, justify: Justify = "right") -> None:
    """justify: the cells; labels are on the left."""
    console = rich_console()
    if console is None:
        print_line("\n".join(plain_table(title, sections, header, justify)))
    else:
        console.print(rich_table(title, sections, header, justify))


def plain_table(title: str, sections: Sections, header: Row | None, justify: Justify) -> Iterator[str]:
    rows = [row for section in sections for row in section] + ([header] if header else [])
    label, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    pad = str.rjust if justify == "right" else str.ljust

    def line(row: Row) -> str:
        return "  ".join(["", row[0].ljust(label), *map(pad, row[1:], widths)]).rstrip()

    yield title
    if header:
        yield line(header)
    for number, section in enumerate(sections):
        if number:
            yield ""
        yield from map(line, section)


def rich_table(title: str, sections: Sections, header: Row | None, justify: Justify) -> "Table":
    from rich import box
    from rich.table import Table

    first, *others = header or sections[0][0]
    table = Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, show_header=bool(header))
    table.add_column(first, style="cyan")
    for name in others:
        table.add_column(name, justify=justify)
    for section in sections:
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table


@contextlib.contextmanager
def live_table(wanted: bool) -> Iterator[ShowTable | None]:
    """Gives a function: print_table(), but each table takes the place of the one before, and the last one vanishes.

    None if that is not wanted, or there is no rich, or nobody looks.
    """
    console = rich_console() if wanted else None
    if console is None:
        yield None
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda title, sections, header: live.update(rich_table(title, sections, header, "right"), refresh=True)


# ---- progress ----


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Gives a function to be called with how much is done, and perhaps with what else to call it: often, it costs
    little."""
    console = rich_console()
    if console is not None:
        with rich_progress(console, what, total) as advance:
            yield advance
        return
    line = TerminalProgress if sys.stdout.isatty() else PipeProgress
    yield line(what, total).advance
    if line is TerminalProgress:
        print_line("")


@contextlib.contextmanager
def rich_progress(console: "Console", what: str, total: int) -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,}"),
        TextColumn("[cyan]{task.fields[rate]}/s"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, rate="-")
        started = time.monotonic()

        def advance(done: int, now: str = what) -> None:
            bar.update(task, description=now, completed=done, rate=f"{done / (time.monotonic() - started + 1e-9):,.0f}")

        yield advance


class PlainProgress:
    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total

    def text(self, done: int) -> str:
        return f"{self.what}: {done:,} of {self.total:,} ({done * 100 // self.total} %)"


class TerminalProgress(PlainProgress):
    """One line, written over and over."""

    def advance(self, done: int, now: str | None = None) -> None:
        print(f"\r{self.text(done)}", end="", flush=True)


class PipeProgress(PlainProgress):
    """A line for every tenth, for a log."""

    tenths = 0

    def advance(self, done: int, now: str | None = None) -> None:
        if done * 10 // self.total > self.tenths:
            self.tenths = done * 10 // self.total
            print_line(self.text(done))
