"""What the README promises."""

import re

from support import run_python


def test_the_example_runs_as_it_stands(pytestconfig):
    readme = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    output = run_python(example)
    assert "'mismatches': 0" in output
    assert "'echoes': 50000" in output
    assert "completion packets" in output
