"""The figures of a case as rows of text, for every page that shows them."""
from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from report.looks import SAME_BACKEND, in_order, label, number, split, times
from report.results import Case, Run, Summary

# Beside the figure of the case, in this order, with their headings; what else was measured stands in the JSON.
OTHERS = {
    "user_ns": "user, ns",
    "system_ns": "system, ns",
    "requests_per_s": "requests/s",
    "p50_us": "p50, µs",
    "p99_us": "p99, µs",
    "p999_us": "p99.9, µs",
}


TERMINAL = {"attaches_per_packet": "attaches", "kept_per_connection": "kept"}  # shorter than their units


@dataclass(frozen=True)
class Row:
    server: str
    label: str
    cells: list[str]


@dataclass(frozen=True)
class Table:
    case: Case
    unit: str
    headings: list[str]
    rows: list[Row]


def spread(found: Summary | None, text=number) -> str:
    return "–" if found is None or found.low is None else f"{text(found.low)} … {text(found.high)}"


def middle(found: Summary | None, text=number) -> str:
    return text(found.middle) if found else "–"


def others_of(case: Case) -> list[str]:
    """First the known ones, then those that only this case has; none that no server has."""
    figures = dict.fromkeys([*(figure for figure in OTHERS if figure in case.units), *case.units])
    return [figure for figure in figures
            if figure != case.figure and any(figure in server.figures for server in case.servers.values())]


def row(case: Case, name: str) -> Row:
    cost, ratio, figures = case.cost(name), case.ratio(name), case.servers[name].figures
    cells = [middle(cost), spread(cost), middle(ratio, times), spread(ratio, times), str(case.rounds)]
    return Row(name, label(name), cells + [middle(figures.get(figure)) for figure in others_of(case)])


def base_label(case: Case) -> str:
    """What the ratios of a case are to."""
    bases = {case.base_of(name) for name in case.servers} - {None}
    if len(bases) == 1:
        return label(bases.pop())
    variants = {split(base)[1] for base in bases}
    if len(variants) == 1 and variants != {""}:
        return f"the same server, {variants.pop()}"
    return SAME_BACKEND if bases else "nothing"


def table(case: Case) -> Table:
    headings = ["median", "lowest … highest", f"to {base_label(case)}", "lowest … highest", "rounds"]
    headings += [OTHERS.get(figure) or case.units[figure] for figure in others_of(case)]
    unit = case.units[case.figure] + (", higher is better" if case.better == "higher" else "")
    return Table(case, unit, headings, [row(case, name) for name in in_order(case.servers)])


def markdown(lines: list[list[str]], to: str = "---:") -> str:
    """A table of a page; the first line is its heading. to: whether the other columns are to the right."""
    rows = [lines[0], ["---", *(to for _ in lines[0][1:])], *lines[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def by_column(columns: dict[str, dict[str, float]], names: dict[str, str]) -> str:
    """The same of {column: {row: figure}}, with a dash where a column has no such row, or 0."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    lines = [["", *(names.get(name, name) for name in columns)]]
    lines += [[row, *(f"{column[row]:,}" if column.get(row) else "–" for column in columns.values())] for row in rows]
    return markdown(lines)


FACTS = {
    "cpu": "processor",
    "cpus": "CPUs",
    "kernel": "kernel",
    "memory_bytes": "memory",
    "governor": "governor",
    "virtual": "virtual machine",
    "load_before": "load before",
    "cpus_used": "server and load",
}


def fact(key: str, value: object) -> str:
    if key == "memory_bytes":
        return f"{value / 2**30:.1f} GiB"
    if key == "cpus_used":
        return {"same": "on one CPU", "apart": "on a CPU each"}.get(value, str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def facts(run: Run) -> list[tuple[str, str]]:
    """All that is known about how the run was made."""
    found = [("made", run.made), ("command", run.command)]
    if run.commit:
        found.append(("commit", run.commit))
    if run.seconds is not None:
        found.append(("took", f"{run.seconds:,.0f} s"))
    found += [(FACTS.get(key, key), fact(key, value)) for key, value in run.machine.items()]
    return found + sorted(run.versions.items())


def machine(run: Run) -> str:
    """In a few words."""
    known = run.machine
    words = [str(known[key]) for key in ("cpu", "kernel") if known.get(key)]
    if known.get("cpus"):
        words.insert(1, f"{known['cpus']} CPUs")
    if python := run.versions.get("python"):
        words.append(f"Python {python}" if python[0].isdigit() else python)
    return ", ".join(words)


def source(run: Run) -> str:
    commit = f" at commit {run.commit}" if run.commit else ""
    return f"Made by `{run.command}`{commit} on {run.date}; {machine(run)}."


# ---- the table of a case in a terminal ----


def base_of_all(case: Case) -> str | None:
    """What the ratios are multiples of, or None where there are none."""
    names = {case.base_of(name) for name in case.servers} - {None}
    if not names:
        return None
    return "x raw C" if all(name.startswith("c-") for name in names) else "x its base"


def terminal_rows(case: Case) -> list[list[str]]:
    """The columns that matter most come first; servers have the names by which --servers chooses."""
    base, others = base_of_all(case), others_of(case)
    names = [OTHERS.get(figure, TERMINAL.get(figure, figure)).replace(",", "") for figure in others]
    rows = [["", "median", *([base] if base else []), "min", "max", *names]]
    for name, server in case.servers.items():
        cost, ratio = case.cost(name), case.ratio(name)
        found = [middle(cost), *([middle(ratio, "{:.3f}".format)] if base else []), number(cost.low), number(cost.high)]
        rows.append([name, *found, *(middle(server.figures.get(figure)) for figure in others)])
    return rows


def terminal_lines(case: Case, room: int | None = None) -> Iterator[str]:
    """Of at most so many columns, as far as there is room for the first two cells; None: of any length."""
    rows = terminal_rows(case)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fit = len(widths)
    while room is not None and fit > 2 and sum(widths[:fit]) + 2 * fit > room:
        fit -= 1
    yield from wrapped(f"{case.name}: {case.units[case.figure]}, {case.rounds} round{'s' * (case.rounds > 1)}", room)
    for name, *cells in rows:
        yield "  ".join(["", name.ljust(widths[0]), *map(str.rjust, cells[: fit - 1], widths[1:fit])]).rstrip()
    if fit < len(widths):
        yield from wrapped(f"no room for {', '.join(rows[0][fit:])}", room)


def wrapped(text: str, room: int | None) -> list[str]:
    return textwrap.wrap(text, room) if room else [text]
