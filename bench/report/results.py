"""What a run of the suite has shown, as all who show it see it: medians, spreads, and ratios taken round by round.

There are two kinds of file, both JSON, and load() reads both. The suite saves a full result: every round of every
server. It is summarised as it is read, so no page can show a figure that another page has derived in another way. The
published result holds the summaries alone, and those of several runs: each group of cases is that of the latest run
that measured it. bench/README.md describes both.
"""
from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FULL, PUBLISHED = 1, 2  # the formats of the two kinds
DIGITS = 5  # that count; more are noise
QUOTED = 7  # of what pages quote, for they round it once more
SAMPLED = ("user_ns", "system_ns")  # timer ticks split the CPU time: a single round says little, the mean of all more
SPREAD = ("user_ns", "attaches_per_packet")  # of figures beside the case's own, those whose extremes somebody looks at
PERCENTILE = re.compile(r"p(\d\d)(\d*)_us")
OURS = ("iocpcore-", "python-")
PEERS = ("uvloop", "asyncio")  # README, docs and goals compare ours with these too
PARAMETERS = ("connections", "pipeline", "size")  # of a case, those by which charts choose and order
DEPTH_OF_SERVERS = 6  # of their lines, in a published document


class Invalid(Exception):
    """The document is not a result; the message says where, and why."""


@dataclass(frozen=True)
class Summary:
    """A figure over the rounds: the median (of SAMPLED figures the mean), the least and the most."""

    middle: float
    low: float | None = None  # None: it is not kept
    high: float | None = None


SAME = Summary(1, 1, 1)  # the ratio of a server to itself


@dataclass(frozen=True)
class Server:
    """What one server showed in one case."""

    base: str | None  # the server that its figures are a multiple of
    figures: dict[str, Summary]
    ratios: dict[str, dict[str, Summary]]  # {another server: {figure: the ratio to that server's}}


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    figure: str  # what the case is about, one of the units
    units: dict[str, str]
    servers: dict[str, Server]
    rounds: int
    parameters: dict[str, Any] = field(default_factory=dict)
    better: str = "lower"

    def cost(self, name: str) -> Summary:
        """The case's own figure."""
        return self.servers[name].figures[self.figure]

    def base_of(self, name: str) -> str | None:
        return self.servers[name].base

    @property
    def reference(self) -> str | None:
        """What all servers of the case can be compared with: the first server that is its own base."""
        return next((name for name, server in self.servers.items() if server.base == name), None)

    def ratio(self, name: str, base: str | None = None, figure: str | None = None) -> Summary | None:
        """A server's figure as a multiple of the base's, round by round; None where that is not known."""
        base, figure = base or self.base_of(name), figure or self.figure
        if name not in self.servers or base not in self.servers:
            return None
        return SAME if name == base else self.servers[name].ratios.get(base, {}).get(figure)


@dataclass(frozen=True)
class Missing:
    """A server that was to be measured, and could not be."""

    server: str
    reason: str
    group: str | None = None  # the cases where it is missing; None: all


@dataclass(frozen=True)
class Run:
    made: str
    command: str
    cases: list[Case]
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    commit: str | None = None
    seconds: float | None = None

    @property
    def date(self) -> str:
        return self.made[:10]

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(case.group for case in self.cases))

    def without(self, groups: list[str]) -> Run:
        cases = [case for case in self.cases if case.group not in groups]
        missing = [each for each in self.missing if each.group is None or each.group not in groups]
        return replace(self, cases=cases, missing=missing)


@dataclass(frozen=True)
class Result:
    """Runs that have no group in common: one, as the suite saves it, or those whose groups are published."""

    runs: list[Run]

    @property
    def cases(self) -> list[Case]:
        return [case for run in self.runs for case in run.cases]

    def group(self, name: str) -> list[Case]:
        return [case for case in self.cases if case.group == name]

    def case(self, group: str, name: str) -> Case | None:
        return next((case for case in self.group(group) if case.name == name), None)

    def run_of(self, group: str) -> Run:
        return next(run for run in self.runs if group in run.groups)

    def renewed(self, other: Result) -> Result:
        """With the other's groups in place of those of the same names."""
        groups = [group for run in other.runs for group in run.groups]
        runs = [*(run.without(groups) for run in self.runs), *other.runs]
        return Result([run for run in runs if run.cases])


# ---- summaries of rounds ----

Rounds = list[dict[str, float]]  # {figure: value} of each


