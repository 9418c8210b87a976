"""The report of a result: a page, and pictures."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from report import tables
from report.looks import LOOKS, label, split
from results import Run

if TYPE_CHECKING:  # matplotlib is needed only where something is drawn
    from report import charts

HERE = Path(__file__).resolve().parent


def section(run: Run, chart: charts.Chart) -> dict:
    """A chart with the figures of its group; those of all echoes stand below the first of their charts."""
    from report import charts

    shown = [tables.table(case) for case in run.group(chart.name)]
    return {"name": chart.name, "title": chart.title, "svg": charts.svg(chart), "tables": shown}


def mark(server: str) -> str:
    server, _ = split(server)
    return f"var(--{server if server in LOOKS else 'other'})"


def html(run: Run) -> str:
    import jinja2

    from report import charts

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(label=label, mark=mark)
    return environment.get_template("report.html").render(
        run=run,
        machine=tables.machine(run),
        facts=tables.facts(run),
        sections=[section(run, chart) for chart in charts.charts(run)],
        light=charts.variables(charts.LIGHT),
        dark=charts.variables(charts.DARK),
    )


def pictures(run: Run, directory: Path) -> list[Path]:
    from report import charts

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts.charts(run):
        for theme in (charts.LIGHT, charts.DARK):
            written.append(directory / f"{chart.name}-{theme.name}.png")
            charts.png(chart, theme, written[-1])
    return written
