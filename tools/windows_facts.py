"""Writes the tables of docs/windows.md from docs/windows_facts.toml, between the page's two marks."""

import re
import tomllib
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "windows.md"
BEGIN, END = "<!-- facts: made by tools/windows_facts.py -->", "<!-- facts: end -->"
COLUMNS = "fact", "what Windows does", "wine 8", "wine 10", "shown by", "relied on in"


def load():
    return tomllib.loads((DOCS / "windows_facts.toml").read_text(encoding="utf-8"))["fact"]


def linked(source):
    """A link named by the last word of a page's address, or by an issue's number. A source without address stays as is.
    """
    if not source.startswith("https:"):
        return source
    *_, owner, repository, kind, name = source.split("/")
    if kind in ("issues", "pull"):
        return f"[{owner}/{repository}#{name}]({source})"
    return f"[{re.sub(r'^n[a-z]-[a-z0-9]+-', '', name)}]({source})"


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def named(names):
    return "<br>".join(f"`{name}`" for name in names)


def fact_row(fact):
    known = "; ".join(map(linked, fact["sources"])) or "no source"
    shown = [named(fact["cases"])] if fact["cases"] else []
    shown += [f"simulated: `{fact['simulated']}`"] if fact["simulated"] else []
    shown += [f"not simulated: {fact['unsimulated']}"] if "unsimulated" in fact else []
    wine = ("as Windows" if answer == "same" else answer for answer in (fact["wine8"], fact["wine10"]))
    relied_on = named(fact["core"]) or "-"
    return row(f"`{fact['id']}`", f"{fact['fact']} ({known})", *wine, "<br>".join(shown) or "-", relied_on)


def tables(facts):
    """The page's tables: one for each group, in the file's order, and one of the facts that only Windows can tell."""
    lines = []
    for group, members in groupby(facts, key=lambda fact: fact["group"]):
        lines += ["", f"### {group}", "", row(*COLUMNS), row(*["---"] * len(COLUMNS)), *map(fact_row, members)]
    lines += ["", "## Unproven: only a real Windows can tell", "", row("fact", "why"), row("---", "---")]
    lines += [row(f"`{fact['id']}`", fact["unknown"]) for fact in facts if "unknown" in fact]
    return "\n".join(lines)


def made(page):
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables(load())}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
