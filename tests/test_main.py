"""The command line, as a user meets it: each command runs in a process of its own."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

import iocpcore
from support import (
    ENVIRONMENT,
    OBEY,
    SCALE,
    WAIT,
    Child,
    balanced,
    receive_exactly,
    receive_to_end,
    refusing_port,
    spawn,
    until,
)

COMMAND = [sys.executable, "-m", "iocpcore"]
IMPORT = "from iocpcore.__main__ import main\n"
MAIN = "sys.exit(main(sys.argv[1:]))"
PATIENT = f"from iocpcore._cli import echo; echo.DRAIN = {WAIT}"
ENDING = ["SIGINT", "SIGBREAK" if sys.platform == "win32" else "SIGTERM"]


@pytest.fixture
def start():
    """Start a command that obeys signals; it is gone after the test."""
    children = []

    def start(*arguments, before=""):
        children.append(Child([sys.executable, "-c", OBEY + IMPORT + before + "\n" + MAIN, *arguments]))
        return children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture
def serve(start):
    """Start `iocpcore echo`; the process, and the address that its first line names."""

    def serve(*arguments, before=""):
        child = start("echo", "--port", "0", *arguments, before=before)
        first = child.line()
        host, _, port = first.removeprefix("listening on ").rpartition(":")
        assert first == f"listening on {host}:{port}"
        return child, (host.strip("[]"), int(port))

    return serve


@pytest.fixture
def connect():
    opened = []

    def connect(address):
        opened.append(socket.create_connection(address, timeout=WAIT))
        return opened[-1]

    yield connect
    for sock in opened:
        sock.close()


@pytest.fixture
def answer():
    """A server that gives every connection's socket to a function in a thread, and closes it; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads = []

    def answer(function):
        def loop():
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    with sock:
                        sock.settimeout(WAIT)
                        function(sock)

        threads.append(threading.Thread(target=loop))
        threads[-1].start()
        return str(listening.getsockname()[1])

    yield answer
    with contextlib.suppress(OSError):  # Linux wakes accept() by a shutdown, Windows by the close
        listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for thread in threads:
        thread.join(WAIT)


def run_command(command, environment=ENVIRONMENT):
    return spawn(
        subprocess.run,
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT,
        env=environment,
    )


def run(*arguments):
    return run_command([*COMMAND, *arguments])


def run_python(code, *arguments):
    return run_command([sys.executable, "-c", code, *arguments])


def table(lines):
    """{label: the rest} of a plain table."""
    cells = [line.strip().split("  ", 1) for line in lines if "  " in line.strip()]
    return {label: rest.strip() for label, rest in cells}


def statistics(line):
    """The API's snapshot of a line of JSON: it has these fields, no others and no fewer."""
    values = json.loads(line)
    assert values.pop("seconds") >= 0
    workers = tuple(iocpcore.WorkerStats(**row) for row in values.pop("workers"))
    return iocpcore.Stats(**values, workers=workers)


# ---- echo ----


def test_a_client_connects_sends_a_line_and_gets_it_back(serve, connect):
    _, address = serve()
    peer = connect(address)
    peer.sendall(b"Hello, IOCP!\n")
    assert receive_exactly(peer, 13) == b"Hello, IOCP!\n"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_ipv6_host_is_in_brackets(start):
    assert start("echo", "--port", "0", "--host", "::1").line().startswith("listening on [::1]:")


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_prints_the_statistics_and_ends_with_success(serve, connect, name):
    child, address = serve()
    with connect(address) as peer:
        peer.sendall(b"12345")
        receive_exactly(peer, 5)
    child.signal(name)
    status, lines, errors = child.end()
    assert (status, errors) == (0, [])
    shown = table(lines)
    assert (shown["sessions accepted"], shown["received"], shown["sent"]) == ("1", "5 B", "5 B")


