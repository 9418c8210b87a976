"""The charts of a result, by matplotlib: bars of cost, bars by message size, curves of latency.

Each function takes cases and a theme and returns a figure. In a web page the theme is the reader's choice: svg() turns
the colours into CSS variables. A picture is written once for light and once for dark pages.
"""
from __future__ import annotations

import io
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

from report.looks import LOOKS, OTHER, in_order, label, look, number, size, split, times
from report.results import PERCENTILE, Case, Result, Summary
from report.tables import base_label

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

WIDTH = 9.6  # inches
SYSTEM_PART = 0.5  # how opaque the system part of a bar is
SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "svg.hashsalt": "iocpcore",
}


@dataclass(frozen=True)
class Theme:
    name: str
    background: str
    text: str
    faint: str  # less important text
    grid: str

    def colour(self, server: str) -> str:
        return getattr(look(server), self.name)


LIGHT = Theme("light", "#ffffff", "#1f242b", "#626a75", "#e2e4e8")
DARK = Theme("dark", "#0d1117", "#e6e9ed", "#9aa2ad", "#2c323a")


def variables(theme: Theme) -> dict[str, str]:
    """Name and value of the CSS variables that svg() refers to. No two colours of the light theme may be equal."""
    chrome = {key: getattr(theme, key) for key in ("background", "text", "faint", "grid")}
    return chrome | {name: getattr(a_look, theme.name) for name, a_look in (*LOOKS.items(), ("other", OTHER))}


# ---- what all charts share ----


def blank(theme: Theme, rows: int, columns: int, height: float, **options) -> tuple[Figure, list[Axes]]:
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, layout="constrained", **options)
    figure.set_facecolor(theme.background)
    axes = list(grid.flat)
    for each in axes:
        each.set_facecolor("none")
        each.tick_params(colors=theme.faint, length=0)
        for spine in each.spines.values():
            spine.set_color(theme.grid)
    return figure, axes


def title(axes: Axes, text: str, theme: Theme) -> None:
    axes.set_title(text, color=theme.text, pad=8)


def note(figure: Figure, text: str, theme: Theme) -> None:
    figure.supxlabel(textwrap.fill(text, 130), fontsize=8, color=theme.faint, x=0.01, ha="left")


def behind(theme: Theme) -> dict[str, Any]:
    """A text's box that hides the line it lies on."""
    return {"boxstyle": "square,pad=0.1", "facecolor": theme.background, "edgecolor": "none"}


def servers_of(cases: Sequence[Case]) -> list[str]:
    return in_order({name for case in cases for name in case.servers})


# ---- bars of cost, a panel a case ----


def user_share(case: Case, name: str) -> float | None:
    """The user part of the total."""
    user, system = (case.servers[name].figures.get(figure) for figure in ("user_ns", "system_ns"))
    if case.figure != "total_ns" or not user or not system or not user.middle + system.middle:
        return None
    return user.middle / (user.middle + system.middle)


def draw_bar(axes: Axes, row: int, case: Case, name: str, theme: Theme) -> Summary:
    cost, share, colour = case.cost(name), user_share(case, name), theme.colour(name)
    user = cost.middle * (1 if share is None else share)
    axes.barh(row, user, 0.68, color=colour)
    axes.barh(row, cost.middle - user, 0.68, left=user, color=colour, alpha=SYSTEM_PART)
    if case.rounds > 1:
        axes.plot([cost.low, cost.high], [row, row], color=theme.text, linewidth=1, solid_capstyle="butt")
    return cost


def bar_text(case: Case, name: str, cost: Summary) -> str:
    ratio = case.ratio(name)
    return number(cost.middle) + (f"   {times(ratio.middle)}" if ratio and name != case.base_of(name) else "")


