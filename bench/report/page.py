"""The report of a result: one page, with all charts and figures."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from report import tables
from report.looks import LOOKS, label, split
from report.results import Result

if TYPE_CHECKING:  # matplotlib is needed only where something is drawn
    from report import charts

HERE = Path(__file__).resolve().parent


def section(result: Result, chart: charts.Chart) -> dict:
    """A chart with the figures of its group; those of all echoes stand below the first of their charts."""
    from report import charts

    shown = [tables.table(case) for case in result.group(chart.name)]
    made = tables.source(result.run_of(chart.group))
    return {"name": chart.name, "title": chart.title, "made": made, "svg": charts.svg(chart), "tables": shown}


def mark(server: str) -> str:
    server, _ = split(server)
    return f"var(--{server if server in LOOKS else 'other'})"


def html(result: Result) -> str:
    import jinja2

    from report import charts

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(label=label, mark=mark)
    return environment.get_template("report.html").render(
        runs=[(run, tables.facts(run)) for run in result.runs],
        date=max(run.date for run in result.runs),
        machines=list(dict.fromkeys(tables.machine(run) for run in result.runs)),
        missing=list(dict.fromkeys(each for run in result.runs for each in run.missing)),
        sections=[section(result, chart) for chart in charts.charts(result)],
        light=charts.variables(charts.LIGHT),
        dark=charts.variables(charts.DARK),
    )