def test_a_signal_lets_what_is_queued_go_out_before_the_end(serve, connect):
    child, address = serve("--json", "--stats", "0.05", before=PATIENT)
    peer = connect(address)

    def send():
        with contextlib.suppress(OSError):
            peer.sendall(bytes(1 << 26))  # more than the system holds on both ways
            peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    rows = [json.loads(child.line())]

    def it_waits_for_the_peer_to_read():
        rows.append(json.loads(child.line()))
        return rows[-1]["bytes_queued"] > 0 and rows[-1]["bytes_sent"] == rows[-2]["bytes_sent"]

    until(it_waits_for_the_peer_to_read)
    child.signal(ENDING[0])
    received = len(receive_to_end(peer))
    peer.close()
    sender.join(WAIT)
    status, lines, _ = child.end()
    stats = json.loads(lines[-1])
    assert status == 0
    assert received == stats["bytes_sent"] > rows[-1]["bytes_sent"]
    assert stats["bytes_unsent"] == 0


def test_a_second_signal_ends_the_process_at_once(serve, connect):
    child, address = serve(before=PATIENT)
    peer = connect(address)
    peer.sendall(b"x")
    receive_exactly(peer, 1)
    child.signal("SIGINT")
    assert peer.recv(1) == b""  # it has begun to close, and would wait for the peer's end
    child.signal("SIGINT")
    status, lines, _ = child.end()
    assert status != 0
    assert lines == []


def test_statistics_as_json_are_those_of_the_api(serve, connect):
    child, address = serve("--json", "--workers", "2")
    with connect(address) as peer:
        peer.sendall(b"x")
        receive_exactly(peer, 1)
    child.signal(ENDING[0])
    _, lines, _ = child.end()
    (stats,) = map(statistics, lines)
    assert balanced(stats)
    assert (stats.accepted, stats.active, stats.in_flight, len(stats.workers)) == (1, 0, 0, 2)


def test_json_rows_come_while_it_serves(serve):
    child, _ = serve("--json", "--stats", "0.01")
    lines = [child.line() for _ in range(3)]
    first, second, third = (json.loads(line)["seconds"] for line in lines)
    assert first < second < third
    assert all(balanced(statistics(line)) for line in lines)


def test_plain_rows_come_below_a_header_while_it_serves(serve):
    child, _ = serve("--stats", "0.01")
    header, first, second = child.line(), child.line(), child.line()
    assert header.split()[:3] == ["seconds", "active", "received/s"]
    assert len(header) == len(first) == len(second)


