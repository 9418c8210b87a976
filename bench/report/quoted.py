"""What README and docs quote from a result stands between marks, and is written by a program:

    <!-- bench:figure echo -->            a chart, with the command that made it, and its date; a block of its own
    <!-- bench:table echo -->             a table of a group: server by case, or case by server
    <!-- bench:goals -->                  the goals, and which of them the result reaches: goals.py
    <!-- bench:busy -->                   each server beside a busy loop in another process, and in its own
    <!-- bench:where calls -->            what an echo's time goes into, of where.json: bench/where.py
    <!-- bench:timers -->                 how late a time limit strikes, of timers.json: bench/timers.py
    <!-- bench:source -->                 when, where and how the figures were made: a line for each run
    <!-- bench:ratio echo | echo 14 B x 50 | python-epoll | uvloop -->    within a sentence; | p50_us: of that figure
    <!-- bench:value memory | 1,000 idle | uvloop -->                     likewise

and each of these ends with <!-- bench:end -->. What stands between is replaced.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from report import goals, tables
from report.looks import in_order, label, number, split, times
from report.results import Case, Result, case_document

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PUBLISHED = HERE / "published.json"
WHERE = HERE / "where.json"
TIMERS = HERE / "timers.json"
END = "<!-- bench:end -->"
MARKED = re.compile(rf"(<!-- bench:(\w+)([^>]*?) -->)(.*?)({re.escape(END)})", re.DOTALL)


class Unknown(Exception):
    """A mark asks for what the result does not have."""


def found(value, what: str):
    if value is None:
        raise Unknown(f"the result has no {what}")
    return value


# ---- what may be asked for: each takes the result, the mark's words and the file it stands in ----


def source(result: Result, words: list[str], page: Path) -> str:
    """Of each run, with its groups where there are several runs."""
    made = [tables.source(run) for run in result.runs]
    if len(made) > 1:
        made = [f"{', '.join(run.groups)}: {text}" for run, text in zip(result.runs, made, strict=True)]
    return "\\\n".join(made)


def figure(result: Result, words: list[str], page: Path) -> str:
    name = words[0]
    made = tables.source(result.run_of(found(group_of(result, name), f"chart {name!r}")))
    light, dark = (from_page(picture(name, theme, page_root(page)), page) for theme in ("light", "dark"))
    if belongs_to_sphinx(page):  # which copies only the pictures that it knows of
        images = "".join(
            f"```{{image}} {path}\n:class: only-{theme}\n:alt: {ALT}\n```\n"
            for theme, path in (("light", light), ("dark", dark))
        )
        return f"\n{images}\n{made}\n"
    dark_source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    image = f'<img alt="{ALT}" src="{light}">'
    return f"\n<picture>\n{dark_source}\n{image}\n</picture>\n\n{made}\n"


ALT = "A chart; its figures are in bench/report/published.json"


def cell(case: Case, name: str) -> str:
    if name not in case.servers:
        return "–"
    ratio = case.ratio(name)
    return number(case.cost(name).middle) + (f" ({times(ratio.middle)})" if ratio else "")


MOST_COLUMNS = 10  # with more cases than that, the servers are the columns


def grid(cases: list[Case]) -> list[list[str]]:
    """Server by case; case by server where there are many cases."""
    lines = [["", *(case.name for case in cases)]]
    for name in in_order({name for case in cases for name in case.servers}):
        lines.append([label(name), *(cell(case, name) for case in cases)])
    if len(cases) > MOST_COLUMNS:
        lines = [list(column) for column in zip(*lines, strict=True)]
    return lines


def table(result: Result, words: list[str], page: Path) -> str:
    cases = found(result.group(words[0]) or None, f"group {words[0]!r}")
    units = " or ".join(dict.fromkeys(case.units[case.figure] for case in cases))
    counts = sorted({case.rounds for case in cases})
    rounds = " or ".join(map(str, counts)) + (" rounds" if counts[-1] > 1 else " round")
    bases = " or ".join(dict.fromkeys(tables.base_label(case) for case in cases))
    rows = tables.markdown(grid(cases))
    lines = [f"{units}; medians of {rounds}, in brackets the ratio to {bases}", *absent(result, cases)]
    return f"\n{rows}\n\n" + "\\\n".join(lines) + "\n"


def beside(case: Case, name: str) -> list[str]:
    """The median latency, and what 99 % are within."""
    figures = case.servers[name].figures if name in case.servers else {}
    return [tables.middle(figures.get(key)) for key in ("p50_us", "p99_us")]


def busy(result: Result, words: list[str], page: Path) -> str:
    """A row for each server: what it is compared with is itself, so both stand in it."""
    (case, *_) = cases = found(result.group("busy") or None, "group 'busy'")
    headings = [f"loop {where}: {key}" for where in ("in another process", "in its process") for key in ("p50", "p99")]
    lines = [["", *headings, "ratio of the p99"]]
    for name in in_order({split(name)[0] for name in case.servers}):
        ratio = case.ratio(name, f"{name}, loop outside")
        row = [label(name), *beside(case, f"{name}, loop outside"), *beside(case, name)]
        lines.append([*row, tables.middle(ratio, times)])
    rows = tables.markdown(lines)
    note = f"{case.name}; us, medians of {case.rounds} rounds; ratios are taken round by round"
    return f"\n{rows}\n\n" + "\\\n".join([note, *absent(result, cases)]) + "\n"


def absent(result: Result, cases: list[Case]) -> Iterator[str]:
    """A line for each server that is in none of the group's cases, though it was to be measured."""
    shown = {split(name)[0] for case in cases for name in case.servers}
    groups = {cases[0].group} | ({None} if "c-epoll" in shown else set())  # under wine there are others
    for missing in result.run_of(cases[0].group).missing:
        if missing.group in groups and missing.server not in shown:
            yield f"not measured: {label(missing.server)}: {missing.reason}"