def rounded(value: float, digits: int = DIGITS) -> float:
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short


def compared(figure: str, units: dict[str, str]) -> list[str]:
    """The figures whose ratios are kept: the case's own, and where that is a latency the other percentiles too."""
    also = [name for name in units if PERCENTILE.fullmatch(name) and PERCENTILE.fullmatch(figure)]
    return list(dict.fromkeys([figure, *also]))


def summary(figure: str, values: list[float], spread: bool = True) -> Summary:
    middle = (statistics.mean if figure in SAMPLED else statistics.median)(values)
    if len(values) == 1:
        return Summary(*[rounded(middle, QUOTED)] * 3)
    if not spread:
        return Summary(rounded(middle))
    middle = rounded(middle, DIGITS if figure in SPREAD else QUOTED)
    return Summary(middle, rounded(min(values)), rounded(max(values)))


def values_of(rounds: Rounds, figure: str) -> list[float] | None:
    """One a round; None if not every round has the figure."""
    return [values[figure] for values in rounds] if all(figure in values for values in rounds) else None


def ratio(figure: str, mine: Rounds, others: Rounds) -> Summary | None:
    """Round by round: what slows a whole round cancels out. None where a round of the other's is zero."""
    mine_, others_ = values_of(mine, figure), values_of(others, figure)
    if not mine_ or not others_ or not all(others_):
        return None
    return summary(figure, [a / b for a, b in zip(mine_, others_, strict=True)])


def summarised(
    figure: str, units: dict[str, str], rounds: dict[str, Rounds], bases: dict[str, str | None]
) -> dict[str, Server]:
    """The servers of a case, by the rounds of each, and the server that each is compared with."""
    reference = next((name for name, base in bases.items() if base == name), None)
    own = compared(figure, units)
    servers = {}
    for name, its in rounds.items():
        values = {key: values_of(its, key) for key in units}
        figures = {key: summary(key, found, key in (*own, *SPREAD)) for key, found in values.items() if found}
        others = dict.fromkeys([bases[name], reference, *(PEERS if name.startswith(OURS) else ())])
        ratios = {
            other: {key: found for key in own if (found := ratio(key, its, rounds[other]))}
            for other in others if other in rounds and other != name
        }
        servers[name] = Server(bases[name], figures, ratios)
    return servers