def test_workers_have_columns_of_their_own_in_the_table(serve):
    child, _ = serve("--workers", "2")
    child.signal(ENDING[0])
    _, lines, _ = child.end()
    assert lines[1].split("  ")[-2:] == ["worker 0", "worker 1"]


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error on each system")
def test_a_reader_that_leaves_ends_it_without_a_traceback():
    """As in `iocpcore echo --stats 1 | head`."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "echo", "--port", "0", "--stats", "0.01"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    os.close(writing)
    assert os.read(reading, 9) == b"listening"
    os.close(reading)
    _, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors) == (1, "")


# ---- client ----


def test_a_load_counts_its_echoes(serve):
    messages = max(1, int(200 * SCALE))
    port = str(serve()[1][1])
    done = run("client", "--port", port, "--connections", "10", "--messages", str(messages), "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(result) == [
        "connections",
        "echoes",
        "bytes",
        "seconds",
        "echoes_per_second",
        "mismatches",
        "errors",
        "error",
        "latency_us",
    ]
    assert result["error"] is None
    assert list(result["latency_us"]) == ["p50", "p99", "p999"]
    echoes = 10 * messages
    assert (result["connections"], result["echoes"], result["bytes"]) == (10, echoes, echoes * 64)
    assert (result["mismatches"], result["errors"]) == (0, 0)


def test_a_range_of_sizes_sends_messages_of_all_of_them(serve):
    port = str(serve()[1][1])
    done = run("client", "--port", port, "--messages", "20", "--size", "1-3000", "--pipeline", "4", "--json")
    result = json.loads(done.stdout)
    assert result["echoes"] == 1000
    assert 1000 < result["bytes"] < 3000 * 1000


def test_a_load_prints_a_table(serve):
    done = run("client", "--port", str(serve()[1][1]), "--connections", "2", "--messages", "600", "--workers", "2")
    shown = table(done.stdout.splitlines())
    assert (shown["connections"], shown["echoes"], shown["mismatches"]) == ("2", "1,200", "0")
    assert shown["latency p99.9"].endswith("s")


def test_a_wrong_byte_is_a_failure(answer):
    def lie(sock):
        while data := sock.recv(64):
            sock.sendall(bytes(byte ^ 1 for byte in data))

    done = run("client", "--port", answer(lie), "--connections", "1", "--json")
    assert (done.returncode, json.loads(done.stdout)["mismatches"]) == (1, 1)
    assert done.stderr == "iocpcore client: error: 1 of 1 connections returned a wrong byte\n"


def test_a_server_that_ends_early_loses_echoes(answer):
    def once(sock):
        sock.sendall(receive_exactly(sock, 64))

    done = run("client", "--port", answer(once), "--connections", "1", "--messages", "5", "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["errors"]) == (1, 1)
    assert result["error"].startswith("4 of 5 echoes did not come back: ")
    assert done.stderr == f"iocpcore client: error: {result['error']}\n"


def test_a_silent_server_is_given_up(answer):
    def never(sock):
        while sock.recv(64):
            pass

    port = answer(never)
    done = run("client", "--port", port, "--connections", "1", "--messages", "3", "--timeout", "0.2")
    assert done.returncode == 1
    assert done.stderr == "iocpcore client: error: 3 of 3 echoes did not come back: nothing came for 0.2 seconds\n"


def test_a_load_without_a_server_is_a_failure():
    with refusing_port() as port:
        done = run("client", "--port", str(port), "--connections", "3", "--messages", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("iocpcore client: error: 6 of 6 echoes did not come back: ")


def test_a_text_is_sent_and_what_returns_is_printed(serve):
    done = run("client", "--port", str(serve()[1][1]), "--text", "hello world")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello world\n", "")


def test_a_text_that_returns_otherwise_is_a_failure(answer):
    done = run("client", "--port", answer(lambda sock: sock.sendall(sock.recv(64).upper())), "--text", "hello")
    assert (done.returncode, done.stdout) == (1, "HELLO\n")


def test_a_text_that_does_not_return_is_a_failure(answer):
    done = run(
        "client", "--port", answer(lambda sock: sock.recv(64) and sock.recv(1)), "--text", "x", "--timeout", "0.2"
    )
    assert (done.returncode, done.stderr) == (1, "iocpcore client: error: nothing came for 0.2 seconds\n")


# ---- demo ----


def test_the_demo_ends_with_a_table(backend):
    done = run("demo", "--echoes", "1990", "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "echoes: 2,000 of 2,000 (100 %)" in lines
    shown = table(lines)
    assert (shown["connections"], shown["echoes"], shown["errors"]) == ("50", "2,000", "0")
    assert shown["server: backend"] == backend


def test_the_demo_as_json_is_one_object(backend):
    done = run("demo", "--echoes", "1990", "--backend", backend, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["echoes"], result["error"], result["server"]["backend"]) == (2000, None, backend)


LOSING = """
import sys, iocpcore
from iocpcore._cli import demo
from iocpcore.__main__ import main
demo.ECHO, demo.TIMEOUT = iocpcore.DISCARD, 0.2
"""


def test_the_demo_as_json_has_the_same_keys_when_it_fails():
    well = run("demo", "--echoes", "100", "--json")
    badly = run_python(LOSING + MAIN, "demo", "--echoes", "100", "--json")
    assert (well.returncode, badly.returncode) == (0, 1)
    well, badly = json.loads(well.stdout), json.loads(badly.stdout)
    assert list(well) == list(badly)
    assert list(well["server"]) == list(badly["server"])
    assert badly["error"].startswith("100 of 100 echoes did not come back: ")


def test_a_demo_that_loses_echoes_fails():
    done = run_python(LOSING + MAIN, "demo", "--echoes", "100")
    assert done.returncode == 1
    assert done.stderr.startswith("iocpcore demo: error: 100 of 100 echoes did not come back: ")


def on_terminal(code, *arguments, columns=120):
    """Run a program on a terminal of its own, so many columns wide; its exit status, and what it wrote."""
    import pty

    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine has no pseudo-terminals: {error}")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(theirs)
    watch = threading.Timer(WAIT, process.kill)
    watch.start()
    written = bytearray()
    with contextlib.suppress(OSError):  # Linux says EIO when the last writer has gone
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    status = process.wait(WAIT)
    watch.cancel()
    watch.join()
    return status, written.decode()


DEMO = "import sys; from iocpcore.__main__ import main; " + MAIN


# It stops itself after three rows.
ECHO = """
import signal, sys
from iocpcore.__main__ import main
from iocpcore._cli import echo

