"""The examples, as a user meets them: each runs in a process of its own, and is talked to over real sockets."""

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support import OBEY, SCALE, WAIT, Child, receive_exactly, receive_to_end, refusing_port, reset, until

EXAMPLES = Path(__file__).parent.parent / "examples"
OBEDIENT = OBEY + "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
MEGABYTE = 1 << 20


class Example:
    """A running example, and its peers."""

    def __init__(self, name, arguments, backend):
        start = ["-c", OBEDIENT] if sys.platform == "win32" else []
        command = [sys.executable, *start, str(EXAMPLES / name), "--port", "0", *arguments]
        self.child = Child(command, IOCPCORE_BACKEND=backend)
        self.opened = []

    def address(self, what="listening"):
        """The one that its next line names."""
        line = self.child.line()
        host, _, port = line.removeprefix(f"{what} on ").rpartition(":")
        assert line == f"{what} on {host}:{port}"
        return host, int(port)

    def connect(self, address, **options):
        self.opened.append(socket.create_connection(address, timeout=WAIT, **options))
        return self.opened[-1]

    def stop(self):
        for sock in self.opened:
            sock.close()
        self.child.signal("SIGINT")
        status, _, errors = self.child.end()
        assert (status, errors) == (0, [])


@pytest.fixture
def run(backend):
    """Start an example; after the test Ctrl+C must end it, and it must have had nothing to complain of."""
    with contextlib.ExitStack() as children:

        def run(name, *arguments):
            example = Example(name, arguments, backend)
            children.callback(example.child.close)
            children.callback(example.stop)
            return example

        yield run


@pytest.fixture
def serve(run):
    """Start an example that listens; a function that connects to it."""

    def serve(name, *arguments):
        example = run(name, *arguments)
        address = example.address()
        return lambda **options: example.connect(address, **options)

    return serve


def in_thread(stack, function, *arguments):
    """Run it beside the test, which ends only with it."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    stack.callback(thread.join, WAIT)


def send_and_end(sock, data):
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


# ---- hello ----


@pytest.fixture
def hello(backend, tmp_path):
    """A function that starts a copy of one of the two programs, with a port of its own instead of 9999."""
    with contextlib.ExitStack() as children:

        def hello(name, port):
            script = tmp_path / name
            script.write_text((EXAMPLES / name).read_text().replace("9999", str(port)))
            start = ["-c", OBEDIENT] if sys.platform == "win32" else []
            child = Child([sys.executable, *start, str(script)], IOCPCORE_BACKEND=backend, PYTHONUNBUFFERED="1")
            children.callback(child.close)
            return child

        yield hello


def test_the_hello_client_prints_what_the_hello_server_sends_back(hello):
    server = hello("hello_server.py", 0)
    port = int(re.search(r"127\.0\.0\.1:(\d+)", server.line())[1])
    assert hello("hello_client.py", port).end() == (0, ["Hello, IOCP!"], [])
    server.signal("SIGINT")
    assert server.end() == (0, [], [])


def test_the_hello_client_says_why_it_cannot_connect(hello):
    with refusing_port() as port:
        status, lines, errors = hello("hello_client.py", port).end()
    assert (status, lines, len(errors)) == (1, [], 1)
    assert "Errno" in errors[0] or "WinError" in errors[0]


# ---- echo ----


def test_the_echo_server_sends_back_what_comes(serve):
    peer = serve("echo_server.py")()
    send_and_end(peer, b"Hello, IOCP!\n")
    assert receive_to_end(peer) == b"Hello, IOCP!\n"


# ---- chat ----


class Chatter:
    """A client of the chat server."""

    def __init__(self, sock):
        self.sock = sock
        self.lines = sock.makefile("rb")
        greeting = self.line().split()
        self.count, self.name = int(greeting[1]), greeting[-1]

    def say(self, data):
        self.sock.sendall(data)

    def line(self):
        return self.lines.readline()

    def leave(self):
        self.lines.close()
        self.sock.close()


@pytest.fixture
def three(serve):
    """Three who have seen each other come."""
    connect = serve("chat_server.py")
    chatters = []
    for number in range(3):
        chatters.append(Chatter(connect()))
        assert chatters[-1].count == number + 1
        for other in chatters[:-1]:
            assert other.line() == b"%s: has come\n" % chatters[-1].name
    yield chatters
    for chatter in chatters:
        chatter.leave()


def test_what_one_says_all_the_others_read(three):
    first, second, third = three
    first.say(b"hello\n")
    second.say(b"you too\r\n")
    assert second.line() == b"%s: hello\n" % first.name
    assert third.line() == b"%s: hello\n" % first.name
    assert first.line() == third.line() == b"%s: you too\n" % second.name


def test_lines_are_told_apart_however_they_come(three):
    first, second, third = three
    first.say(b"a\nb\nhalf")
    assert [third.line() for _ in range(2)] == [b"%s: %s\n" % (first.name, text) for text in (b"a", b"b")]
    second.say(b"between\n")
    assert third.line() == b"%s: between\n" % second.name
    first.say(b" a line\n")
    assert third.line() == b"%s: half a line\n" % first.name


def test_one_who_leaves_is_missed_by_the_others(three):
    three[0].leave()
    assert three[1].line() == three[2].line() == b"%s: has gone\n" % three[0].name


def test_one_who_sends_no_end_of_line_has_to_go(three):
    three[0].say(bytes(100_000))
    assert three[0].line() == b""
    three[0].leave()
    assert three[1].line() == three[2].line() == b"%s: has gone\n" % three[0].name


def test_one_who_reads_nothing_does_not_keep_the_others(serve):
    """What it was not sent would else be kept for ever."""
    connect = serve("chat_server.py")
    speaker, listener, deaf = (Chatter(connect()) for _ in range(3))
    assert [listener.line(), speaker.line(), speaker.line()][0] == b"%s: has come\n" % deaf.name
    line = b"x" * 4000 + b"\n"
    for _ in range(10_000):
        speaker.say(line)
        heard = listener.line()
        if heard != b"%s: %s" % (speaker.name, line):
            break
    assert heard == b"%s: has gone\n" % deaf.name


# ---- proxy ----


@pytest.fixture
def proxied(run):
    """A proxy's two ends: makes a plain socket that is connected through it to another."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(WAIT)
        example = run("tcp_proxy.py", "--target", "{}:{}".format(*target.getsockname()))
        address = example.address()

        def proxied():
            client = example.connect(address)
            server, _ = target.accept()
            server.settimeout(WAIT)
            example.opened.append(server)
            return client, server

        yield proxied


