"""tests/windows/watch: what bounds the suite under wine is silence, not time."""
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.uninstrumented,
    pytest.mark.skipif(sys.platform == "win32", reason="it runs on Linux, around wine"),
]
WATCH = Path(__file__).parent / "windows" / "watch"


def watch(seconds, script):
    return subprocess.run(
        [sys.executable, WATCH, str(seconds), "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )


def test_output_and_exit_status_are_passed_on():
    done = watch(60, "echo out; echo error >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\nerror\n")


def test_a_command_that_says_nothing_for_so_long_is_ended():
    """With what it started: a grandchild that held the output open would keep run() here waiting."""
    done = watch(1, "printf begun; sleep 600 & sleep 600")
    assert done.returncode == 124
    assert done.stdout.startswith("begun\n*** ENDED: 1 seconds without a word")


def test_a_command_that_closes_its_output_is_bounded_too():
    assert watch(1, "exec >&- 2>&-; sleep 600").returncode == 124


def test_what_the_command_leaves_behind_is_not_waited_for(tmp_path):
    go_on = tmp_path / "go on"
    try:
        done = watch(60, f"(while [ ! -e '{go_on}' ]; do sleep 0.1; done) & echo out; exit 3")
        assert (done.returncode, done.stdout) == (3, "out\n")
    finally:
        go_on.touch()
