"""tools/windows_check.py: its steps and commands everywhere; the quick check on Windows and under wine."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import windows_check
from support import WAIT, spawn

pytestmark = pytest.mark.uninstrumented
PROGRAM = Path(windows_check.__file__).resolve()


@pytest.fixture
def report(tmp_path):
    with contextlib.closing(windows_check.Report(tmp_path / "report.txt")) as report:
        yield report


def written(report):
    return Path(report.file.name).read_text(encoding="utf-8")


def run_code(report, code, seconds=WAIT):
    return windows_check.run_command(report, [sys.executable, "-c", code], seconds)


def outcomes(text):
    """{step: its outcome} of a report's summary."""
    lines = text.partition("== summary ==\n")[2].splitlines()
    return dict(re.fullmatch(r"(.*?) +[\d.]+ s  (.*)", line).groups() for line in lines)


def test_a_step_that_fails_is_noted_and_the_next_one_runs(report):
    report.step("first", lambda: 1 / 0)
    report.step("second", lambda: None)
    report.summary()
    assert outcomes(written(report)) == {"first": "failed: ZeroDivisionError", "second": "ok"}
    assert report.failed()


def test_a_step_that_is_ended_by_hand_is_in_the_summary(report):
    with pytest.raises(KeyboardInterrupt):
        report.step("first", lambda: signal.raise_signal(signal.SIGINT))
    report.summary()
    assert outcomes(written(report)) == {"first": "failed: ended by hand"}


def test_without_a_package_nothing_is_said_of_another_one(report, tmp_path, monkeypatch):
    monkeypatch.setattr(windows_check, "compiler_setup", lambda: None)
    monkeypatch.setattr(windows_check.Check, "versions", lambda check: None)
    monkeypatch.setattr(windows_check, "run_command", lambda *arguments, **options: "failed: exit status 1")
    check = windows_check.Check(windows_check.arguments([]), report, tmp_path)
    check.run()
    told = {name: outcome for name, outcome, _ in report.results}
    assert told["build"] == "failed: exit status 1"
    assert {told[name] for name in ("info", "suite", "pitfalls", "soak", "Ctrl+C")} == {"left out: there is no package"}


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a first line is no program there")
def test_the_contracts_outcome_counts_what_could_not_be_tried(report, tmp_path):
    program = tmp_path / "contract"
    program.write_text(f"""#!{sys.executable}
import sys
print("first second third") if "--list" in sys.argv else sys.exit(77 * (sys.argv[-1] == "second"))
""")
    program.chmod(0o755)
    check = windows_check.Check(windows_check.arguments(["--quick", "--contract", str(program)]), report, tmp_path)
    assert check.run_contract() == "ok: 2 cases held, 1 not possible here"


def test_what_is_not_possible_here_is_no_failure(report):
    report.step("only", lambda: run_code(report, "import sys; sys.exit(77)"))
    assert [outcome for _, outcome, _ in report.results] == ["not possible here"]
    assert not report.failed()


def test_the_report_has_a_commands_output_and_the_outcome_its_status(report):
    assert run_code(report, "import sys; print('caf\\xe9'); sys.exit(3)") == "failed: exit status 3"
    assert written(report).splitlines()[-1] == "caf\xe9"


def test_a_command_that_does_not_end_is_ended(report):
    assert run_code(report, "import threading; threading.Event().wait()", 1) == "failed: it did not end in 1 seconds"


@pytest.mark.skipif(sys.platform == "win32", reason="there it begins")
def test_on_linux_it_says_that_it_is_for_windows():
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "windows_check.py is for Windows; on Linux it is `make test`\n"


@pytest.mark.skipif(sys.platform != "win32", reason="it is for Windows; tests/windows/run runs this test under wine")
@pytest.mark.timeout(10 * 60)
def test_the_quick_check_writes_a_report_in_which_nothing_failed(tmp_path):
    file = tmp_path / "windows_check.txt"
    contract = os.environ.get("IOCPCORE_CONTRACT_EXE")
    command = [sys.executable, PROGRAM, "--quick", "--installed", "--output", file]
    command += ["--contract", contract] if contract else []
    for _ in range(2):  # tests/windows/watch takes ten minutes of silence for a hang
        done = spawn(subprocess.run, command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=290)
        text = file.read_text(encoding="utf-8")
        if "WinError 1359" not in text:  # support.spawn says what that is
            break
    assert done.returncode == 0, text
    told = outcomes(text)
    assert told.pop("build") == "left out: --installed"
    assert told.pop("contract: build") in ("left out: --contract", "ok", "not possible here")
    assert re.fullmatch(r"ok: [1-9]\d+ cases held, \d+ not possible here" + ("" if contract else "|not possible.*"),
                        told.pop("contract"))
    assert told.pop("Ctrl+Break") in ("ok", "not possible here")  # wine 8 cannot send it
    assert told == dict.fromkeys(["versions", "info", "suite", "pitfalls", "soak", "Ctrl+C", "a second Ctrl+C"], "ok")
    assert "no rule broken" in text and "sessions accepted" in text
