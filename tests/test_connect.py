"""Connecting: sessions of handlers, and the load client's."""

import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

import iocpcore
from support import WAIT, Acting, Recorder, assert_nothing_left, open_handles, receive_exactly, refusing_port, until


def test_a_refused_connection_is_an_error_with_the_systems_words(backend):
    load = iocpcore.Load(connections=3, messages=1)
    with refusing_port() as port, iocpcore.Proactor(1, backend) as proactor:
        load.start(proactor, "127.0.0.1", port)
        assert load.wait(WAIT)
    result = load.result()
    assert (result["errors"], result["echoes"]) == (3, 0)
    assert "refused" in result["error"].lower()
    assert proactor.stats().connect_failures == 3
    assert_nothing_left(proactor)


def test_connecting_works_on_ipv6(proactor):
    listener = proactor.listen(iocpcore.ECHO, "::1")
    load = iocpcore.Load(connections=2, messages=10)
    load.start(proactor, "::1", listener.port)
    assert load.wait(WAIT)
    assert load.result()["errors"] == 0
    assert load.result()["echoes"] == 20


def test_closing_while_connecting_ends_the_attempt(backend):
    """A listener whose backlog is full leaves the next connection pending."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        load = iocpcore.Load(connections=20, messages=1)
        proactor = iocpcore.Proactor(1, backend)
        load.start(proactor, *full.getsockname())
        until(lambda: proactor.stats().submitted >= 20)
        proactor.close(0)
        assert load.wait(WAIT)
    assert load.result()["errors"] == 20
    assert_nothing_left(proactor)


def test_a_host_that_does_not_resolve_is_the_resolvers_error_and_the_load_can_still_start(proactor, echo):
    load = iocpcore.Load(connections=1, messages=1)
    with pytest.raises(socket.gaierror):
        load.start(proactor, "nowhere.invalid", 9)
    load.start(proactor, "127.0.0.1", echo.port)
    assert load.wait(WAIT)


def test_connections_are_spread_over_the_workers(backend, connect):
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent, iocpcore.Proactor(4, backend) as proactor:
        load = iocpcore.Load(connections=40, messages=1)
        load.start(proactor, *silent.getsockname())
        until(lambda: [row.connected for row in proactor.stats().workers] == [10, 10, 10, 10])
        proactor.close(0)


def test_a_started_load_sends_its_first_messages_at_once(proactor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        load = iocpcore.Load(connections=1, messages=10, size=100, pipeline=4)
        load.start(proactor, *server.getsockname())
        peer, _ = server.accept()
        with peer:
            peer.settimeout(WAIT)
            assert len(receive_exactly(peer, 400)) == 400
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)


# ---- handlers ----


def test_a_session_connects_talks_and_ends(proactor, echo):
    handler = Recorder()
    session = proactor.connect(handler, "127.0.0.1", echo.port)
    session.send(b"queued before there is a connection")
    until(lambda: handler.received() == b"queued before there is a connection")
    session.close()
    assert handler.wait_for("on_close") == (session, None)
    assert handler.names()[0] == "on_connect"
    assert session.data is None


def test_what_was_queued_for_a_connection_that_never_came_is_unsent(proactor):
    handler = Recorder()
    leave = threading.Event()
    proactor.post(leave.wait, WAIT)  # else the refusal may come before the send
    with refusing_port() as port:
        session = proactor.connect(handler, "127.0.0.1", port)
        session.send(b"in vain")
        leave.set()
        _, error = handler.wait_for("on_close")
    assert isinstance(error, ConnectionRefusedError)
    assert session.unsent == 7


def test_the_local_address_is_the_one_asked_for(proactor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        with refusing_port() as port:
            pass
        session = proactor.connect(Recorder(), *server.getsockname(), local_address=("127.0.0.1", port))
        peer, address = server.accept()
        peer.close()
        assert address == ("127.0.0.1", port)
        until(lambda: session.sockname == address)
        session.abort()


@pytest.mark.skipif(sys.platform == "win32", reason="wine has one loopback address")
def test_another_loopback_address_may_be_the_local_one(proactor, echo):
    handler = Recorder()
    session = proactor.connect(handler, "127.0.0.1", echo.port, local_address=("127.0.0.2", 0))
    handler.wait_for("on_connect")
    assert session.sockname[0] == "127.0.0.2"


def test_a_local_address_in_use_is_the_systems_error_and_leaves_nothing(proactor, echo):
    handles = open_handles()
    with refusing_port() as port, pytest.raises(OSError, match=f"cannot connect from 127.0.0.1 port {port}"):
        proactor.connect(Recorder(), "127.0.0.1", echo.port, local_address=("127.0.0.1", port))
    assert open_handles() <= handles


def test_a_local_host_that_does_not_resolve_is_the_callers_error(proactor, echo):
    handles = open_handles()
    with pytest.raises(socket.gaierror, match="nowhere.invalid"):
        proactor.connect(Recorder(), "127.0.0.1", echo.port, local_address=("nowhere.invalid", 0))
    assert open_handles() <= handles


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".invalid", "\udcff"], ids=["empty", "long", "surrogate"])
def test_a_host_with_an_impossible_label_does_not_resolve(proactor, host):
    for use in (
        lambda: proactor.connect(Recorder(), host, 9),
        lambda: proactor.connect(Recorder(), "127.0.0.1", 9, local_address=(host, 0)),
        lambda: proactor.listen(iocpcore.ECHO, host),
        lambda: iocpcore.Load().start(proactor, host, 9),
    ):
        with pytest.raises(socket.gaierror, match="cannot resolve"):
            use()


@pytest.mark.parametrize("address", [("::1", 0), ("::1", 0, 0, 0), ("", 0)])
def test_the_local_address_may_have_all_that_ipv6_has(proactor, address):
    handler = Recorder()
    listener = proactor.listen(iocpcore.ECHO, "::1")
    session = proactor.connect(handler, "::1", listener.port, local_address=address)
    handler.wait_for("on_connect")
    assert session.sockname[0] == "::1"


@pytest.mark.skipif(sys.platform == "win32", reason="under wine a port rests after its connection, as on Linux")
def test_a_given_local_port_is_free_again_after_its_connection(proactor):
    with refusing_port() as port:
        pass
    for _ in range(2):
        listener = proactor.listen(Acting(on_end=iocpcore.Session.end))
        handler = Acting(on_connect=iocpcore.Session.close)
        session = proactor.connect(handler, "127.0.0.1", listener.port, local_address=("127.0.0.1", port))
        assert handler.wait_for("on_close") == (session, None)  # we have ended first: the port rests on our side
        assert session.sockname == ("127.0.0.1", port)


def run_in_a_network_of_its_own(setup, code):
    """A program in a network namespace where nothing but lo is there; what it printed."""
    if not all(map(shutil.which, ("unshare", "ip"))):
        pytest.skip("this system has no unshare or no ip")
    setup = f"ip link set lo up && {setup}"
    if subprocess.run(["unshare", "-n", "sh", "-c", setup], capture_output=True).returncode != 0:
        pytest.skip("this user may make no network namespace")
    command = ["unshare", "-n", "sh", "-c", f'{setup} && exec "$0" -c "$1"', sys.executable, code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=WAIT).stdout


def test_a_scope_id_is_taken_and_told(backend):
    output = run_in_a_network_of_its_own(
        "ip address add fe80::1/64 dev lo nodad",
        f"""