# ---- reading ----


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Whatever is wrong with what is read meanwhile, the message says where it is."""
    try:
        yield
    except KeyError as missing:
        raise Invalid(f"{where}: {missing} is missing") from None
    except (Invalid, TypeError, AttributeError, ValueError) as problem:
        raise Invalid(f"{where}: {problem}") from None


def number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise Invalid(f"a finite number is wanted, not {value!r:.60}")
    return value


def measured(value: dict[str, Any], figure: str, units: dict[str, str]) -> tuple[int, dict[str, Server]]:
    """A case of a full result: how many rounds its servers have, and what they showed."""
    rounds: dict[str, Rounds] = {}
    for name, entry in value["servers"].items():
        with reading(name):
            rounds[name] = []
            for place, each in enumerate(entry["rounds"], 1):
                with reading(f"round {place}"):
                    rounds[name].append({key: number(each[key]) for key in each})
                    if figure not in each:
                        raise Invalid(f"it lacks the case's figure, {figure!r}")
    counts = {len(its) for its in rounds.values()}
    if len(counts) > 1 or 0 in counts:
        raise Invalid("the servers have unequal numbers of rounds, or none: they were not measured in turn")
    bases = {name: entry.get("base") or value.get("base") for name, entry in value["servers"].items()}
    return max(counts, default=0), summarised(figure, units, rounds, bases)


def summaries(names: Iterable[str], values: list[Any], single: bool) -> dict[str, Summary]:
    """Of each name, as short() wrote them: middle, least and most, the middle alone, or nothing."""
    found = {}
    for name, value in zip(names, values, strict=False):
        if isinstance(value, list):
            found[name] = Summary(*map(number, value))
        elif value is not None:
            found[name] = Summary(number(value), *([value, value] if single else []))
    return found


def published(value: dict[str, Any], figure: str, units: dict[str, str]) -> tuple[int, dict[str, Server]]:
    """A case of a published result, likewise."""
    rounds, servers, own = value["rounds"], {}, compared(figure, units)
    for name, (base, figures, ratios) in value["servers"].items():
        with reading(name):
            to = {other: summaries(own, its, rounds == 1) for other, its in ratios.items()}
            servers[name] = Server(base, summaries(units, figures, rounds == 1), to)
            if figure not in servers[name].figures:
                raise Invalid(f"it lacks the case's figure, {figure!r}")
    return rounds, servers


def a_case(value: dict[str, Any], units_of: dict[str, dict[str, str]]) -> Case:
    group, figure, better = value["group"], value["figure"], value.get("better", "lower")
    units = value.get("units") or units_of[group]
    if figure not in units:
        raise Invalid(f"the units do not say what {figure!r} is")
    if better not in ("lower", "higher"):
        raise Invalid(f"better: 'lower' or 'higher' is wanted, not {better!r}")
    rounds, servers = (published if "rounds" in value else measured)(value, figure, units)
    parameters = {key: given for key, given in value.get("parameters", {}).items() if key in PARAMETERS}
    return Case(group, value["name"], figure, units, servers, rounds, parameters, better)


def a_run(value: dict[str, Any]) -> Run:
    cases = []
    for place, each in enumerate(value["cases"]):
        with reading(f"cases[{place}] ({each['name']})"):
            cases.append(a_case(each, value.get("units", {})))
    missing = [Missing(**each) for each in value.get("missing", [])]
    facts = {key: value[key] for key in ("machine", "versions", "commit", "seconds") if key in value}
    return Run(value["made"], value["command"], cases, missing=missing, **facts)


def parse(document: Any) -> Result:
    """The result that a JSON document of either kind describes; raises Invalid."""
    with reading("the result"):
        if document["format"] not in (FULL, PUBLISHED):
            raise Invalid(f"format {document['format']!r}: only {FULL} and {PUBLISHED} are known")
        result = Result([a_run(run) for run in ([document] if document["format"] == FULL else document["runs"])])
        for (group, name), count in Counter((case.group, case.name) for case in result.cases).items():
            if count > 1:
                raise Invalid(f"{count} cases of group {group} are called {name!r}")
    return result


def load(path: Path | str) -> Result:
    try:
        return parse(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, Invalid) as problem:
        raise Invalid(f"{path}: {problem}") from None


# ---- writing what is published ----


def short(found: dict[str, Summary], names: Iterable[str], single: bool) -> list[Any]:
    """In the order of the names; None where there is none, but not in the end."""
    values: list[Any] = []
    for each in map(found.get, names):
        alone = each and (single or each.low is None)
        values.append(each and (each.middle if alone else [each.middle, each.low, each.high]))
    while values and values[-1] is None:
        values.pop()
    return values


def case_document(case: Case) -> dict[str, Any]:
    own, single = compared(case.figure, case.units), case.rounds == 1
    servers = {
        name: [
            server.base, short(server.figures, case.units, single),
            {other: short(ratios, own, single) for other, ratios in server.ratios.items()},
        ]
        for name, server in case.servers.items()
    }
    head = {key: getattr(case, key) for key in ("group", "name", "figure", "rounds", "better", "parameters")}
    return {**head, "servers": servers}


def run_document(run: Run) -> dict[str, Any]:
    units: dict[str, dict[str, str]] = {}
    for case in run.cases:
        if units.setdefault(case.group, case.units) != case.units:
            raise Invalid(f"the cases of group {case.group} have different units: they are published once for all")
    facts = {key: getattr(run, key) for key in ("made", "command", "commit", "seconds", "machine", "versions")}
    missing = [vars(each) for each in run.missing]
    return {**facts, "missing": missing, "units": units, "cases": [case_document(case) for case in run.cases]}


def text(value: Any, depth: int = 0) -> str:
    """JSON with a line for what is short, and for each server, so that a change of one is a change of one line."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if depth == DEPTH_OF_SERVERS or len(line) < 120 or not isinstance(value, dict | list):
        return line
    if isinstance(value, list):
        parts = [text(each, depth + 1) for each in value]
    else:
        parts = [f"{json.dumps(key)}:{text(each, depth + 1)}" for key, each in value.items()]
    return line[0] + ",".join(f"\n{' ' * depth} {part}" for part in parts) + line[-1]


def document(result: Result) -> dict[str, Any]:
    """As it is published: only what can be read again."""
    found = {"format": PUBLISHED, "runs": [run_document(run) for run in result.runs]}
    if parse(found) != result:
        raise Invalid("it would not be the same when it is read again")
    return found


def write(document: Any, path: Path | str) -> None:
    Path(path).write_text(text(document) + "\n", encoding="utf-8")
