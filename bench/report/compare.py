"""What got better or worse between two results, and whether that is more than the noise.

What is compared is the ratio to the case's base, round by round: a machine that was slower that day cancels out. Where
there is no base it is the figure. A base itself is shown as `reference`, and never called better or worse.

A change counts if both hold:
- the ratios of the new rounds lie above or below the old ones by more than chance makes likely: the rank test of Mann,
  Whitney and Wilcoxon, exact also for equal values, p <= 0.01. It asks for no normal distribution, and one wild round
  weighs no more than any other. Five rounds against five reach p = 0.008 only if none of the two overlap; with fewer
  nothing can be said, and nothing is.
- the medians differ by more than 2 % (--least). The rounds of a run share their processes, so what differs from start
  to start (the layout of memory, say) is not in their spread; the same build measured twice shows it.
Of a hundred comparisons where nothing has changed, the rank test alone calls one a change: read a lone one so.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from report.looks import in_order, label, number, times
from results import Case, Run

LIKELY = 0.01  # p up to which a difference is none of chance
LEAST = 0.02


def doubled_ranks(values: list[float]) -> list[int]:
    """Twice the rank of each value; equal ones share the mean of theirs."""
    return [
        sum(other < value for other in values) * 2 + sum(other == value for other in values) + 1 for value in values
    ]


def chance(old: list[float], new: list[float]) -> float:
    """The share of all ways to deal these values out that part old and new at least so clearly: p, two-sided."""
    ranks = doubled_ranks([*old, *new])
    ways: list[dict[int, int]] = [{0: 1}] + [{} for _ in old]  # of choosing so many values: {sum of ranks: how often}
    for rank in ranks:
        for chosen in range(len(old), 0, -1):
            for total, count in ways[chosen - 1].items():
                ways[chosen][total + rank] = ways[chosen].get(total + rank, 0) + count
    middle = len(old) * (len(ranks) + 1)
    seen = abs(sum(ranks[: len(old)]) - middle)
    sums = ways[len(old)]
    return sum(count for total, count in sums.items() if abs(total - middle) >= seen) / sum(sums.values())


def least_chance(olds: int, news: int) -> float:
    """The smallest p that so many rounds can show."""
    return chance([float(i) for i in range(olds)], [float(olds + i) for i in range(news)])


@dataclass(frozen=True)
class Change:
    case: Case
    server: str
    unit: str
    base: str | None  # None: the figure itself is compared
    old: list[float]
    new: list[float]
    least: float

    @property
    def share(self) -> float:
        return median(self.new) / median(self.old) - 1 if median(self.old) else 0.0

    @property
    def p(self) -> float:
        return chance(self.old, self.new)

    @property
    def tells(self) -> bool:
        """There are rounds enough."""
        return least_chance(len(self.old), len(self.new)) <= LIKELY

    @property
    def verdict(self) -> str:
        if abs(self.share) <= self.least:
            return "same"
        if self.server in (self.case.reference, self.case.base_of(self.server)):
            return "reference"
        if not self.tells:
            return "too few rounds"
        if self.p > LIKELY:
            return "noise"
        return "worse" if (self.share > 0) == (self.case.better == "lower") else "better"


def series(old: Case, new: Case, name: str, figure: str) -> tuple[str | None, list[float], list[float]] | None:
    """What of a server is comparable: to which base, and the values of both runs."""
    base = new.base_of(name)
    if base != name and base == old.base_of(name):
        pair = old.ratios(name, base, figure), new.ratios(name, base, figure)
        if all(pair):
            return base, *pair
    pair = old.servers[name].values(figure), new.servers[name].values(figure)
    return (None, *pair) if all(pair) else None


def changes(old: Run, new: Run, figure: str | None = None, least: float = LEAST) -> Iterator[Change]:
    for case in new.cases:
        before = old.case(case.group, case.name)
        if before is None:
            continue
        for name in in_order(case.servers.keys() & before.servers.keys()):
            if found := series(before, case, name, figure or case.figure):
                yield Change(case, name, case.units[figure or case.figure], *found, least)


def measured(run: Run) -> set[tuple[str, str, str]]:
    return {(case.group, case.name, name) for case in run.cases for name in case.servers}


def only_in(run: Run, other: Run) -> list[str]:
    """What one run has and the other has not."""
    return [f"{group}: {name}: {label(server)}" for group, name, server in sorted(measured(run) - measured(other))]


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
        shown(change, median(change.old)),
        shown(change, median(change.new)),
        of,
        f"{change.share:+.1%}",
        f"{change.p:.3f}" if change.tells else "–",
        change.verdict,
    ]


def print_table(found: list[Change], everything: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("case", "server", "old", "new", "", "change", "p", ""):
        table.add_column(heading, justify="right" if heading in ("old", "new", "change", "p") else "left")
    for change in found:
        if everything or change.verdict != "same":
            table.add_row(*row(change), style=STYLES[change.verdict])
    # A file or a pipe gets whole lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if table.row_count:
        console.print(table)
    verdicts = [change.verdict for change in found]
    console.print(", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in STYLES), "of", len(found))


def print_what_only_one_has(old: Run, new: Run) -> None:
    for title, names in (("only in the old one", only_in(old, new)), ("only in the new one", only_in(new, old))):
        if names:
            print(f"{title}:", *names, sep="\n  ")
