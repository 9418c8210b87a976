"""What the README promises; the pages written by hand: their links, their lines."""

import re
from pathlib import Path

import pytest

from support import WORK, run_python

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "bench" / "README.md"])
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture
def examples(pytestconfig):
    readme = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", readme, re.DOTALL)


def test_the_first_program_is_that_of_the_examples(examples):
    """tests/test_examples.py runs it."""
    assert examples[0] == (ROOT / "examples" / "hello_server.py").read_text(encoding="utf-8")


def test_the_example_of_handlers_in_python_runs_as_it_stands(examples):
    output = run_python(examples[1])
    # Several threads print: another's text may come between the words of a line, and before its end.
    assert output.index("welcome") < output.index("Hello, IOCP!")
    assert "in a worker's thread" in output
    assert "closed" in output and "None" in output
    assert re.search(r"\('127.0.0.1', \d+\)", output)


def test_the_example_of_native_handlers_runs_as_it_stands(examples):
    output = run_python(examples[2], timeout=WORK)
    assert "'mismatches': 0" in output
    assert "'echoes': 50000" in output
    assert "completion packets" in output


def test_no_example_is_left_out(examples):
    assert len(examples) == 3


@every_page
def test_every_file_that_a_page_links_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r' (?:src|srcset)="([^"]+)"', text)
    assert [name for name in linked if ":" not in name and not (page.parent / name).exists()] == []


@every_page
def test_no_line_of_a_page_is_longer_than_120_characters(page):
    """But for rows of tables, which cannot be wrapped, and what the benchmark's report writes."""
    text = re.sub(r"<!-- bench:\w.*?<!-- bench:end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