def panel(axes: Axes, case: Case, names: list[str], theme: Theme, labelled: bool) -> None:
    costs = {name: draw_bar(axes, row, case, name, theme) for row, name in enumerate(names) if name in case.servers}
    far = max(cost.high for cost in costs.values())
    for row, name in enumerate(names):
        if name in costs:
            text, at = bar_text(case, name, costs[name]), costs[name].high + far * 0.02
            axes.text(at, row, text, va="center", fontsize=8, color=theme.text, bbox=behind(theme))
    if case.reference in costs:
        axes.axvline(costs[case.reference].middle, color=theme.faint, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    bar_axes(axes, far, [label(name) if labelled else "" for name in names], theme)
    title(axes, case.name, theme)


def bar_axes(axes: Axes, far: float, labels: list[str], theme: Theme) -> None:
    axes.set_xlim(0, far * 1.38)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", labelcolor=theme.text)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def bars(cases: Sequence[Case], theme: Theme) -> Figure:
    """The figure of each case: user and system part where they are known, and a line from the lowest to the highest."""
    cases = [case for case in cases if case.servers]
    columns = min(2, len(cases))
    rows, names = math.ceil(len(cases) / columns), servers_of(cases)
    figure, axes = blank(theme, rows, columns, rows * (0.27 * len(names) + 0.55) + 0.35)
    for index, (case, each) in enumerate(zip(cases, axes, strict=False)):
        panel(each, case, names, theme, labelled=index % columns == 0)
    for each in axes[len(cases) :]:
        each.set_visible(False)
    note(figure, bars_note(cases), theme)
    return figure


def bars_note(cases: Sequence[Case]) -> str:
    units = list(dict.fromkeys(case.units[case.figure] for case in cases))
    parts = [" or ".join(units) + (", higher is better" if cases[0].better == "higher" else ", lower is better")]
    if any(user_share(case, name) is not None for case in cases for name in case.servers):
        parts.append("strong colour: user, pale: system")
    parts.append("thin line: lowest to highest round")
    if len(references := {case.reference for case in cases} - {None}) == 1:
        parts.append(f"dashes: {label(references.pop())}; ×: ratio to {base_label(cases[0])}")
    return "; ".join(parts)


# ---- bars by message size ----


def by_size(cases: Sequence[Case], theme: Theme) -> Figure:
    """The ratio to the base, a group of bars for each message size, a row for each number of connections."""
    counted = Counter(case.parameters["connections"] for case in cases)
    counts = sorted(count for count, sizes in counted.items() if sizes > 1)
    sizes = sorted({case.parameters["size"] for case in cases})
    names = servers_of(cases)
    figure, axes = blank(theme, len(counts), 1, 1.75 * len(counts) + 0.8)
    for each, count in zip(axes, counts, strict=True):
        chosen = {case.parameters["size"]: case for case in cases if has(case, connections=count)}
        size_row(each, [chosen.get(s) for s in sizes], names, theme)
        each.set_xticks(range(len(sizes)), [size(s) if s in chosen else "" for s in sizes])
        title(each, f"{count:,} connection{'s' if count > 1 else ''}", theme)
    legend(figure, names, theme)
    bases = ", ".join(sorted({label(case.reference) for case in cases if case.reference}))
    note(figure, f"server CPU per request as a multiple of {bases}, lower is better", theme)
    return figure


def size_row(axes: Axes, cases: Sequence[Case | None], names: list[str], theme: Theme) -> None:
    width, top = 0.88 / len(names), 1.0
    for group, case in enumerate(cases):
        for place, name in enumerate(names):
            ratio = case.ratio(name, base=case.reference) if case else None
            if not ratio:
                continue
            at = group + (place - (len(names) - 1) / 2) * width
            axes.bar(at, ratio.middle, width * 0.9, color=theme.colour(name))
            axes.annotate(
                f"{ratio.middle:.2f}", (at, ratio.middle), (0, 4), textcoords="offset points", ha="center",
                fontsize=6.4, color=theme.text, bbox=behind(theme),
            )
            top = max(top, ratio.middle)
    axes.axhline(1, color=theme.faint, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
    axes.tick_params(axis="x", labelcolor=theme.text)
    axes.set_xlim(-0.5, len(cases) - 0.5)
    axes.set_ylim(0, top * 1.16)
    axes.yaxis.set_major_locator(matplotlib.ticker.MultipleLocator(0.5 if top < 2.2 else math.ceil(top / 4)))
    axes.grid(axis="y", color=theme.grid, linewidth=0.7)
    axes.spines["left"].set_visible(False)


def legend(figure: Figure, names: list[str], theme: Theme) -> None:
    patches = [matplotlib.patches.Patch(color=theme.colour(name), label=label(name)) for name in names]
    figure.legend(
        handles=patches, loc="outside upper left", ncols=5, frameon=False, labelcolor=theme.text, fontsize=8,
        handlelength=1, handleheight=1, columnspacing=1.4,
    )


# ---- curves of latency ----


def percentiles(case: Case) -> dict[str, float]:
    """{figure: per cent} of those that every server has: p50_us is 50, p999_us is 99.9."""
    found = {}
    for figure in case.units:
        digits = PERCENTILE.fullmatch(figure)
        if digits and all(figure in server.figures for server in case.servers.values()):
            found[figure] = float(f"{digits[1]}.{digits[2] or 0}")
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def apart(values: list[float], gap: float) -> list[float]:
    """The values, moved as little as it takes for each to lie a gap from the next; in the order given."""
    order = sorted(range(len(values)), key=values.__getitem__)
    heaps: list[list[float]] = []  # neighbours that must move as one, each less the gaps below it: around their mean
    for place, index in enumerate(order):
        heaps.append([values[index] - place * gap])
        while len(heaps) > 1 and fmean(heaps[-2]) > fmean(heaps[-1]):
            heaps[-2:] = [heaps[-2] + heaps[-1]]
    moved = [fmean(heap) for heap in heaps for _ in heap]
    return [moved[order.index(i)] + order.index(i) * gap for i in range(len(values))]


def draw_line(axes: Axes, line: list[Summary], shift: float, colour: str) -> None:
    """Medians, and from the lowest to the highest round beside each, so that ranges do not hide each other."""
    axes.plot(range(len(line)), [s.middle for s in line], color=colour, linewidth=1.8, marker="o", markersize=3.5)
    beside = [place + shift for place in range(len(line))]
    axes.vlines(beside, [s.low for s in line], [s.high for s in line], color=colour, linewidth=0.8, alpha=0.6)


def milliseconds(us: float, _: int = 0) -> str:
    return f"{us:g} µs" if us < 1000 else f"{us / 1000:g} ms"


def scale(axes: Axes, theme: Theme) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axes.yaxis.set_major_formatter(milliseconds)
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.grid(axis="y", color=theme.grid, linewidth=0.7)
    axes.spines["left"].set_visible(False)


def label_lines(axes: Axes, lines: dict[str, list[Summary]], theme: Theme) -> None:
    """At their ends, moved apart, with a thin line from each end to its label."""
    low, high = axes.get_ylim()
    last = max(len(line) for line in lines.values()) - 1
    ends = [math.log10(line[-1].middle) for line in lines.values()]
    for (name, line), end in zip(lines.items(), apart(ends, math.log10(high / low) * 0.058), strict=True):
        axes.plot((last + 0.08, last + 0.2), (line[-1].middle, 10**end), color=theme.colour(name), linewidth=0.8)
        text = f"{label(split(name)[0])}  {milliseconds(float(f'{line[-1].middle:.3g}'))}"
        axes.text(last + 0.22, 10**end, text, va="center", fontsize=8, color=theme.text, bbox=behind(theme))


def latency_panel(axes: Axes, case: Case, names: list[str], theme: Theme, room: float) -> None:
    shares = percentiles(case)
    lines = {name: [case.servers[name].figures[figure] for figure in shares] for name in names}
    for place, (name, line) in enumerate(lines.items()):
        draw_line(axes, line, (place - (len(lines) - 1) / 2) * 0.014, theme.colour(name))
    scale(axes, theme)
    label_lines(axes, lines, theme)
    axes.set_xlim(-0.12, len(shares) * room - 1)
    axes.set_xticks(range(len(shares)), [f"p{share:g}" for share in shares.values()])
    variant = split(names[0])[1]
    title(axes, f"{case.name}; {variant}" if variant else case.name, theme)


def latency(cases: Sequence[Case], theme: Theme) -> Figure:
    """The percentiles of each server, a panel a case; servers that ran in another way have a panel of their own."""
    panels = []
    for case in (case for case in cases if percentiles(case)):
        for variant in sorted({split(name)[1] for name in case.servers}):
            panels.append((case, [name for name in in_order(case.servers) if split(name)[1] == variant]))
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = blank(theme, rows, columns, 3.6 * rows + 0.3, sharey=True)
    for (case, names), each in zip(panels, axes, strict=False):
        latency_panel(each, case, names, theme, room=1.22 if columns == 1 else 1.55)
    for each in axes[len(panels) :]:
        each.set_visible(False)
    note(figure, "latency by percentile, medians of the rounds; thin lines: lowest to highest round", theme)
    return figure


# ---- one server in many cases ----


def list_of(cases: Sequence[Case], theme: Theme) -> Figure:
    """Cases that have one server each: a bar a case."""
    figure, (axes,) = blank(theme, 1, 1, 0.27 * len(cases) + 0.6)
    costs = [draw_bar(axes, row, case, *case.servers, theme) for row, case in enumerate(cases)]
    far = max(cost.high for cost in costs)
    for row, cost in enumerate(costs):
        axes.text(cost.high + far * 0.02, row, number(cost.middle), va="center", fontsize=8, color=theme.text)
    bar_axes(axes, far, [case.name for case in cases], theme)
    note(figure, bars_note(cases), theme)
    return figure


# ---- the charts of a result ----


@dataclass(frozen=True)
class Chart:
    name: str
    group: str
    title: str
    draw: Callable[[Theme], Figure]


def has(case: Case, **wanted) -> bool:
    return all(case.parameters.get(key) == value for key, value in wanted.items())


def smallest(cases: Sequence[Case]) -> list[Case]:
    """Those of the smallest message, by connections: the main figures."""
    least = min((case.parameters["size"] for case in cases), default=0)
    return sorted((c for c in cases if has(c, size=least)), key=lambda c: c.parameters["connections"])


def echo_charts(result: Result) -> list[Chart]:
    cases = [case for case in result.group("echo") if {"size", "connections", "pipeline"} <= case.parameters.keys()]
    plain = [case for case in cases if has(case, pipeline=1)]
    piped = [case for case in cases if not has(case, pipeline=1)]
    found = []
    if plain:
        found.append(Chart("echo", "echo", "CPU per request", lambda theme: bars(smallest(plain), theme)))
    if len(plain) > len({case.parameters["connections"] for case in plain}):
        found.append(Chart("sizes", "echo", "CPU per request by message size", lambda theme: by_size(plain, theme)))
    if piped:
        heading = "CPU per request, pipelined"
        found.append(Chart("pipelined", "echo", heading, lambda theme: bars(smallest(piped), theme)))
    return found


GROUPS = {
    "latency": "Latency at a fixed rate",
    "busy": "Latency with a Python loop busy in the process",
    "fair": "Latency beside connections that flood",
    "churn": "Connect, echo, close",
    "memory": "Memory of an idle connection",
    "bulk": "Bulk sending with back-pressure",
    "broadcast": "Broadcast",
    "two-writes": "Two writes an answer",
    "idle-burst": "Idle, then a burst",
    "start": "Start-up and import",
    "micro": "Without sockets",
    "wine": "Calls per echo under wine",
    "load": "The load generator beside another",
}


def group_chart(result: Result, group: str) -> Chart | None:
    cases = result.group(group)
    if not cases:
        return None
    heading = GROUPS.get(group, group)
    if any(percentiles(case) and case.figure in percentiles(case) for case in cases):
        return Chart(group, group, heading, lambda theme: latency(cases, theme))
    if len(cases) > 1 and all(len(case.servers) == 1 for case in cases):
        return Chart(group, group, heading, lambda theme: list_of(cases, theme))
    return Chart(group, group, heading, lambda theme: bars(cases, theme))


def charts(result: Result) -> list[Chart]:
    groups = dict.fromkeys([*GROUPS, *(case.group for case in result.cases)])
    others = [group_chart(result, group) for group in groups if group != "echo"]
    return echo_charts(result) + [chart for chart in others if chart]


# ---- as files ----


def svg(chart: Chart) -> str:
    """An element for a web page, with the colours as CSS variables and no background."""
    target = io.StringIO()
    with plt.rc_context(SETTINGS):
        figure = chart.draw(LIGHT)
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    for name, colour in variables(LIGHT).items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r'<svg([^>]*?) width="[^"]*"', r'<svg\1 role="img"', re.sub(r' height="[^"]*pt"', "", text, count=1))


def png(chart: Chart, theme: Theme, path: Path, description: str = "") -> None:
    with plt.rc_context(SETTINGS):
        figure = chart.draw(theme)
        figure.savefig(path, dpi=200, facecolor=theme.background, metadata={"Description": description})
        plt.close(figure)