import iocpcore, socket, threading
scope = socket.if_nametoindex("lo")
class Note:
    def on_connect(self, session):
        print(session.sockname[0], session.sockname[2:] == (0, scope), session.peername[2:] == (0, scope), flush=True)
        session.close()
    def on_close(self, session, error):
        over.set()
with iocpcore.Proactor(1, {backend!r}) as proactor:
    listener = proactor.listen(iocpcore.ECHO, "fe80::1%lo")
    assert listener.address[3] == scope
    for local in (None, ("fe80::1%lo", 0), ("fe80::1", 0, 0, scope)):
        over = threading.Event()
        proactor.connect(Note(), "fe80::1%lo", listener.port, local_address=local)
        assert over.wait(30)
""",
    )
    assert output.splitlines() == ["fe80::1 True True"] * 3


def test_connections_from_one_local_address_share_the_ports_that_the_system_chooses(backend):
    output = run_in_a_network_of_its_own(
        "echo 50000 50003 >/proc/sys/net/ipv4/ip_local_port_range",
        f"""
import iocpcore, time
class Note:
    def on_connect(self, session):
        connected.append(session)
    def on_close(self, session, error):
        print(error)
connected = []
with iocpcore.Proactor(1, {backend!r}) as proactor:
    listeners = [proactor.listen(iocpcore.ECHO, port=1000 + i) for i in range(20)]
    for listener in listeners:
        proactor.connect(Note(), *listener.address, local_address=("127.0.0.1", 0))
    deadline = time.monotonic() + 20
    while len(connected) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(len(connected), flush=True)
    proactor.close(0)
