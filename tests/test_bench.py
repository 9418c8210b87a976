"""The benchmark suite: that each part of it runs, and that it does not let a server pass that loses a byte."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import iocpcore
from iocpcore._cli import bench
from support import WAIT, WORK, Child, until

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PYTHON = [sys.executable, "-m"]
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
    """Run a part of the suite, as small as can be: its exit status, its output, and the result it saved, or None."""

    def run(*arguments):
        saved = tmp_path / "result.json"
        command = [*PYTHON, "pytest", "-p", "no:cacheprovider", "--cpus=any", f"--save={saved}", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WORK)
        document = json.loads(saved.read_text()) if saved.exists() else None
        return done.returncode, done.stdout + done.stderr, document

    return run


def test_a_run_says_what_each_server_spends_and_saves_it(run):
    few = ["--rounds=2", "--requests=500", "--servers=c-epoll,iocpcore-epoll", "-k", "14B-1conn-1deep"]
    status, output, document = run(BENCH / "test_echo.py", *few)
    assert status == 0, output
    case = document["cases"][0]
    assert case["name"] == "echo 14 B x 1"
    assert [len(server["rounds"]) for server in case["servers"].values()] == [2, 2]
    assert case["servers"]["iocpcore-epoll"]["base"] == "c-epoll"
    assert all(figures["total_ns"] > 0 for server in case["servers"].values() for figures in server["rounds"])


def test_how_often_a_server_takes_the_gil_is_measured_where_it_counts_that(run):
    few = ["--rounds=1", "--requests=500", "--servers=c-epoll,python-epoll,iocpcore-epoll", "-k", "14B-50conn-1deep"]
    status, output, document = run(BENCH / "test_echo.py", *few)
    assert status == 0, output
    rounds = {name: server["rounds"][0] for name, server in document["cases"][0]["servers"].items()}
    assert 0 < rounds["python-epoll"]["attaches_per_packet"] <= 1
    assert rounds["iocpcore-epoll"]["attaches_per_packet"] == 0
    assert "attaches_per_packet" not in rounds["c-epoll"]


def test_every_kind_of_case_runs(run):
    """But those that idle for seconds."""
    parts = ["latency", "busy", "churn", "two-writes", "broadcast", "bulk", "start", "micro", "load"]
    files = [BENCH / f"test_{part.replace('-', '_')}.py" for part in parts]
    few = ["--rounds=1", "--requests=10", "--servers=c-epoll,python-epoll"]
    status, output, document = run(*files, *few)
    assert status == 0, output
    assert {case["group"] for case in document["cases"]} == set(parts)


def test_a_polite_client_is_measured_beside_a_flood(run):
    few = ["--rounds=1", "--requests=20", "--servers=c-epoll,python-epoll,iocpcore-epoll,asyncio", "-k", "100flooders"]
    status, output, document = run(BENCH / "test_fair.py", *few)
    assert status == 0, output
    assert "not measured in fair: c-epoll: it has no back-pressure" in output
    servers = document["cases"][0]["servers"]
    assert sorted(servers) == ["asyncio", "iocpcore-epoll", "python-epoll"]
    assert all(figures["p99_us"] >= figures["p50_us"] > 0 for each in servers.values() for figures in each["rounds"])


def test_a_server_that_cannot_run_is_named_with_the_reason(run):
    command = [BENCH / "test_churn.py", "--rounds=1", "--requests=10", "--servers=c-epoll,gone"]
    status, output, document = run(*command, "--add-server", f"gone={sys.executable} -c exit(3)")
    assert status == 0, output
    assert [missing["server"] for missing in document["missing"]] == ["gone"]
    assert "not measured: gone" in output


def test_a_server_that_has_no_part_in_a_case_is_named_with_the_reason(run):
    command = [BENCH / "test_two_writes.py", "--rounds=1", "--requests=10", "--servers=c-epoll,iocpcore-epoll"]
    status, output, document = run(*command)
    assert status == 0, output
    reason = "the native handler only echoes"
    assert document["missing"] == [{"server": "iocpcore-epoll", "reason": reason, "group": "two-writes"}]
    assert f"not measured in two-writes: iocpcore-epoll: {reason}" in output


@pytest.mark.parametrize(
    ("words", "case"),
    [
        ("14B and 50conn and 1deep", "14B-50conn-1deep"),
        ("1KiB and 500conn and 16deep", "1KiB-500conn-16deep"),
        ("10KiB and 1conn and 1deep", "10KiB-1conn-1deep"),
        ("1000idle", "1000idle"),
        ("5000rate", "5000rate"),
    ],
)
def test_words_choose_one_case_and_no_other(run, words, case):
    status, output, _ = run(BENCH, "--full", "--collect-only", "-q", "--servers=c-epoll", "-k", words)
    assert status == 0, output
    found = [line for line in output.splitlines() if "::" in line]
    assert len(found) == 1 and f"[{case}]" in found[0]


def test_every_server_is_asked_in_every_case(run):
    """Who cannot serve one is shown as missing there, and not left out."""
    status, output, document = run(BENCH / "test_bulk.py", "--rounds=1", "--requests=1")
    assert status == 0, output
    missing = [each["server"] for each in document["missing"]]
    assert sorted([*document["cases"][0]["servers"], *missing]) == sorted(bench.SERVERS)


@pytest.mark.skipif(iocpcore.backends().get("uring") is not None, reason="io_uring cannot be used here")
def test_every_service_of_the_reference_on_io_uring_is_measured(run):
    parts = ["two-writes", "broadcast", "bulk", "churn"]
    files = [BENCH / f"test_{part.replace('-', '_')}.py" for part in parts]
    status, output, document = run(*files, "--rounds=1", "--requests=40", "--servers=c-uring")
    assert status == 0, output
    if document["cases"] == []:
        pytest.skip(document["missing"][0]["reason"])
    assert {case["group"] for case in document["cases"]} == set(parts)


def test_a_case_that_takes_more_open_files_than_there_may_be_is_missing_with_the_reason(monkeypatch):
    import rounds
    import servers

    monkeypatch.setattr(rounds.resource, "getrlimit", lambda which: (50, 50))
    server = servers.Server("one", (), frozenset({"echo"}), "c-epoll")
    comparison = rounds.Comparison(rounds.Traffic("echo", "echo x 5000", connections=5000), rounds.Options(), [server])
    comparison.run()
    reason = "it takes 5,100 open files, and the hard limit is 50 (ulimit -Hn)"
    assert str(comparison.out[server]) == f"echo x 5000: {reason}"


@pytest.mark.parametrize("fault", ["lose", "change", "add", "end"])
def test_a_server_with_a_fault_fails_the_run(run, fault):
    arguments = ["--rounds=1", "--requests=200", "--patience=1", "--servers=c-epoll,broken", "-k", "14B-1conn-1deep"]
    broken = f"broken={sys.executable} {BROKEN} {fault}"
    status, output, document = run(BENCH / "test_echo.py", *arguments, "--add-server", broken)
    assert status == 1, output
    assert "1 failed" in output
    assert "broken: FAILED in echo 14 B x 1" in output
    assert list(document["cases"][0]["servers"]) == ["c-epoll"]


def test_the_command_that_a_result_names_has_no_path_of_this_machine(monkeypatch):
    import suite

    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest", "/home/me/test_echo.py", "--save=/tmp/result.json", "-q"])
    assert suite.command() == "pytest test_echo.py --save=result.json -q"


def test_a_server_that_is_not_known_is_refused(run):
    status, output, document = run(BENCH / "test_echo.py", "--servers=nobody")
    assert (status, document) == (4, None)
    assert "no such server: nobody; there are c-epoll, c-uring, " in output


def test_the_command_names_the_servers_that_there_are(tmp_path):
    """In its help and in its error: it is asked where the suite cannot be imported."""
    import servers

    assert list(servers.SERVERS) == bench.SERVERS
    status, _, error = command("churn", "--servers=nobody,c-epoll", f"--checkout={ROOT}", cwd=tmp_path)
    assert status == 2
    assert error == f"iocpcore bench: error: no such server: nobody; there are {', '.join(bench.SERVERS)}\n"
    _, output, _ = command("--help", cwd=tmp_path)
    assert ",".join(bench.SERVERS) in "".join(output.split())     # help is wrapped, at hyphens too


def test_the_command_says_how_to_install_what_the_suite_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "NEEDED", {"there_is_no_such_module": "pytest-something", "pytest": "pytest"})
    with pytest.raises(bench.Refused, match='^not installed: pytest-something: run pip install ".*\\[bench\\]"$'):
        bench.check_installed(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bench.Refused, match=r'run pip install "\.\[bench\]"$'):
        bench.check_installed(tmp_path)


@pytest.mark.parametrize("room", [80, 44])
def test_a_table_fits_a_narrow_terminal(room):
    from report import results, tables

    figures = {"total_ns": 123456.0, "user_ns": 23456.0, "system_ns": 99999.0, "requests_per_s": 1234567.0,
               "attaches_per_packet": 0.25, "p50_us": 12345.0, "p99_us": 23456.0, "p999_us": 99999.0}
    units = dict.fromkeys(figures, "server CPU, ns a request")
    rounds = {name: [figures, figures] for name in ("c-epoll", "uvloop, loop outside")}
    servers = results.summarised("total_ns", units, rounds, dict.fromkeys(rounds, "c-epoll"))
    name = "echo 14 B x 50, 16 deep, and a name that is long"
    case = results.Case("echo", name, "total_ns", units, servers, 2)
    lines = list(tables.terminal_lines(case, room))
    assert max(map(len, lines)) <= room
    header = next(line for line in lines if "median" in line)
    assert header.split()[:2] == ["median", "x"]
    assert " ".join(lines).endswith("p99.9 µs, attaches")     # what is not shown is named
    assert "no room for" not in "\n".join(tables.terminal_lines(case))


def command(*arguments, cwd):
    """`iocpcore bench`: its exit status, and what it says."""
    done = subprocess.run(
        [*PYTHON, "iocpcore", "bench", *arguments], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=WORK,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_runs_a_part_and_shows_how_far_it_is(tmp_path):
    saved = tmp_path / "result.json"
    arguments = ["churn", "--servers=c-epoll", "--rounds=1", "--cpus=any", "--save", saved]
    status, output, _ = command(*arguments, cwd=BENCH)
    assert status == 0, output
    assert "cases: 1 of 1 (100 %)" in output
    assert "connect, echo, close" in output
    assert [case["group"] for case in json.loads(saved.read_text())["cases"]] == ["churn"]


def test_the_command_says_that_the_suite_is_in_a_checkout(tmp_path):
    status, _, error = command("churn", cwd=tmp_path)
    assert status == 2
    assert "no checkout of iocpcore in" in error


def test_the_command_names_the_parts_that_there_are(tmp_path):
    status, _, error = command("speed", f"--checkout={ROOT}", cwd=tmp_path)
    assert status == 2
    assert "no such part: speed; there are broadcast, bulk" in error


# ---- an early end ----


def parent(process):
    """0 of one that has ended, or been killed and not yet been waited for."""
    try:
        state, parent, *_ = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def descendants(process):
    parents = {int(folder.name): parent(folder.name) for folder in Path("/proc").glob("[0-9]*")}
    found = [process]
    for each in found:
        found += [child for child, its in parents.items() if its == each]
    return found[1:]


def program(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/exe").readlink().name


@pytest.fixture
def child():
    """Start a process; it is gone after the test."""
    children = []

    def child(command):
        children.append(Child(list(map(str, command))))
        return children[-1]

    yield child
    for each in children:
        if each.process.poll() is None:
            each.signal("SIGTERM")  # or a test that failed would leave servers behind
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(WAIT)
        each.close()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_command_that_is_ended_leaves_no_server_behind(child, name, status):
    long = ["--servers=c-epoll", "--rounds=1000", "--cpus=any", f"--checkout={ROOT}"]
    running = child([*PYTHON, "iocpcore", "bench", "churn", *long])
    started = []

    def serves():
        started[:] = descendants(running.process.pid)
        return any(program(each) == "server_epoll" for each in started)

    until(serves)
    running.signal(name)
    assert running.end()[0] == status
    until(lambda: not any(map(parent, started)))


CARELESS = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN){CARELESS}"


def end_suite(program):
    """Its exit status; its server has ended too."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as suite:
        server = int(suite.stdout.readline())
        bench.end(suite)
        until(lambda: not parent(server))
        return suite.wait(WAIT)


def test_a_suite_that_does_not_end_is_killed_with_its_servers(monkeypatch):
    monkeypatch.setattr(bench, "ENDS_WITHIN", 0.1)
    assert end_suite(STUBBORN) == -signal.SIGKILL


def test_a_server_that_a_suite_leaves_behind_is_killed():
    assert end_suite(CARELESS) == -signal.SIGTERM
