"""Output for people: tables, progress and numbers; and for programs: JSON, one object a line.

If rich is installed and standard output is a terminal, rich draws the output. Nothing needs it.
"""

import contextlib
import errno
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = list[str]  # a label and its cells
Sections = Sequence[Sequence[Row]]
Justify = Literal["left", "right"]
ShowTable = Callable[[str, Sections, Row], None]


class Unwritable(Exception):
    """Standard output cannot be written to, and not because the reader of a pipe has gone."""


@contextlib.contextmanager
def written() -> Iterator[None]:
    """Flush what is printed in its `with` when that ends, so that the reader of a pipe sees it at once.

    Raises BrokenPipeError or Unwritable if that fails. Then standard output goes to the null device, so that the
    interpreter does not try to write again when it ends.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
        if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL):
            raise BrokenPipeError from error    # EINVAL: how Windows reports a pipe without a reader
        raise Unwritable(f"cannot write to standard output: {error.strerror or error}") from error


def print_line(text: str) -> None:
    with written():
        print(text)


def screen_width() -> int | None:
    """The columns of the terminal; None if standard output is no terminal: then lines may have any length."""
    return shutil.get_terminal_size().columns if on_screen() else None


def on_screen() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def print_json(values: dict[str, Any]) -> None:
    print_line(json.dumps(values))


# ---- numbers ----


def count(number: int) -> str:
    return f"{number:,}"


def ratio(number: float, of: float) -> str:
    """The quotient; "-" if `of` is 0."""
    return f"{number / of:,.2f}" if of else "-"


UNITS = ("KiB", "MiB", "GiB", "TiB")


def amount(number: float) -> str:
    """A number of bytes; a large one in a larger unit."""
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
    """rich's console, if rich is installed and standard output is a terminal; else None."""
    if not on_screen():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()


def print_table(title: str, sections: Sections, header: Row | None = None, justify: Justify = "right") -> None:
    """justify: of the cells; labels are on the left. If not all columns fit, the last ones are left out."""
    console = rich_console()
    if console is None:
        print_line("\n".join(plain_table(title, sections, header, justify)))
    else:
        with written():
            console.print(rich_table(title, sections, header, justify, console.width))


def column_widths(sections: Sections, header: Row | None) -> list[int]:
    rows = [row for section in sections for row in section] + ([header] if header else [])
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def columns_that_fit(widths: Sequence[int], between: int, room: int | None) -> int:
    """How many columns fit, from the left; at least the label and one cell. between: the padding of each column."""
    if room is None:
        return len(widths)
    fit = len(widths)
    while fit > 2 and sum(widths[:fit]) + between * fit > room:
        fit -= 1
    return fit


def left_out(header: Row | None, fit: int) -> str:
    """A sentence that names the columns that are not shown."""
    names = header[fit:] if header else []
    return f"no room for {', '.join(names)}" if names else ""


def plain_table(title: str, sections: Sections, header: Row | None, justify: Justify) -> Iterator[str]:
    every = column_widths(sections, header)
    fit = columns_that_fit(every, 2, screen_width())
    label, *widths = every[:fit]
    pad = str.rjust if justify == "right" else str.ljust

    def line(row: Row) -> str:
        return "  ".join(["", row[0].ljust(label), *map(pad, row[1:fit], widths)]).rstrip()

    yield title
    if header:
        yield line(header)
    for number, section in enumerate(sections):
        if number:
            yield ""
        yield from map(line, section)
    if missing := left_out(header, fit):
        yield from textwrap.wrap(missing, screen_width() or len(missing), break_on_hyphens=False)


def rich_table(title: str, sections: Sections, header: Row | None, justify: Justify, room: int) -> "Table":
    from rich import box
    from rich.table import Table

    fit = columns_that_fit(column_widths(sections, header), 3, room - 1)    # a line and two spaces; a line at the end
    first, *others = (header or sections[0][0])[:fit]
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=left_out(header, fit) or None,
        caption_justify="left",
        box=box.ROUNDED,
        show_header=bool(header),
    )
    table.add_column(first, style="cyan")
    for name in others:
        table.add_column(name, justify=justify)
    for section in sections:
        for row in section:
            table.add_row(*row[:fit])
        table.add_section()
    return table


@contextlib.contextmanager
def live_table(wanted: bool) -> Iterator[ShowTable | None]:
    """Gives a function like print_table(), but each table replaces the one before, and the last one vanishes.

    Gives None if that is not wanted, rich is not installed, or standard output is no terminal.
    """
    console = rich_console() if wanted else None
    if console is None:
        yield None
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(title: str, sections: Sections, header: Row) -> None:
            with written():
                live.update(rich_table(title, sections, header, "right", console.width), refresh=True)

        yield show


# ---- progress ----


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Gives a function to call with how much is done, and optionally with a new name for it. A call costs little, so
    call it often."""
    console = rich_console()
    if console is not None:
        with rich_progress(console, what, total) as advance:
            yield advance
        return
    line = TerminalProgress if on_screen() else PipeProgress
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
    if console.width < 60:
        del columns[4:]
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
    """One line that is rewritten again and again."""

    def advance(self, done: int, now: str | None = None) -> None:
        with written():
            print(f"\r{self.text(done)}", end="")


class PipeProgress(PlainProgress):
    """A line for every tenth, as a log wants it."""

    tenths = 0

    def advance(self, done: int, now: str | None = None) -> None:
        if done * 10 // self.total > self.tenths:
            self.tenths = done * 10 // self.total
            print_line(self.text(done))