tell = echo.TextReport.row

def row(self, stats):
    tell(self, stats)
    if self.rows == 3:
        signal.raise_signal(signal.SIGINT)

echo.TextReport.row = row
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_shows_statistics_in_a_table_that_changes():
    pytest.importorskip("rich")
    arguments = ("echo", "--port", "0", "--stats", "0.01", "--workers", "2")
    status, shown = on_terminal(ECHO + MAIN, *arguments)
    live, _, end = shown.partition("\x1b[?25h")  # the cursor is back: before another signal may end the process
    assert status == 0
    assert live.count("per second") >= 3 and live.count("worker 1") >= 3
    assert "finishing what is open" in end and "sessions accepted" in end


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_without_rich_shows_statistics_in_lines():
    code = "import sys; sys.modules['rich'] = None\n" + ECHO + MAIN
    status, shown = on_terminal(code, "echo", "--port", "0", "--stats", "0.01")
    assert status == 0
    assert "per dequeue" in shown.splitlines()[1]
    assert "\x1b" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_shows_a_bar_and_a_frame():
    pytest.importorskip("rich")
    status, shown = on_terminal(DEMO, "demo", "--echoes", "1000")
    assert status == 0
    assert "100%" in shown and "━" in shown and "╭" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_without_rich_shows_one_line_that_changes():
    status, shown = on_terminal("import sys; sys.modules['rich'] = None\n" + DEMO, "demo", "--echoes", "1000")
    assert status == 0
    assert "\rechoes: 1,000 of 1,000 (100 %)\r\n" in shown
    assert "╭" not in shown


WITHOUT_RICH = "import sys; sys.modules['rich'] = None\n"


