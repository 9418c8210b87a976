"""`iocpcore pitfalls`: every wrong version really fails, in the way it says, and every right one holds."""

import json
import re
import subprocess
import sys

import pytest

from iocpcore.__main__ import main
from iocpcore._cli import pitfalls
from support import WAIT, spawn

NAMES = ["use-after-free", "send-buffer", "stale-overlapped", "unchecked-dequeue"]
MESSAGE = 4_194_304


def run(*arguments):
    """The command, in a process of its own: exit status, standard output, standard error.

    The command starts processes too: what support.spawn says of wine happens to them as well.
    """
    for _ in range(3):
        done = spawn(
            subprocess.run,
            [sys.executable, "-m", "iocpcore", "pitfalls", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=4 * WAIT,
        )
        if "cannot start a process" not in done.stderr:
            break
    return done.returncode, done.stdout, done.stderr


def versions(name, backend):
    """The wrong and the right version of a pitfall that went as it should."""
    status, output, errors = run("--only", name, "--backend", backend, "--json")
    assert (status, errors) == (0, "")
    told = json.loads(output)
    (result,) = told["pitfalls"]
    assert (told["backend"], told["ok"], result["name"], result["ok"]) == (backend, True, name, True)
    assert (result["wrong"]["error"], result["right"]["error"]) == (None, None)
    assert (result["wrong"]["held"], result["right"]["held"]) == (False, True)
    assert result["right"]["seen"] == result["right"]["expected"] == result["wrong"]["expected"]
    return result["wrong"], result["right"]


def test_a_session_freed_in_flight_costs_another_its_connection(backend):
    wrong, right = versions("use-after-free", backend)
    assert wrong["seen"] == "B reads nothing: its connection is gone"
    assert any("In flight: 1, but it does not look" in step for step in wrong["steps"])
    assert right["seen"] == 'B reads "hello"'
    assert any("close slot 0 of generation 1" in step and "nothing is closed" in step for step in right["steps"])


def test_a_send_buffer_written_to_in_flight_sends_wrong_bytes(backend):
    wrong, right = versions("send-buffer", backend)
    good, bad = re.fullmatch(r"The first message is ([\d,]+) A and then ([\d,]+) B", wrong["seen"]).groups()
    assert int(good.replace(",", "")) + int(bad.replace(",", "")) == MESSAGE
    assert right["seen"] == f"The first message is {MESSAGE:,} A"


def test_a_stale_overlapped_stops_the_server(backend):
    wrong, right = versions("stale-overlapped", backend)
    assert wrong["seen"] == 'The peer reads "one"'
    cause = "No packet comes: hEvent still has that bit" if sys.platform == "win32" else "A packet: 6 bytes sent"
    assert any(cause in step for step in wrong["steps"])
    assert right["seen"] == 'The peer reads "onetwo"'
    assert any("A packet: 3 bytes sent. Left to send: 3 - 3 = 0." in step for step in right["steps"])


def test_an_unchecked_dequeue_counts_a_payment_three_times(backend):
    wrong, right = versions("unchecked-dequeue", backend)
    balances = [re.findall(r"Balance: (\d+)", " ".join(version["steps"])) for version in (wrong, right)]
    assert balances == [["10", "20", "30"], ["10", "10", "10"]]
    assert wrong["seen"].startswith("The balance is 30,")


def test_all_of_them_are_told_in_lines_that_fit():
    status, output, errors = run()
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    headings = [line for line in lines if re.match(r"\d\. ", line)]
    assert [heading.split()[1].rstrip(":") for heading in headings] == NAMES
    assert [line.strip() for line in lines if "->" in line] == ["-> it fails, as it must", "-> it holds"] * 4
    assert max(map(len, lines)) <= pitfalls.WIDEST


def test_rich_shows_the_wrong_version_beside_the_right_one(monkeypatch, capsys):
    console = pytest.importorskip("rich.console")
    monkeypatch.setattr(pitfalls, "rich_console", lambda: console.Console(width=110))
    assert main(["pitfalls", "--only", "use-after-free"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("Wrong: the server" in line and "Right: the server" in line for line in lines)
    assert any("-> it fails, as it must" in line and "-> it holds" in line for line in lines)


def test_the_list_names_all_and_runs_none():
    status, output, _ = run("--list")
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()[1:]] == NAMES
    assert "->" not in output


def test_the_list_as_json_is_one_object():
    status, output, _ = run("--list", "--json")
    assert status == 0
    assert [pitfall["name"] for pitfall in json.loads(output)["pitfalls"]] == NAMES


@pytest.mark.parametrize("arguments", [["--only", "no-such"], ["--backend", "no-such"], ["--only"]])
def test_bad_input_gets_one_line(arguments):
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("iocpcore pitfalls: error: ")


# ---- when something is not as it should be ----


def story(wrong, right):
    """What the process of a pitfall would tell, in which `expected` was to be seen."""
    for version, seen in (("right", right), ("wrong", wrong)):
        yield {"version": version, "step": f"the {version} one starts"}
        yield {"version": version, "expected": "expected", "seen": seen}


@pytest.mark.parametrize(
    ("wrong", "right", "complaint"),
    [("expected", "expected", "it holds, and should have failed"), ("else", "else", "it fails, and should have held")],
)
def test_a_version_that_surprises_is_a_failure(monkeypatch, capsys, wrong, right, complaint):
    monkeypatch.setattr(pitfalls, "tell_by_child", lambda name, backend: (list(story(wrong, right)), None))
    assert main(["pitfalls", "--only", "send-buffer"]) == 1
    shown = capsys.readouterr()
    assert f"-> {complaint}" in shown.out
    assert shown.err == "iocpcore pitfalls: error: wrong result: send-buffer\n"


def test_a_process_that_dies_is_a_failure_and_what_it_told_is_kept(monkeypatch, capsys):
    told = "\n".join(json.dumps(line) for line in story("else", "expected"))
    code = f"import os; os.write(1, {told.encode()!r}); os.write(2, b'it broke'); os._exit(3)"
    monkeypatch.setattr(pitfalls, "child_command", lambda name, backend: [sys.executable, "-c", code])
    assert main(["pitfalls", "--only", "send-buffer", "--json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)["pitfalls"]
    assert result["right"]["held"] is True
    assert result["wrong"]["steps"] == ["the wrong one starts"]
    assert result["wrong"]["held"] is None  # its last line was not whole
    assert result["wrong"]["error"] == "its process ended with status 3: it broke"
    assert result["ok"] is False


def test_a_process_that_does_not_end_is_given_up(monkeypatch, capsys):
    code = "import threading; threading.Event().wait()"
    monkeypatch.setattr(pitfalls, "child_command", lambda name, backend: [sys.executable, "-c", code])
    monkeypatch.setattr(pitfalls, "PATIENCE", 1.0)
    assert main(["pitfalls", "--only", "send-buffer"]) == 1
    assert "-> no result: its process did not end in 1 seconds" in capsys.readouterr().out


def test_a_process_that_cannot_be_started_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(pitfalls, "child_command", lambda name, backend: ["no-such-program"])
    assert main(["pitfalls", "--only", "send-buffer"]) == 1
    assert capsys.readouterr().err.startswith("iocpcore pitfalls: error: cannot start a process: ")
