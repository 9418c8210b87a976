"""What the README promises."""

import re

import pytest

from support import run_python


@pytest.fixture
def examples(pytestconfig):
    readme = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", readme, re.DOTALL)


def test_the_example_of_native_handlers_runs_as_it_stands(examples):
    output = run_python(examples[0])
    assert "'mismatches': 0" in output
    assert "'echoes': 50000" in output
    assert "completion packets" in output


def test_the_example_of_handlers_in_python_runs_as_it_stands(examples):
    output = run_python(examples[1])
    # Several threads print: another's text may come between the words of a line, and before its end.
    assert output.index("welcome") < output.index("Hello, IOCP!")
    assert "in a worker's thread" in output
    assert "closed" in output and "None" in output
    assert re.search(r"\('127.0.0.1', \d+\)", output)


def test_no_example_is_left_out(examples):
    assert len(examples) == 2