def test_large_data_comes_back_whole_through_the_proxy_from_an_echo_server(serve, proactor, echo):
    data = bytes(range(256)) * int(64 * MEGABYTE * SCALE / 256)
    peer = serve("tcp_proxy.py", "--target", f"127.0.0.1:{echo.port}")()
    with contextlib.ExitStack() as stack:
        in_thread(stack, send_and_end, peer, data)
        assert receive_to_end(peer) == data


def test_many_connections_through_the_proxy_at_once_keep_apart(serve, proactor, echo):
    proxy = serve("tcp_proxy.py", "--workers", "2", "--target", f"127.0.0.1:{echo.port}")
    peers = [proxy() for _ in range(20)]
    for number, peer in enumerate(peers):
        send_and_end(peer, b"%d" % number * 10_000)
    for number, peer in enumerate(peers):
        assert receive_to_end(peer) == b"%d" % number * 10_000


def run_tool(*command, body=b""):
    """What a program of the system prints; a sanitizer's library is not for it."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, input=body, capture_output=True, timeout=WAIT, check=True, env=environment)
    return done.stdout


def is_reset(sock):
    """Wine 8 may tell a receive that waits for one of an end instead."""
    try:
        return sock.recv(1) == b"" and sys.platform == "win32"
    except ConnectionError:
        return True


def send_until_nothing_moves(sock, most):
    """How many bytes went before the other side made us wait."""
    sent = 0
    sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += sock.send(bytes(65536))
    sock.settimeout(WAIT)
    return sent


@pytest.mark.parametrize("to", ["server", "client"])
def test_the_proxy_makes_a_sender_wait_for_a_slow_reader(proxied, to):
    client, server = proxied()
    sender, reader = (client, server) if to == "server" else (server, client)
    most = 256 * MEGABYTE
    sent = send_until_nothing_moves(sender, most)
    assert 0 < sent < most
    with contextlib.ExitStack() as stack:
        in_thread(stack, send_and_end, sender, b"the end")
        data = receive_to_end(reader)
    assert len(data) == sent + 7
    assert data.endswith(b"the end")


def test_a_slow_reader_of_one_direction_does_not_stop_the_other(proxied):
    client, server = proxied()
    send_until_nothing_moves(client, 256 * MEGABYTE)
    server.sendall(b"for you")
    assert receive_exactly(client, 7) == b"for you"


def test_the_end_of_one_direction_is_passed_on_while_the_other_goes_on(proxied):
    client, server = proxied()
    send_and_end(client, b"question")
    assert receive_to_end(server) == b"question"
    server.sendall(b"a long answer")
    assert receive_exactly(client, 13) == b"a long answer"
    server.shutdown(socket.SHUT_WR)
    assert receive_to_end(client) == b""


@pytest.mark.parametrize("by", ["client", "server"])
def test_a_reset_is_passed_on(proxied, by):
    client, server = proxied()
    client.sendall(b"x")
    receive_exactly(server, 1)  # the pair stands
    gone, other = (client, server) if by == "client" else (server, client)
    reset(gone)
    assert is_reset(other)


def test_a_target_that_refuses_costs_its_client_and_nothing_else(serve):
    with refusing_port() as port:
        proxy = serve("tcp_proxy.py", "--target", f"127.0.0.1:{port}")
        for _ in range(2):
            with contextlib.suppress(ConnectionError):  # so quickly that connecting itself saw it
                assert is_reset(proxy())


# ---- tick loop ----


@pytest.fixture
def game(serve):
    connect = serve("tick_loop.py")
    with contextlib.ExitStack() as stack:

        def join():
            sock = connect()
            return sock, stack.enter_context(sock.makefile("rb"))

        yield join


def until_places(lines, places):
    """The ticks until everybody is there; players are told apart by who came first."""
    ticks = []
    for line in itertools.islice(lines, 600):
        snapshot = json.loads(line)
        ticks.append(snapshot["tick"])
        if [place for _, place in sorted(snapshot["places"].items(), key=lambda item: int(item[0]))] == places:
            return ticks
    raise AssertionError(f"not in the ticks {ticks}")


def test_what_a_player_sends_shows_in_a_later_tick(game):
    sock, lines = game()
    sock.sendall(b"+++-")
    until_places(lines, [2])
    sock.sendall(b"---")
    until_places(lines, [-1])


def test_every_tick_comes_in_its_turn(game):
    sock, lines = game()
    ticks = until_places(lines, [0])
    for place in range(1, 6):
        sock.sendall(b"+")
        ticks += until_places(lines, [place])
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def test_players_see_each_other_come_and_go(game):
    (first, one), (second, two) = game(), game()
    first.sendall(b"-")
    second.sendall(b"+")
    until_places(one, [-1, 1])
    until_places(two, [-1, 1])
    one.close()  # it would keep the socket open
    reset(first)
    until_places(two, [1])


# ---- HTTP ----


@pytest.fixture
def web(run):
    pytest.importorskip("httptools")
    example = run("http_server.py")
    return example, example.address()


@pytest.fixture
def request_(web):
    """Ask on one connection, again and again; (status, body)."""
    connection = http.client.HTTPConnection(*web[1], timeout=WAIT)
    web[0].opened.append(connection)

    def request(method, target, body=None):
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()

    request.connection = connection
    yield request


def ask(web, data):
    """What a client gets that sends this and finishes."""
    peer = web[0].connect(web[1])
    send_and_end(peer, data)
    return receive_to_end(peer)


def test_requests_follow_each_other_on_one_connection(request_):
    assert request_("GET", "/") == (200, b"Hello\n")
    sock = request_.connection.sock
    assert request_("GET", "/nowhere")[0] == 404
    assert request_("POST", "/echo", b"some data") == (200, b"some data")
    assert request_("HEAD", "/") == (200, b"")
    assert request_("PUT", "/")[0] == 405
    assert request_.connection.sock is sock


def test_pipelined_requests_are_answered_in_their_order_also_after_the_clients_end(web):
    requests = [b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(9)]
    answers = ask(web, b"".join(requests)).split(b"HTTP/1.1 200 OK\r\n")
    assert [answer[-1:] for answer in answers] == [b"", *(b"%d" % number for number in range(9))]


def test_a_request_may_come_byte_by_byte(web):
    peer = web[0].connect(web[1])
    for byte in b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n":
        peer.sendall(bytes([byte]))
    assert receive_to_end(peer).endswith(b"\r\n\r\nHello\n")


def test_what_is_not_http_is_a_bad_request_and_the_end(web):
    assert ask(web, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_body_that_is_too_large_is_refused(web):
    peer = web[0].connect(web[1])
    peer.sendall(b"POST /echo HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + bytes(2 * MEGABYTE))
    assert receive_exactly(peer, 12) == b"HTTP/1.1 413"


def test_an_upgrade_that_we_do_not_know_is_answered_as_it_stands(web):
    answer = ask(web, b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"Hello\n")


def test_a_client_that_reads_no_answers_is_asked_no_more(web):
    peer = web[0].connect(web[1])
    request = b"POST /echo HTTP/1.1\r\nContent-Length: 65000\r\n\r\n" + bytes(65000)
    sent, whole = 0, request * 4000
    peer.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < len(whole):
            sent += peer.send(whole[sent : sent + 65536])
    assert sent < len(whole)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_curl_gets_what_it_asks_for(web):
    url = "http://{}:{}".format(*web[1])

    def curl(*arguments, body=b""):
        return run_tool("curl", "--silent", "--show-error", "--fail", "--noproxy", "*", *arguments, body=body)

    assert curl(f"{url}/", f"{url}/") == b"Hello\nHello\n"
    body = bytes(range(256)) * 2000
    assert curl("--data-binary", "@-", f"{url}/echo", body=body) == body


@pytest.mark.skipif(not shutil.which("wrk"), reason="no wrk here")
def test_wrk_sees_no_error(web):
    url = "http://{}:{}/".format(*web[1])
    report = run_tool("wrk", "-d", "1", "-c", "20", url)
    assert b"Requests/sec" in report
    assert b"errors" not in report and b"Non-2xx" not in report


# ---- embedding ----


@pytest.fixture
def embedded(run):
    example = run("embed.py")
    return example, example.address(), example.address("status")


def test_lines_are_answered_by_the_loop_in_their_order(embedded):
    example, address, _ = embedded
    peers = [example.connect(address) for _ in range(5)]
    for number, peer in enumerate(peers):
        send_and_end(peer, b"".join(b"line %d of %d\n" % (line, number) for line in range(1000)))
    for number, peer in enumerate(peers):
        expected = b"".join(b"LINE %d OF %d\n" % (line, number) for line in range(1000))
        assert receive_to_end(peer) == expected


def test_the_status_page_counts_the_sessions(embedded):
    example, address, status_address = embedded
    peer = example.connect(address)
    peer.sendall(b"x\n")
    assert receive_exactly(peer, 2) == b"X\n"
    stats = json.loads(receive_to_end(example.connect(status_address)))
    assert (stats["accepted"], stats["active"], stats["bytes_received"]) == (1, 1, 2)


def test_a_peer_that_goes_before_its_answer_does_no_harm(embedded):
    example, address, status_address = embedded
    for _ in range(20):
        peer = example.connect(address)
        peer.sendall(b"x\n" * 1000)
        reset(peer)
    until(lambda: json.loads(receive_to_end(example.connect(status_address)))["active"] == 0)


# ---- all of them ----


def test_every_example_is_tested_here():
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{example.name}"' in here for example in EXAMPLES.glob("*.py"))


# ---- a restart ----


@pytest.fixture
def restarting(backend):
    """Start the server that restarts; after the test its last successor is ended, and must have drained."""
    if sys.platform == "win32":
        pytest.skip("POSIX signals, and descriptors that a child inherits")
    child = Child([sys.executable, str(EXAMPLES / "restart_server.py"), "--port", "0"], IOCPCORE_BACKEND=backend)
    pids = [child.process.pid]

    def restart():
        """The number of the process that goes on, once it listens."""
        os.kill(pids[-1], signal.SIGHUP)
        words = child.line().split()
        assert (words[0], words[2:]) == ("process", ["goes", "on"])
        pids.append(int(words[1]))
        return pids[-1]

    restart.pids = pids
    try:
        port = int(child.line().rpartition(":")[2])
        yield port, restart
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[-1], signal.SIGTERM)
        status, _, errors = child.end()
        child.close()
    assert status == 0
    assert [line for line in errors if "sessions are over" not in line] == []


def ask_and_leave(port, line):
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as peer:
        peer.sendall(line)
        answer = receive_exactly(peer, len(line))
        peer.shutdown(socket.SHUT_WR)
        assert answer == line.upper()
        assert receive_to_end(peer) == b""


def test_a_restart_refuses_and_loses_no_connection(restarting):
    port, restart = restarting
    over = threading.Event()
    failures, asked = [], []

    def go_on_asking():
        try:
            while not over.is_set():
                ask_and_leave(port, b"is anybody there?\n")
                asked.append(1)
        except (OSError, AssertionError) as error:
            failures.append(error)

    clients = [threading.Thread(target=go_on_asking) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            before = len(asked)
            until(lambda before=before: len(asked) >= before + 20 or failures)
            restart()
    finally:
        over.set()
        for client in clients:
            client.join(WAIT)
    assert failures == []


def test_a_client_that_waits_for_its_answer_while_the_server_restarts_gets_it(restarting):
    port, restart = restarting
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as peer:
        peer.sendall(b"half a ")
        restart()
        ask_and_leave(port, b"the other one serves\n")
        peer.sendall(b"line\n")
        assert receive_to_end(peer) == b"HALF A LINE\n"


def test_a_second_sighup_does_not_end_a_server_that_drains(restarting):
    """It keeps that signal blocked: the others end it then."""
    port, restart = restarting
    old = restart.pids[0]
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as peer:
        peer.sendall(b"half a ")
        restart()
        os.kill(old, signal.SIGHUP)
        until(lambda: signal.SIGTERM not in blocked_by(old))
        peer.sendall(b"line\n")
        assert receive_to_end(peer) == b"HALF A LINE\n"


def blocked_by(pid):
    """The signals that its main thread has blocked, by what Linux tells."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mask = int(status["SigBlk"], 16)
    return {number for number in signal.valid_signals() if mask >> number - 1 & 1}