def all_goals(result: Result, words: list[str], page: Path) -> str:
    return f"\n{goals.table(result)}\n"


def counted(result: Result, words: list[str], page: Path) -> str:
    """Counts do not depend on the run: they have a file of their own."""
    columns = json.loads(WHERE.read_text(encoding="utf-8"))[words[0]]
    return f"\n{tables.by_column(columns, {name: label(name) for name in columns})}\n"


def late(result: Result, words: list[str], page: Path) -> str:
    """So has this."""
    return f"\n{tables.by_column(json.loads(TIMERS.read_text(encoding='utf-8')), {})}\n"


def case_of(result: Result, words: list[str]) -> Case:
    return found(result.case(words[0], words[1]), f"case {words[1]!r} in group {words[0]!r}")


def ratio(result: Result, words: list[str], page: Path) -> str:
    group_and_case, (name, base, *which) = words[:2], words[2:]
    summary = case_of(result, group_and_case).ratio(name, base, *which)
    return times(found(summary, f"ratio of {name} to {base} in {words[1]!r}").middle)


def value(result: Result, words: list[str], page: Path) -> str:
    case, (name, *which) = case_of(result, words), words[2:]
    server = found(case.servers.get(name), f"{name} in {words[1]!r}")
    summary = server.figures.get(which[0] if which else case.figure)
    return number(found(summary, f"{words[3:]} of {name} in {words[1]!r}").middle)


KINDS: dict[str, Callable[[Result, list[str], Path], str]] = {
    "busy": busy,
    "figure": figure,
    "goals": all_goals,
    "ratio": ratio,
    "source": source,
    "table": table,
    "timers": late,
    "value": value,
    "where": counted,
}


# ---- pages and pictures ----


def from_page(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()


def page_root(page: Path) -> Path:
    """The checkout that the page belongs to."""
    return next(folder for folder in page.parents if (folder / "README.md").exists() and (folder / "docs").exists())


def belongs_to_sphinx(page: Path) -> bool:
    return page.parent == page_root(page) / "docs"


def picture(name: str, theme: str, root: Path) -> Path:
    return root / "docs" / "figures" / f"{name}-{theme}.png"


def pages(root: Path) -> Iterator[Path]:
    yield from (path for path in (root / "README.md", root / "bench" / "README.md") if path.exists())
    yield from sorted((root / "docs").rglob("*.md"))


def filled(text: str, result: Result, page: Path) -> str:
    def replace(match: re.Match[str]) -> str:
        mark, kind, words, _, end = match.groups()
        if kind not in KINDS:
            raise Unknown(f"{page.name}: no mark is called bench:{kind}")
        try:
            return mark + KINDS[kind](result, [word.strip() for word in words.split("|")], page) + end
        except (Unknown, ValueError, IndexError) as problem:
            raise Unknown(f"{page.name}: {mark}: {problem}") from None

    return MARKED.sub(replace, text)


def figures(root: Path) -> set[str]:
    """The names of the charts that some page shows."""
    marks = (match for page in pages(root) for match in MARKED.finditer(page.read_text(encoding="utf-8")))
    return {match[3].strip() for match in marks if match[2] == "figure"}


def group_of(result: Result, chart: str) -> str | None:
    """The group that a chart shows: most charts are called like it."""
    group = {"sizes": "echo", "pipelined": "echo"}.get(chart, chart)
    return group if result.group(group) else None


def digest(result: Result, chart: str) -> str:
    """Stands in each picture: which figures it shows."""
    cases = [case_document(case) for case in result.group(group_of(result, chart) or "")]
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def is_stale(result: Result, chart: str, path: Path) -> bool:
    return not path.exists() or digest(result, chart).encode() not in path.read_bytes()


def draw(result: Result, root: Path) -> None:
    """The pictures whose figures have changed."""
    for name in sorted(figures(root)):
        paths = {theme: picture(name, theme, root) for theme in ("light", "dark")}
        if any(is_stale(result, name, path) for path in paths.values()):
            from report import charts

            chart = found({chart.name: chart for chart in charts.charts(result)}.get(name), f"chart {name!r}")
            for theme in (charts.LIGHT, charts.DARK):
                paths[theme.name].parent.mkdir(parents=True, exist_ok=True)
                charts.png(chart, theme, paths[theme.name], digest(result, name))


def fill(result: Result, root: Path = ROOT) -> None:
    """Every page and picture, from this result; none if a page asks for what it does not have."""
    new = {page: filled(page.read_text(encoding="utf-8"), result, page) for page in pages(root)}
    draw(result, root)
    for page, text in new.items():
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")


def stale(result: Result, root: Path = ROOT) -> list[str]:
    """The pages and pictures that say something else than this result."""
    old = [page for page in pages(root) if filled(text := page.read_text(encoding="utf-8"), result, page) != text]
    for name in sorted(figures(root)):
        paths = [picture(name, theme, root) for theme in ("light", "dark")]
        old += [path for path in paths if is_stale(result, name, path)]
    return [path.relative_to(root).as_posix() for path in old]