""",
    )
    assert output.splitlines()[0] == "20"


def test_a_host_that_does_not_resolve_is_the_callers_error(proactor):
    with pytest.raises(socket.gaierror, match="nowhere.invalid"):
        proactor.connect(Recorder(), "nowhere.invalid", 9)


def test_a_session_that_a_callback_connects_comes_to_the_callbacks_worker(backend, echo_server):
    where = []

    def connect(worker):
        note = Acting(on_connect=lambda session: where.append((worker, threading.current_thread().name)))
        for _ in range(3):
            proactor.connect(note, "127.0.0.1", echo_server.port)

    with iocpcore.Proactor(3, backend) as proactor:
        for worker in range(3):
            proactor.post(connect, worker, worker=worker)
        until(lambda: len(where) == 9)
        proactor.close(0)
    assert all(name == f"iocpcore-worker-{worker}" for worker, name in where)


@pytest.fixture
def echo_server(backend):
    with iocpcore.Proactor(1, backend) as proactor:
        yield proactor.listen(iocpcore.ECHO)
        proactor.close(0)


def test_an_attempt_that_takes_too_long_is_a_timeout_error(proactor, full_server):
    handler = Recorder()
    session = proactor.connect(handler, *full_server, timeout=0.2)
    told, error = handler.wait_for("on_close")
    assert told is session
    assert isinstance(error, TimeoutError)
    assert handler.names() == ["on_close"]
    until(lambda: proactor.stats().connect_failures == 1)


def test_sending_does_not_give_an_attempt_more_time(backend, full_server):
    handler = Recorder()
    with iocpcore.Proactor(1, backend) as proactor:
        sooner = proactor.connect(handler, *full_server, timeout=1.0)
        later = proactor.connect(handler, *full_server, timeout=1.4)
        time.sleep(0.7)  # with a second more from here, it would be the later one
        sooner.send(b"x")
        until(lambda: len(handler.of("on_close")) == 2)
        assert [session for session, _ in handler.of("on_close")] == [sooner, later]


def test_closing_a_session_that_waits_for_its_connection_gives_it_up(proactor, full_server):
    handler = Recorder()
    session = proactor.connect(handler, *full_server)
    session.close()
    assert handler.wait_for("on_close") == (session, None)


def test_aborting_a_session_that_waits_for_its_connection_counts_what_it_was_to_send(proactor, full_server):
    handler = Recorder()
    session = proactor.connect(handler, *full_server)
    session.send(b"never")
    session.close()
    session.abort()
    assert handler.wait_for("on_close") == (session, None)
    assert session.unsent == 5


WRONG = [
    ({"handler": iocpcore.ECHO}, TypeError, "Load"),
    ({"handler": iocpcore.Load()}, TypeError, "Load"),
    ({"handler": Recorder}, TypeError, "class"),
    ({"host": 5}, TypeError, "host"),
    ({"port": "80"}, TypeError, "port"),
    ({"port": 0}, ValueError, "port"),
    ({"port": 65536}, ValueError, "port"),
    ({"timeout": -1}, ValueError, "timeout"),
    ({"timeout": float("nan")}, ValueError, "timeout"),
    ({"timeout": "1"}, TypeError, "timeout"),
    ({"local_address": "127.0.0.1"}, TypeError, "local_address"),
    ({"local_address": ("127.0.0.1",)}, TypeError, "local_address"),
    ({"local_address": ("127.0.0.1", 0, 0, 0)}, TypeError, "local_address"),
    ({"local_address": (1, 2)}, TypeError, "local_address"),
    ({"local_address": ("127.0.0.1", "1")}, TypeError, "local_address"),
    ({"local_address": ("127.0.0.1", 65536)}, ValueError, "local_address"),
    ({"backlog": 5}, TypeError, r"connect\(\) got an unexpected keyword argument 'backlog'"),
]


@pytest.mark.parametrize("arguments, error, words", WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_of_connect_is_refused(proactor, echo, arguments, error, words):
    handles = open_handles()
    arguments = {"handler": Recorder(), "host": "127.0.0.1", "port": echo.port, **arguments}
    with pytest.raises(error, match=words):
        proactor.connect(**arguments)
    assert open_handles() <= handles
    assert proactor.stats().active == 0
