"""Turns a result into pages: HTML, pictures, and the figures that README and docs quote.

    python bench/report.py result.json --html report.html     one self-contained page
    python bench/report.py result.json --png DIR              the charts, each for light and for dark pages
    python bench/report.py result.json --readme               publishes it: bench/published.json, README and docs
    python bench/report.py --check                            fails where README or docs say something else than that
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import quoted
import tables
from looks import LOOKS, label, split
from results import Invalid, Run, load, save

if TYPE_CHECKING:  # matplotlib is needed only where something is drawn
    import charts

HERE = Path(__file__).resolve().parent


def section(run: Run, chart: charts.Chart) -> dict:
    """A chart with the figures of its group; those of all echoes stand below the first of their charts."""
    import charts

    shown = [tables.table(case) for case in run.group(chart.name)]
    return {"name": chart.name, "title": chart.title, "svg": charts.svg(chart), "tables": shown}


def mark(server: str) -> str:
    server, _ = split(server)
    return f"var(--{server if server in LOOKS else 'other'})"


def html(run: Run) -> str:
    import jinja2

    import charts

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
    import charts

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts.charts(run):
        for theme in (charts.LIGHT, charts.DARK):
            written.append(directory / f"{chart.name}-{theme.name}.png")
            charts.png(chart, theme, written[-1])
    return written


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, nargs="?", default=quoted.PUBLISHED)
    parser.add_argument("--html", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="DIR")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if not (options.html or options.png or options.readme or options.check):
        parser.error("nothing to do: give --html, --png, --readme or --check")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        run = load(options.result)
        if options.html:
            options.html.write_text(html(run), encoding="utf-8")
        if options.png:
            pictures(run, options.png)
        if options.readme:
            save(run, quoted.PUBLISHED)
            quoted.fill(run)
        if options.check and (stale := quoted.stale(run)):
            sys.exit("\n".join(["not in line with the result, run `python bench/report.py --readme` again:", *stale]))
    except (Invalid, quoted.Unknown) as problem:
        sys.exit(f"report: {problem}")
    except ModuleNotFoundError as missing:
        sys.exit(f"report: {missing.name} is not here; what pip install '.[bench]' brings draws and writes the report")


if __name__ == "__main__":
    main()
