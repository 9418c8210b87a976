"""What type checkers see of handlers and options: mypy on the programs in tests/typed, a right one and a wrong one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import WORK

pytest.importorskip("mypy", reason="mypy is not installed here; tools/prepare does that")
pytestmark = pytest.mark.uninstrumented
PROGRAMS = Path(__file__).parent / "typed"
MISTAKES = {
    number: line.rpartition("  # ")[2]
    for number, line in enumerate((PROGRAMS / "wrong.py").read_text(encoding="utf-8").splitlines(), 1)
    if "  # " in line
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """{(program, line): the codes of mypy's errors there}."""
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path_factory.mktemp('mypy')}"]
    command = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    run = subprocess.run(command, cwd=PROGRAMS, capture_output=True, text=True, timeout=WORK)
    found = {}
    for program, line, code in re.findall(r"^(\w+\.py):(\d+): error: .* \[([\w-]+)\]$", run.stdout, re.MULTILINE):
        found.setdefault((program, int(line)), set()).add(code)
    assert f"Found {run.stdout.count(': error: ')} errors in" in run.stdout, run.stdout + run.stderr
    return found


def test_a_right_program_has_no_errors(errors):
    assert [place for place in errors if place[0] != "wrong.py"] == []


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_seen_where_it_is_made(errors, line):
    assert errors.get(("wrong.py", line)) == {MISTAKES[line]}


def test_what_is_no_mistake_is_not_taken_for_one(errors):
    assert {line for program, line in errors if program == "wrong.py"} <= MISTAKES.keys()
