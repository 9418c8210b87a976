"""The benchmark suite: that each part of it runs, and that it does not let a server pass that loses a byte."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import WAIT

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
BROKEN = Path(__file__).with_name("broken_server.py")


def why_not():
    if not sys.platform.startswith("linux"):
        return "the suite runs on Linux"
    if not BENCH.exists():
        return "the suite is not here"
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "the suite needs a C compiler"
    return None


pytestmark = [pytest.mark.uninstrumented, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture
def run(tmp_path):
    """Run a part of the suite, as small as can be: its exit status, its output, and the result it has saved, or None."""

    def run(*arguments):
        saved = tmp_path / "result.json"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rounds=2", f"--save={saved}", "--cpus=any"]
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=4 * WAIT
        )
        document = json.loads(saved.read_text()) if saved.exists() else None
        return done.returncode, done.stdout + done.stderr, document

    return run


def test_a_run_says_what_each_server_spends_and_saves_it(run):
    status, output, document = run(BENCH / "test_echo.py", "--requests=500", "--servers=c-epoll,iocpcore-epoll")
    assert status == 0, output
    case = next(case for case in document["cases"] if case["name"] == "echo 14 B x 50")
    assert [len(server["rounds"]) for server in case["servers"].values()] == [2, 2]
    assert case["servers"]["iocpcore-epoll"]["base"] == "c-epoll"
    assert all(figures["total_ns"] > 0 for server in case["servers"].values() for figures in server["rounds"])


@pytest.mark.parametrize("part", ["latency", "busy", "churn", "two_writes", "broadcast", "bulk"])
def test_each_case_runs(run, part):
    few = "--requests=40" if part == "bulk" else "--requests=200"
    status, output, document = run(BENCH / f"test_{part}.py", few, "-k", "python-epoll or c-epoll")
    assert status == 0, output
    assert document["cases"]


def test_a_server_that_cannot_run_is_named_with_the_reason(run):
    command = [BENCH / "test_churn.py", "--requests=10", "--servers=c-epoll,gone"]
    status, output, document = run(*command, "--add-server", f"gone={sys.executable} -c exit(3)")
    assert status == 0, output
    assert [missing["server"] for missing in document["missing"]] == ["gone"]
    assert "not measured: gone" in output


@pytest.mark.parametrize("fault", ["lose", "change", "add", "end"])
def test_a_server_that_loses_a_byte_fails_the_run(run, fault):
    arguments = ["--requests=200", "--patience=3", "--servers=c-epoll,broken", "-k", "14B-1-pipelined-1"]
    broken = f"broken={sys.executable} {BROKEN} {fault}"
    status, output, document = run(BENCH / "test_echo.py", *arguments, "--add-server", broken)
    assert status == 1, output
    assert "1 failed, 1 passed" in output
    assert "broken: FAILED in echo 14 B x 1" in output
    assert "broken" not in document["cases"][0]["servers"]


def test_a_server_that_is_not_known_is_refused(run):
    status, output, document = run(BENCH / "test_echo.py", "--servers=nobody")
    assert (status, document) == (4, None)
    assert "no such server: nobody" in output
