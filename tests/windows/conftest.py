"""These tests run on Linux, around wine: `tests/windows/run` without arguments begins with them."""

import subprocess
from pathlib import Path

import pytest

from support import WAIT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="session", autouse=True)
def windows_build():
    """settings.sh knows its folder: that depends on the compiler and on Python's version."""
    told = subprocess.run(
        ["bash", "-c", '. "$1/settings.sh" && echo "$build"', "bash", HERE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=WAIT,
    )
    folder = Path(told.stdout.strip())
    if not (folder / "site-packages").is_dir():
        pytest.skip(f"nothing is installed in {folder.relative_to(ROOT)}: tests/windows/install does that")
