"""Shows, compares and publishes the results of the suite.

    python bench/report html FILE [RESULT]  one self-contained page
    python bench/report goals [RESULT]      the goals of the project, and which of them a result reaches
    python bench/report compare OLD NEW     what got better or worse, and whether that is more than noise
    python bench/report publish RESULT      writes bench/report/published.json, README and docs
    python bench/report check               fails where README or docs say something else than the published result

Where no RESULT is named, it is the published one.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # `python bench/report` looks for modules in this folder, but they are looked for from bench/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from report import compare, goals, page, quoted  # noqa: E402
from report.results import Invalid, document, load, write  # noqa: E402


def html(options: argparse.Namespace) -> None:
    options.file.write_text(page.html(load(options.result)), encoding="utf-8")


def publish(options: argparse.Namespace) -> None:
    """The groups of the result take the place of those that were published before; the others stay."""
    old = load(quoted.PUBLISHED)
    result = old.renewed(load(options.result))
    new = document(result)
    quoted.fill(result)
    write(new, quoted.PUBLISHED)
    compare.print_names("no longer published", compare.only_in(old, result))


def check(options: argparse.Namespace) -> None:
    if stale := quoted.stale(load(quoted.PUBLISHED)):
        sys.exit("\n".join(["not in line with the published result; `python bench/report publish` it again:", *stale]))


def show_goals(options: argparse.Namespace) -> None:
    print("\n".join(goals.lines(load(options.result))))


def compare_two(options: argparse.Namespace) -> None:
    old, new = load(options.old), load(options.new)
    found = list(compare.changes(old, new, options.figure, options.least))
    if not found:
        sys.exit("compare: the two have nothing in common")
    compare.print_table(found, options.all)
    compare.print_names("only in the old one", compare.only_in(old, new))
    compare.print_names("only in the new one", compare.only_in(new, old))
    if options.fail_on_worse and any(change.verdict == "worse" for change in found):
        sys.exit(1)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bench/report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, *paths: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name)
        added.set_defaults(run=run)
        for path in paths:
            added.add_argument(path, type=Path)
        return added

    for each in (command("html", html, "file"), command("goals", show_goals)):
        each.add_argument("result", type=Path, nargs="?", default=quoted.PUBLISHED)
    command("publish", publish, "result")
    command("check", check)
    comparison = command("compare", compare_two, "old", "new")
    comparison.add_argument("--all", action="store_true", help="also what is the same")
    comparison.add_argument("--figure", help="such as p50_us: of latency cases alone")
    least = f"a smaller change is none (default: {compare.LEAST})"
    comparison.add_argument("--least", type=float, default=compare.LEAST, help=least)
    comparison.add_argument("--fail-on-worse", action="store_true", help="exit status 1 if something is worse")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        options.run(options)
    except (Invalid, quoted.Unknown) as problem:
        sys.exit(f"report: {problem}")
    except ModuleNotFoundError as missing:
        sys.exit(f"report: {missing.name} is not here; pip install '.[bench]' brings what draws and writes the report")


if __name__ == "__main__":
    main()