def visible(written):
    """The lines of what a terminal was sent, without what moves its cursor and colours it."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n").split("\n")]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("rich", ["rich", "plain"])
@pytest.mark.parametrize("columns", [80, 44])
def test_statistics_of_many_workers_fit_a_narrow_terminal(columns, rich):
    if rich == "rich":
        pytest.importorskip("rich")
    code = ("" if rich == "rich" else WITHOUT_RICH) + ECHO + MAIN
    arguments = ("echo", "--port", "0", "--stats", "0.01", "--workers", "8")
    status, shown = on_terminal(code, *arguments, columns=columns)
    assert status == 0
    lines = [line for line in visible(shown) if not line.startswith("finishing what is open")]
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    assert any("sessions accepted" in line and "0" in line for line in lines)
    assert "no room for" in shown and "worker 7" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_narrow_terminal_shows_rates_first():
    status, shown = on_terminal(WITHOUT_RICH + ECHO + MAIN, "echo", "--port", "0", "--stats", "0.01", columns=44)
    assert status == 0
    header = next(line for line in visible(shown) if "seconds" in line)
    assert header.split() == ["seconds", "active", "received/s", "sent/s"]


# ---- output that cannot be written ----


full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
WRITING = [
    ("demo", "--echoes", "100"),
    ("demo", "--echoes", "100", "--json"),
    ("echo", "--port", "0"),
    ("info",),
    ("info", "--json"),
    ("pitfalls", "--list"),
    ("info", "--help"),
    ("--version",),
]


def run_into(arguments, output):
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=WAIT,
        env=ENVIRONMENT,
    )


@full
@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_a_full_disk_gets_one_line(arguments):
    with open("/dev/full", "w") as output:
        done = run_into(arguments, output)
    assert done.returncode == 1
    assert done.stderr == "iocpcore: error: cannot write to standard output: No space left on device\n"


@full
def test_a_client_on_a_full_disk_gets_one_line(serve):
    port = str(serve()[1][1])
    for arguments in (["--messages", "1"], ["--messages", "1", "--json"], ["--text", "x"]):
        with open("/dev/full", "w") as output:
            done = run_into(["client", "--port", port, *arguments], output)
        assert done.returncode == 1
        assert done.stderr == "iocpcore: error: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error on each system")
@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_a_pipe_without_a_reader_ends_it_quietly(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run_into(arguments, writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# ---- info ----


def test_info_as_json_names_every_backend():
    done = run("info", "--json")
    facts = json.loads(done.stdout)
    assert facts["version"] == iocpcore.__version__
    for name, reason in iocpcore.backends().items():
        assert facts["backends"][name] == {"built": True, "usable": reason is None, "reason": reason}
    assert facts["backends"][facts["auto"]]["usable"]
    assert all(facts[name] for name in ("platform", "python", "compiler", "cython"))


def test_info_says_why_a_backend_is_not_there():
    """Here one of another system; a build without liburing is made in test_build.py."""
    absent, why = ("epoll", "it is for Linux") if sys.platform == "win32" else ("iocp", "it is for Windows")
    done = run_python(
        "import sys\n"
        "from iocpcore._cli import info\n"
        "from iocpcore.__main__ import main\n"
        f"info.OPTIONAL = [{absent!r}]\n" + MAIN,
        "info",
    )
    assert table(done.stdout.splitlines())[f"backend {absent}"] == why


def test_info_prints_a_table():
    shown = table(run("info").stdout.splitlines())
    assert shown["version"] == iocpcore.__version__
    assert {f"backend {name}" for name in iocpcore.backends()} <= set(shown)


def test_info_refuses_a_backend_of_the_environment_that_there_is_not():
    done = run_command([*COMMAND, "info"], {**ENVIRONMENT, "IOCPCORE_BACKEND": "kqueue"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("iocpcore info: error: IOCPCORE_BACKEND: unknown backend 'kqueue'")


# ---- bad input ----


@pytest.mark.parametrize(
    "arguments",
    [
        ("echo", "--port", "70000"),
        ("echo", "--port", "-1"),
        ("echo", "--port", "x"),
        ("echo", "--workers", "-1"),
        ("echo", "--workers", "257"),
        ("echo", "--backend", "kqueue"),
        ("echo", "--host", "nowhere.invalid"),
        ("echo", "--stats", "0"),
        ("echo", "--stats", "nan"),
        ("client", "--port", "0"),
        ("client", "--size", "0"),
        ("client", "--size", "9-1"),
        ("client", "--connections", "0"),
        ("client", "--backend", "kqueue"),
        ("client", "--host", "nowhere.invalid"),
        ("client", "--host", "nowhere.invalid", "--text", "x"),
        ("client", "--text", "x", "--json"),
        ("demo", "--echoes", "0"),
        ("demo", "--backend", "kqueue"),
    ],
    ids=" ".join,
)
def test_bad_input_gets_one_line(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"iocpcore {arguments[0]}: error: ")
    assert done.stderr.count("\n") == 1


def test_an_address_in_use_gets_one_line(serve):
    port = str(serve()[1][1])
    done = run("echo", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"iocpcore echo: error: cannot listen on 127.0.0.1 port {port}: ")
    assert done.stderr.count("\n") == 1


def test_a_backend_named_by_the_environment_is_checked_too():
    done = run_command([*COMMAND, "echo", "--port", "0"], {**ENVIRONMENT, "IOCPCORE_BACKEND": "kqueue"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("iocpcore echo: error: IOCPCORE_BACKEND: unknown backend 'kqueue'")


def test_an_unknown_option_gets_one_line():
    done = run("info", "--unknown")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "iocpcore: error: unrecognized arguments: --unknown\n"


def test_a_missing_command_gets_one_line():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "iocpcore: error: the following arguments are required: COMMAND\n"


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout == f"iocpcore {iocpcore.__version__}\n"