@pytest.fixture
def predecessor(backend, tmp_path):
    """A server that restarts, from a script of its own: (the child, its port, the script)."""
    if sys.platform == "win32":
        pytest.skip("POSIX signals, and descriptors that a child inherits")
    script = Path(shutil.copy(EXAMPLES / "restart_server.py", tmp_path))
    script.write_text(script.read_text().replace("PATIENCE = 10.0", "PATIENCE = 0.2"))
    child = Child([sys.executable, script, "--port", "0"], IOCPCORE_BACKEND=backend)
    try:
        yield child, int(child.line().rpartition(":")[2]), script
    finally:
        child.close()


def still_serves(child, port):
    ask_and_leave(port, b"still here?\n")
    child.signal("SIGTERM")
    assert child.end()[0] == 0


@pytest.mark.parametrize(("program", "status"), [("raise SystemExit(3)", 3), ("import time; time.sleep(60)", -9)])
def test_a_successor_that_does_not_listen_leaves_the_server_as_it_is(predecessor, program, status):
    child, port, script = predecessor
    script.write_text(program)
    child.signal("SIGHUP")
    assert f"the successor has ended with status {status}" in child.errors.get(timeout=WAIT)
    still_serves(child, port)


def test_a_successor_that_cannot_be_started_leaves_the_server_as_it_is(predecessor):
    import resource  # POSIX only

    child, port, _ = predecessor
    files = resource.prlimit(child.process.pid, resource.RLIMIT_NOFILE, (3, 3 + 1000))
    child.signal("SIGHUP")
    assert "no successor can be started" in child.errors.get(timeout=WAIT)
    resource.prlimit(child.process.pid, resource.RLIMIT_NOFILE, (min(files[0], 1003), 1003))
    still_serves(child, port)


@pytest.mark.skipif(sys.platform == "win32", reason="UNIX sockets for datagrams")
def test_systemd_is_told_who_listens(backend, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(WAIT)
        command = [sys.executable, str(EXAMPLES / "restart_server.py"), "--port", "0"]
        child = Child(command, IOCPCORE_BACKEND=backend, NOTIFY_SOCKET=str(tmp_path / "notify"))
        try:
            assert notify.recv(100) == b"READY=1\nMAINPID=%d" % child.process.pid
            child.signal("SIGTERM")
            assert child.end()[0] == 0
        finally:
            child.close()
