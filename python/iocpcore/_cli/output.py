"""What people read: tables, progress and numbers; and JSON, one object a line, for programs.

rich makes it pretty where it is installed and standard output is a terminal. Nothing needs it.
"""

import contextlib
import json
import sys
import time


def print_line(text):
    """Flushed: whoever reads a pipe sees it at once."""
    print(text, flush=True)


def print_json(values):
    print_line(json.dumps(values))


# ---- numbers ----


def count(number):
    return f"{number:,}"


def decimal(number):
    return f"{number:,.1f}"


def ratio(number, of):
    """How many to one; nothing to nothing is none."""
    return f"{number / of:,.2f}" if of else "-"


def amount(number):
    """Bytes, in the unit that leaves at most four digits before the point."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 10_000:
            break
        number /= 1024
    else:
        unit = "TiB"
    return f"{number:,.0f} B" if unit == "B" else f"{number:,.1f} {unit}"


def microseconds(number):
    return f"{number:,.1f} us" if number < 10_000 else f"{number / 1000:,.1f} ms"


# ---- tables ----


def rich_console():
    """rich's console, where rich is installed and a person looks; else None."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console()


def print_table(title, sections, header=None):
    """sections: lists of rows; a row: its label and its cells, all text."""
    console = rich_console()
    if console is None:
        print_line("\n".join(plain_table(title, sections, header)))
    else:
        console.print(rich_table(title, sections, header))


def plain_table(title, sections, header=None):
    rows = [row for section in sections for row in section] + ([header] if header else [])
    label, *cells = (max(map(len, column)) for column in zip(*rows, strict=True))

    def line(row):
        return "  ".join([f"  {row[0]:<{label}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], cells, strict=True))])

    yield title
    if header:
        yield line(header)
    for number, section in enumerate(sections):
        if number:
            yield ""
        yield from map(line, section)


def rich_table(title, sections, header=None):
    from rich import box
    from rich.table import Table

    first, *others = header or sections[0][0]
    table = Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED, show_header=bool(header))
    table.add_column(first, style="cyan")
    for name in others:
        table.add_column(name, justify="right")
    for section in sections:
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table


# ---- progress ----


@contextlib.contextmanager
def progress(what, total):
    """Gives a function to be called with how much is done: often, it costs little."""
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
def rich_progress(console, what, total):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("[cyan]{task.fields[rate]}/s"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, rate="-")
        started = time.monotonic()

        def advance(done):
            bar.update(task, completed=done, rate=f"{done / (time.monotonic() - started + 1e-9):,.0f}")

        yield advance


class PlainProgress:
    def __init__(self, what, total):
        self.what = what
        self.total = total

    def text(self, done):
        return f"{self.what}: {done:,} of {self.total:,} ({done * 100 // self.total} %)"


class TerminalProgress(PlainProgress):
    """One line, written over and over."""

    def advance(self, done):
        print(f"\r{self.text(done)}", end="", flush=True)


class PipeProgress(PlainProgress):
    """A line for every tenth, for a log."""

    tenths = 0

    def advance(self, done):
        if done * 10 // self.total > self.tenths:
            self.tenths = done * 10 // self.total
            print_line(self.text(done))
