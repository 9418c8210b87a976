"""The goals of the project, and which of them a result reaches.

Each goal is a limit for a median over the rounds; a ratio is taken round by round, as everywhere. The user part of CPU
time is sampled by timer ticks, and so is compared as a mean of all rounds. What a result does not hold is said to be
not measured: the cases of 5,000 and 10,000 connections are in a --full run only.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from report.looks import label, number, times
from report.results import Case, Result, Summary
from report.tables import markdown

BACKENDS = {"epoll": "epoll", "uring": "io_uring"}
WINDOWS = "Windows, under wine"
ECHO = "echo 14 B x {}".format

# ---- what a goal can be about: each takes a case, the server, and the server that it is compared with ----

Measure = Callable[[Case, str, str], Summary | None]


def ratio_of(figure: str | None = None) -> Measure:
    return lambda case, server, base: case.ratio(server, base, figure)


def figure_of(figure: str) -> Measure:
    return lambda case, server, base: case.servers[server].figures.get(figure)


def both(case: Case, figure: str, *names: str) -> list[Summary | None]:
    return [case.servers[name].figures.get(figure) for name in names]


def user_part(case: Case, server: str, base: str) -> Summary | None:
    """None where a round has none: with so few requests it fell between the ticks, and other rounds say nothing."""
    mine, others = both(case, "user_ns", server, base)
    return Summary(mine.middle / others.middle) if mine and others and mine.low and others.low else None


def kept(case: Case, server: str, base: str) -> Summary | None:
    """Of what the connections took, the part that is not given back. The case has one round."""
    left, full = (case.servers[server].figures.get(f"{figure}_per_connection") for figure in ("kept", "bytes"))
    return Summary(left.middle / full.middle) if left and full and full.middle else None


def more_calls(case: Case, server: str, base: str) -> Summary | None:
    """This case has one round too."""
    mine, others = both(case, "calls_per_echo", server, base)
    return Summary(mine.middle - others.middle) if mine and others else None


total, p50, p99 = ratio_of(), ratio_of("p50_us"), ratio_of("p99_us")
attaches, size = figure_of("attaches_per_packet"), figure_of("bytes_per_connection")


def ratio(value: float) -> str:
    """One digit more than on other pages: it is what parts 1.041 from a goal of 1.04."""
    return f"{value:.3f}×" if value < 10 else times(value)


def share(value: float) -> str:
    return f"{value:.1%}".replace("%", " %")


TEXTS: dict[Measure, Callable[[float], str]] = {  # of other measures: ratio
    attaches: number, size: number, kept: share, more_calls: "{:+.2f}".format,
}


@dataclass(frozen=True)
class Goal:
    title: str
    measure: Measure
    limit: float
    group: str
    case: str
    server: str  # {} stands for the backend
    base: str  # likewise; whom it is compared with, or the server itself
    unit: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """By what stands for {}, the name of the backend."""
        if "{}" in self.server:
            return BACKENDS
        return {"": WINDOWS if self.group == "wine" else BACKENDS["uring"]}

    def text(self, value: float) -> str:
        return TEXTS.get(self.measure, ratio)(value)

    @property
    def wanted(self) -> str:
        return f"<= {self.text(self.limit)} {self.unit}".rstrip()


def echoes(title: str, server: str, base: str, unit: str, limits: dict[int, float]) -> Iterator[Goal]:
    for connections, limit in limits.items():
        name = f"{title}, {connections:,} connections"
        yield Goal(name, total, limit, "echo", ECHO(connections), server, base, unit)


def fair(title: str, server: str) -> Iterator[Goal]:
    for case in FLOODS:
        for name, measure in (("p50", p50), ("p99", p99)):
            full = f"{title} {case.removeprefix('echo 14 B ')}, {name}"
            yield Goal(full, measure, 1, "fair", case, server, "uvloop", "uvloop")


def memory(title: str, server: str, limit: float) -> Iterator[Goal]:
    for connections in (1000, 10_000):
        case = f"{connections:,} idle connections"
        yield Goal(f"{title}, each of {case}", size, limit, "memory", case, server, server, "bytes")
        yield Goal(f"{title}, kept when {connections:,} have gone", kept, 0.1, "memory", case, server, server)


NATIVE, PYTHON, RAW_C = "iocpcore-{}", "python-{}", "c-{}"
SAME_BACKEND = "raw C of the same backend"
BUSY = "busy loop, 1,000 echoes a second"
FLOODS = [f"echo 14 B beside {count} that flood" for count in (1, 100)]
CHURN = "connect, echo, close"
CALLS = "calls per echo"
GOALS = [
    *echoes("native echo", NATIVE, RAW_C, SAME_BACKEND, {50: 1.02, 500: 1.04, 5000: 1.05}),
    *echoes("native echo", "iocpcore-uring", "c-epoll", "raw C on epoll", {50: 0.95, 500: 0.92}),
    *echoes("Python echo", PYTHON, RAW_C, SAME_BACKEND, {50: 1.05, 500: 1.10, 5000: 1.15}),
    *echoes("Python echo", PYTHON, "uvloop", "uvloop", {50: 0.87, 500: 0.92, 5000: 0.75}),
    *echoes("Python echo", PYTHON, "asyncio", "asyncio", {50: 0.70, 500: 0.75, 5000: 0.55}),
    Goal("Python echo, user part, 50 connections", user_part, 0.45, "echo", ECHO(50), PYTHON, "uvloop", "uvloop"),
    Goal("Python echo, 50 connections, the GIL taken", attaches, 0.5, "echo", ECHO(50), PYTHON, PYTHON, "a packet"),
    Goal(
        "native echo, p99 beside a busy loop in its process", p99, 1.1, "busy", BUSY, NATIVE, f"{NATIVE}, loop outside",
        "beside one in another process",
    ),
    *fair("native echo", NATIVE),
    *fair("Python echo", PYTHON),
    *memory("native session", NATIVE, 640),
    *memory("Python session", PYTHON, 1100),
    Goal("native, connect, echo, close", total, 1.1, "churn", CHURN, NATIVE, RAW_C, SAME_BACKEND),
    Goal("Python, connect, echo, close", total, 0.9, "churn", CHURN, PYTHON, "uvloop", "uvloop"),
    Goal("native, calls per echo", more_calls, 0.2, "wine", CALLS, "iocpcore-windows", "c-iocp", "beside raw C"),
    Goal("Python, calls per echo", more_calls, 0.2, "wine", CALLS, "python-windows", "c-iocp", "beside raw C"),
]


@dataclass(frozen=True)
class Outcome:
    """A goal on one backend, and what a run shows of it."""

    goal: Goal
    column: str
    found: Summary | None
    why_not: str = ""

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        return "reached" if self.found.middle <= self.goal.limit else "missed"

    @property
    def text(self) -> str:
        return f"{self.goal.text(self.found.middle)}, {self.verdict}" if self.found else self.verdict


def why_not(result: Result, goal: Goal, names: tuple[str, ...]) -> str:
    case = result.case(goal.group, goal.case)
    if case is None:
        return f"it has no case {goal.case!r}"
    absent, missing = set(names) - case.servers.keys(), result.run_of(goal.group).missing
    missing = [each for each in missing if each.server in absent and each.group in (None, goal.group)]
    reasons = [f"{label(each.server)}: {each.reason}" for each in missing]
    return "; ".join(reasons) or "its figures are not in the result, or too coarse"


def outcome(result: Result, goal: Goal, backend: str) -> Outcome:
    case, names = result.case(goal.group, goal.case), (goal.server.format(backend), goal.base.format(backend))
    found = goal.measure(case, *names) if case and all(name in case.servers for name in names) else None
    return Outcome(goal, goal.columns[backend], found, "" if found else why_not(result, goal, names))


def outcomes(result: Result, goal: Goal) -> list[Outcome]:
    return [outcome(result, goal, backend) for backend in goal.columns]


# ---- output ----


def table(result: Result) -> str:
    """For a page: a row for each goal, a column for each backend."""
    headings = [*BACKENDS.values(), WINDOWS]
    lines = [["", "goal", *headings]]
    for goal in GOALS:
        cells = {each.column: each.text for each in outcomes(result, goal)}
        lines.append([goal.title, goal.wanted.replace("<=", "≤"), *(cells.get(heading, "") for heading in headings)])
    return markdown(lines, "---")


def figure(of: Outcome) -> str:
    """The median, and the spread where there were rounds to spread over."""
    found, text = of.found, of.goal.text
    if found is None:
        return of.why_not
    spread = f" ({text(found.low)} to {text(found.high)})" if found.low != found.high else ""
    return text(found.middle) + spread


def lines(result: Result) -> Iterator[str]:
    found = [each for goal in GOALS for each in outcomes(result, goal)]
    names = [f"{each.goal.title}, {each.column}" for each in found]
    widths = max(map(len, names)), max(len(each.goal.wanted) for each in found)
    for name, each in zip(names, found, strict=True):
        yield f"{each.verdict:12}  {name:{widths[0]}}  {each.goal.wanted:{widths[1]}}  {figure(each)}"
    verdicts = [each.verdict for each in found]
    yield ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("reached", "missed", "not measured"))
