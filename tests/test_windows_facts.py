"""The ledger of facts about Windows: the page is made from it, and what it names is there."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
tool = runpy.run_path(str(ROOT / "tools" / "windows_facts.py"))
FACTS = tool["load"]()
MAY_BE_MISSING = "unknown", "unsimulated"
every_fact = pytest.mark.parametrize("fact", FACTS, ids=[fact["id"] for fact in FACTS])


def missing(names, folder, pattern):
    """Of `file: function`, those whose file has no such line."""
    for name in names:
        file, function = name.split(": ")
        (path,) = (ROOT / folder).rglob(file)
        text = path.read_text(encoding="utf-8")
        if not re.search(pattern.format(re.escape(function)), text, re.MULTILINE):
            yield name


def test_the_page_is_made_from_the_facts():
    page = tool["PAGE"].read_text(encoding="utf-8")
    assert tool["made"](page) == page, "tools/windows_facts.py makes it anew"


def test_each_fact_has_a_name_of_its_own_and_stands_with_its_group():
    assert len({fact["id"] for fact in FACTS}) == len(FACTS)
    headings = re.findall(r"^### (.*)$", tool["tables"](FACTS), re.MULTILINE)
    assert len(set(headings)) == len(headings)


@every_fact
def test_a_fact_has_a_source_or_says_why_it_cannot_be_known(fact):
    assert fact["sources"] or fact["unknown"]
    assert all(source.startswith(("https://", "wine ", "libuv ", "Go ", "Microsoft's ")) for source in fact["sources"])


@every_fact
def test_a_fact_fits_into_a_row_of_a_table(fact):
    texts = [fact["fact"], fact["wine8"], fact["wine10"], *(fact.get(key, "") for key in MAY_BE_MISSING)]
    assert all("|" not in text and "\n" not in text for text in texts)
    assert set(fact) - set(MAY_BE_MISSING) == {
        "id", "group", "fact", "sources", "wine8", "wine10", "cases", "simulated", "core",
    }


@every_fact
def test_the_cases_that_show_a_fact_are_in_the_contract(fact):
    assert list(missing(fact["cases"], "tests/contract", r"^    CASE\({}\),$")) == []


@every_fact
def test_the_core_has_the_functions_that_rely_on_a_fact(fact):
    defined = r"^(cdef |def |static |#define |    cdef )[^;\n]*\b{}\b"
    assert list(missing(fact["core"], "iocpcore", defined)) == []


@every_fact
def test_what_the_core_relies_on_and_wine_does_otherwise_is_simulated_or_says_why_not(fact):
    shown = fact["wine8"] == "same" or fact["simulated"] or "unsimulated" in fact
    assert shown or not fact["core"]


@every_fact
def test_the_whim_that_shows_a_fact_is_the_simulations(fact):
    whims = (ROOT / "tests" / "simulation" / "simulated.h").read_text(encoding="utf-8")
    assert not fact["simulated"] or re.search(rf"^    {fact['simulated']},", whims, re.MULTILINE)
