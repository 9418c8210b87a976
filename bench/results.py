"""The result of one run of the suite: read, checked and written as JSON; and every figure that is derived from it.

A file holds what was measured, round by round, and nothing derived. Medians, spreads and ratios are made here, by all
who show them, so that no two pages can differ. bench/README.md describes the format.
"""
from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


class Invalid(Exception):
    """The document is not a result; the message says where, and why."""


@dataclass(frozen=True)
class Summary:
    """Median and extremes of one figure over the rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """From the lowest to the highest, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summary(values: list[float]) -> Summary:
    return Summary(statistics.median(values), min(values), max(values), len(values))


def ratios(mine: list[float], others: list[float]) -> list[float] | None:
    """Round by round: what slows a whole round cancels out. None where a round of the other's is zero."""
    if not all(others):
        return None
    return [a / b for a, b in zip(mine, others, strict=True)]


@dataclass(frozen=True)
class Server:
    """What one server showed in one case: a {figure: value} for each round."""

    rounds: list[dict[str, float]]
    base: str | None = None  # where it is not the case's

    def values(self, figure: str) -> list[float] | None:
        """One a round; None if not every round has the figure."""
        if not all(figure in values for values in self.rounds):
            return None
        return [values[figure] for values in self.rounds]

    def summary(self, figure: str) -> Summary | None:
        values = self.values(figure)
        return summary(values) if values else None


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    figure: str
    units: dict[str, str]
    servers: dict[str, Server]
    base: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    better: str = "lower"

    def base_of(self, name: str) -> str | None:
        return self.servers[name].base or self.base

    @property
    def reference(self) -> str | None:
        """What all servers of the case can be compared with: its base, or the first server that is its own."""
        return self.base or next((name for name, server in self.servers.items() if server.base == name), None)

    def ratios(self, name: str, base: str | None = None, figure: str | None = None) -> list[float] | None:
        """A server's figure as a multiple of the base's, for each round; None where one of the two was not measured."""
        base, figure = base or self.base_of(name), figure or self.figure
        if base not in self.servers or name not in self.servers:
            return None
        mine, others = self.servers[name].values(figure), self.servers[base].values(figure)
        return ratios(mine, others) if mine and others else None

    def ratio(self, name: str, base: str | None = None, figure: str | None = None) -> Summary | None:
        values = self.ratios(name, base, figure)
        return summary(values) if values else None


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

    def group(self, name: str) -> list[Case]:
        return [case for case in self.cases if case.group == name]

    def case(self, group: str, name: str) -> Case | None:
        return next((case for case in self.group(group) if case.name == name), None)

    @property
    def date(self) -> str:
        return self.made[:10]


# ---- reading: each of these takes a JSON value and says where it is, in case it is wrong ----


def _expect(value: Any, types: type | tuple[type, ...], where: str, what: str) -> Any:
    if not isinstance(value, types) or isinstance(value, bool):
        raise Invalid(f"{where}: {what} is wanted, not {value!r:.60}")
    return value


def _object(value: Any, where: str, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    _expect(value, dict, where, "an object")
    for key in needed:
        if key not in value:
            raise Invalid(f"{where}: {key!r} is missing")
    return value


def _text(value: Any, where: str) -> str:
    return _expect(value, str, where, "a text")


def _texts(value: Any, where: str) -> dict[str, str]:
    return {key: _text(text, f"{where}.{key}") for key, text in _object(value, where).items()}


def _number(value: Any, where: str) -> float:
    number = _expect(value, (int, float), where, "a number")
    if not math.isfinite(number):
        raise Invalid(f"{where}: {number} is not finite")
    return number


def _round(value: Any, where: str) -> dict[str, float]:
    return {key: _number(number, f"{where}.{key}") for key, number in _object(value, where).items()}


def _server(value: Any, where: str, figure: str) -> Server:
    _object(value, where, ("rounds",))
    rounds = _expect(value["rounds"], list, f"{where}.rounds", "a list")
    if not rounds:
        raise Invalid(f"{where}: there are no rounds")
    server = Server([_round(r, f"{where}.rounds[{i}]") for i, r in enumerate(rounds)], value.get("base"))
    if server.values(figure) is None:
        raise Invalid(f"{where}: a round lacks the case's figure, {figure!r}")
    return server


def _case(value: Any, where: str) -> Case:
    _object(value, where, ("group", "name", "figure", "units", "servers"))
    group, name, figure = (_text(value[key], f"{where}.{key}") for key in ("group", "name", "figure"))
    where = f"{where} ({name})"
    units = _texts(value["units"], f"{where}.units")
    if figure not in units:
        raise Invalid(f"{where}: the units do not say what {figure!r} is")
    servers = {
        key: _server(server, f"{where}.servers.{key}", figure)
        for key, server in _object(value["servers"], f"{where}.servers").items()
    }
    if len({len(server.rounds) for server in servers.values()}) > 1:
        raise Invalid(f"{where}: the servers have unequal numbers of rounds: they were not measured in turn")
    better = value.get("better", "lower")
    if better not in ("lower", "higher"):
        raise Invalid(f"{where}.better: 'lower' or 'higher' is wanted, not {better!r}")
    parameters = _object(value.get("parameters", {}), f"{where}.parameters")
    return Case(group, name, figure, units, servers, value.get("base"), parameters, better)


def _missing(value: Any, where: str) -> Missing:
    _object(value, where, ("server", "reason"))
    group = value.get("group")
    server, reason = (_text(value[key], f"{where}.{key}") for key in ("server", "reason"))
    return Missing(server, reason, None if group is None else _text(group, f"{where}.group"))


def _cases(value: Any) -> list[Case]:
    cases = [_case(case, f"cases[{i}]") for i, case in enumerate(_expect(value, list, "cases", "a list"))]
    names = [(case.group, case.name) for case in cases]
    for pair in names:
        if names.count(pair) > 1:
            raise Invalid("two cases of group {} are called {!r}".format(*pair))
    return cases


def parse(document: Any) -> Run:
    """The run that a JSON document describes; raises Invalid."""
    _object(document, "the result", ("format", "made", "command", "cases"))
    if document["format"] != FORMAT:
        raise Invalid(f"format {document['format']!r}: only {FORMAT} is known here")
    seconds = document.get("seconds")
    missing = _expect(document.get("missing", []), list, "missing", "a list")
    return Run(
        made=_text(document["made"], "made"),
        command=_text(document["command"], "command"),
        cases=_cases(document["cases"]),
        machine=_object(document.get("machine", {}), "machine"),
        versions=_texts(document.get("versions", {}), "versions"),
        missing=[_missing(value, f"missing[{i}]") for i, value in enumerate(missing)],
        commit=document.get("commit"),
        seconds=None if seconds is None else _number(seconds, "seconds"),
    )


def load(path: Path | str) -> Run:
    try:
        return parse(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, Invalid) as error:
        raise Invalid(f"{path}: {error}") from None


def document(run: Run) -> dict[str, Any]:
    """What parse() takes."""
    whole = asdict(run)
    for missing in whole["missing"]:
        if missing["group"] is None:
            del missing["group"]
    return {"format": FORMAT, **whole}


def save(run: Run, path: Path | str) -> None:
    """Written only if it can be read again."""
    text = json.dumps(document(parse(document(run))), indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
