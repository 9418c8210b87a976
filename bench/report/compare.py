"""What got better or worse between two results, and whether that is more than the noise.

What is compared is the ratio to the case's base, taken round by round: a machine that was slower that day cancels out.
Where there is no base it is the figure. A base itself is shown as `reference`, and never called better or worse.

A change counts if both hold:
- Every new round lies above every old one, or every one below. Of five rounds against five, chance alone brings that
  about once in 126 times, of seven against seven once in 1716; with so few rounds that it is more often than once in a
  hundred times, nothing can be said, and nothing is. It asks for no normal distribution. But one wild round hides a
  change: measure again where `max` is far from `median`.
- The medians differ by more than 2 % (--least). The rounds of a run share their processes, so what differs from start
  to start (the layout of memory, say) is not in their spread; the same build measured twice shows it.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

from report import results
from report.looks import in_order, label, number, times
from report.results import Case, Result, Summary

LIKELY = 0.01  # up to which a difference is taken to be none of chance
LEAST = 0.02


def chance(olds: int, news: int) -> float:
    """How likely it is that so many rounds lie wholly above or below the others where nothing has changed."""
    return 2 / comb(olds + news, olds)


@dataclass(frozen=True)
class Change:
    case: Case
    server: str
    unit: str
    base: str | None  # None: the figure itself is compared
    old: Summary
    new: Summary
    rounds: tuple[int, int]
    least: float = LEAST

    @property
    def share(self) -> float:
        return self.new.middle / self.old.middle - 1 if self.old.middle else 0.0

    @property
    def apart(self) -> bool:
        """No round of the one result lies among those of the other."""
        return self.new.low > self.old.high or self.new.high < self.old.low

    @property
    def verdict(self) -> str:
        if abs(self.share) <= self.least:
            return "same"
        if self.server in (self.case.reference, self.case.base_of(self.server)):
            return "reference"
        if chance(*self.rounds) > LIKELY:
            return "too few rounds"
        if not self.apart:
            return "noise"
        return "worse" if (self.share > 0) == (self.case.better == "lower") else "better"


def pair(old: Case, new: Case, name: str, figure: str) -> tuple[str | None, Summary, Summary] | None:
    """What of a server is comparable: to which base, and the summaries of both results."""
    base = new.base_of(name)
    if base != name and base == old.base_of(name):
        ratios = old.ratio(name, base, figure), new.ratio(name, base, figure)
        if all(ratios):
            return base, *ratios
    figures = old.servers[name].figures.get(figure), new.servers[name].figures.get(figure)
    return (None, *figures) if all(figures) else None


def changes(old: Result, new: Result, figure: str | None = None, least: float = LEAST) -> Iterator[Change]:
    for case in new.cases:
        before = old.case(case.group, case.name)
        compared = figure or case.figure
        if before is None or compared not in results.compared(case.figure, case.units):
            continue
        for name in in_order(case.servers.keys() & before.servers.keys()):
            if found := pair(before, case, name, compared):
                yield Change(case, name, case.units[compared], *found, (before.rounds, case.rounds), least)


def only_in(result: Result, other: Result) -> list[str]:
    """What one result has and the other has not: groups, and of the groups that both have the cases and servers."""
    found = []
    for case in result.cases:
        theirs = other.case(case.group, case.name)
        if not other.group(case.group):
            found.append(case.group)
        else:
            lacks = [name for name in case.servers if theirs is None or name not in theirs.servers]
            found += [f"{case.group}: {case.name}: {label(name)}" for name in lacks]
    return list(dict.fromkeys(found))


# ---- output ----

STYLES = {"worse": "bold red", "better": "green"}
STYLES |= dict.fromkeys(("reference", "noise", "same", "too few rounds"), "dim")


def shown(change: Change, value: float) -> str:
    return times(value) if change.base else number(value)


def row(change: Change) -> list[str]:
    of = f"to {label(change.base)}" if change.base else change.unit
    return [
        change.case.name,
        label(change.server),
        shown(change, change.old.middle),
        shown(change, change.new.middle),
        of,
        f"{change.share:+.1%}",
        change.verdict,
    ]


def print_table(found: list[Change], everything: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("case", "server", "old", "new", "", "change", ""):
        table.add_column(heading, justify="right" if heading in ("old", "new", "change") else "left")
    for change in found:
        if everything or change.verdict != "same":
            table.add_row(*row(change), style=STYLES[change.verdict])
    # A file or a pipe gets whole lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if table.row_count:
        console.print(table)
    verdicts = [change.verdict for change in found]
    console.print(", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in STYLES), "of", len(found))


def print_names(title: str, names: list[str]) -> None:
    if names:
        print(f"{title}:", *names, sep="\n  ")
