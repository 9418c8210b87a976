"""Accepting goes on, whatever becomes of single connections."""

import contextlib
import os
import queue
import socket
import sys
import threading

import pytest

import iocpcore
from support import (
    SCALE,
    WAIT,
    Child,
    balanced,
    is_wine,
    open_handles,
    receive_exactly,
    receive_to_end,
    reset,
    run_python,
    until,
)

ACCEPTS = 16  # that a listener has posted


def test_twenty_thousand_resets_leave_the_listener_accepting(proactor, echo, connect):
    """A batch of connections is reset at once, so that some are gone before they were accepted."""
    batch = 100

    def storm():
        peers = [connect(echo) for _ in range(batch)]
        for peer in peers:
            reset(peer)

    def at_rest():
        """All accepts are posted again: those that a reset connection made fail may take a while, without a handle."""
        stats = proactor.stats()
        return stats.active == 0 and stats.in_flight == ACCEPTS

    storm()
    until(at_rest)
    before = open_handles()
    for _ in range(int(20_000 * SCALE) // batch):
        storm()
    peer = connect(echo)
    peer.sendall(b"still here")
    assert receive_exactly(peer, 10) == b"still here"
    peer.close()
    until(lambda: at_rest() and open_handles() <= before)
    assert balanced(proactor.stats())


def test_more_connections_than_posted_accepts_are_all_served(echo, connect):
    peers = [connect(echo) for _ in range(100)]
    for number, peer in enumerate(peers):
        peer.sendall(b"%03d" % number)
    assert [receive_exactly(peer, 3) for peer in peers] == [b"%03d" % number for number in range(100)]


def test_a_closed_listener_refuses_and_its_sessions_go_on(proactor, echo, connect):
    peer = connect(echo)
    peer.sendall(b"before")
    assert receive_exactly(peer, 6) == b"before"
    echo.close()
    until(lambda: proactor.stats().cancelled >= 16)  # its pre-posted accepts
    with pytest.raises(OSError):
        socket.create_connection(echo.address, timeout=5).close()
    peer.sendall(b"after")
    assert receive_exactly(peer, 5) == b"after"


def ask_all(peers):
    """What an echo answers to each of them."""
    for number, peer in enumerate(peers):
        peer.sendall(b"%03d" % number)
    return [receive_exactly(peer, 3) for peer in peers]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_waits_when_its_listener_closes_is_served(backend, connect, workers):
    """The worker was busy while it came: in the system's queue, or in packets that nobody had dequeued."""
    with iocpcore.Proactor(workers, backend) as proactor:
        listener = proactor.listen(iocpcore.ECHO)
        busy, leave = threading.Event(), threading.Event()
        proactor.post(lambda: busy.set() or leave.wait(WAIT), worker=0)
        assert busy.wait(WAIT)
        peers = [connect(listener) for _ in range(40)]
        closing = threading.Thread(target=listener.close)
        closing.start()
        leave.set()
        closing.join(WAIT)
        assert ask_all(peers) == [b"%03d" % number for number in range(40)]
        assert proactor.stats().refused == 0


def test_a_callback_that_closes_a_listener_loses_nobody_and_has_its_port_at_once(proactor, echo, connect):
    busy, leave = threading.Event(), threading.Event()
    results = queue.Queue()

    def move():
        busy.set()
        leave.wait(WAIT)
        echo.close()
        try:
            results.put(proactor.listen(iocpcore.ECHO, port=echo.port))
        except OSError as error:
            results.put(error)

    proactor.post(move)
    assert busy.wait(WAIT)
    peers = [connect(echo) for _ in range(40)]
    leave.set()
    again = results.get(timeout=WAIT)
    assert isinstance(again, iocpcore.Listener)
    peers += [connect(again) for _ in range(10)]
    assert ask_all(peers) == [b"%03d" % number for number in range(50)]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_port_of_a_closed_listener_is_free_though_it_has_sessions(backend, connect, workers):
    with iocpcore.Proactor(workers, backend) as proactor:
        port = 0
        for _ in range(50):
            listener = proactor.listen(iocpcore.ECHO, port=port)
            port = listener.port
            for _ in range(3):
                connect(listener)
            listener.close()
        proactor.close(0)


# It closes its listener when it is told to, and ends at the next line.
OLD_SERVER = """
import sys, iocpcore
with iocpcore.Proactor(backend=sys.argv[1]) as proactor:
    listener = proactor.listen(iocpcore.ECHO)
    print(listener.port, flush=True)
    sys.stdin.readline()
    listener.close()
    print("closed", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def old_server(backend):
    with contextlib.closing(Child([sys.executable, "-c", OLD_SERVER, backend])) as child:
        yield child


def test_a_new_process_listens_while_the_old_one_serves_its_last_connections(old_server, proactor):
    """Under wine too, which has Linux's rules: Windows may keep a port for as long as they live."""
    address = "127.0.0.1", int(old_server.line())
    with socket.create_connection(address, timeout=WAIT) as before:
        assert ask_all([before]) == [b"000"]
        old_server.tell("close the listener")
        assert old_server.line() == "closed"
        try:
            proactor.listen(iocpcore.ECHO, *address)
        except OSError as error:
            if getattr(error, "winerror", None) != 10048 or is_wine():
                raise
            pytest.xfail("Windows keeps the port while its connections live: docs/windows.md, exclusive-address")
        with socket.create_connection(address, timeout=WAIT) as after:
            assert ask_all([before, after]) == [b"000", b"001"]


def test_a_restart_does_not_wait_for_connections_that_the_old_process_has_ended(old_server, proactor, connect):
    address = "127.0.0.1", int(old_server.line())
    with socket.create_connection(address, timeout=WAIT) as peer:
        assert ask_all([peer]) == [b"000"]
        old_server.tell("close the listener")
        old_server.tell("end")
        assert receive_to_end(peer) == b""  # its side ends first, and rests in TIME_WAIT
    assert old_server.end()[0] == 0
    assert ask_all([connect(proactor.listen(iocpcore.ECHO, *address))]) == [b"000"]


def test_closing_a_listener_in_another_workers_callback_does_not_wait(backend, connect):
    with iocpcore.Proactor(2, backend) as proactor:
        listener = proactor.listen(iocpcore.ECHO)
        leave = threading.Event()
        results = queue.Queue()
        proactor.post(leave.wait, 2 * WAIT, worker=0)  # the listener's worker
        proactor.post(lambda: results.put(listener.close()), worker=1)
        assert results.get(timeout=WAIT) is None
        leave.set()
        until(lambda: refuses(listener.address))


def test_closing_a_listener_whose_worker_is_busy_says_so_and_closes_it_later(proactor, echo, monkeypatch):
    monkeypatch.setattr(iocpcore._core, "MARGIN", 0.05)
    busy, leave = threading.Event(), threading.Event()
    proactor.post(lambda: busy.set() or leave.wait(2 * WAIT))
    assert busy.wait(WAIT)
    with pytest.raises(RuntimeError, match="worker 0 has been busy"):
        echo.close()
    leave.set()
    until(lambda: refuses(echo.address))
    echo.close()


def test_closing_a_listener_twice_and_by_several_threads_is_fine(proactor, echo):
    threads = [threading.Thread(target=echo.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    echo.close()
    proactor.listen(iocpcore.ECHO, port=echo.port).close()


def refuses(address):
    try:
        socket.create_connection(address, timeout=WAIT).close()
    except OSError:
        return True
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_listener_refuses_and_its_port_is_free_though_a_forked_child_has_its_socket(backend, workers):
    output = run_python(
        f"""
import os, socket, sys, warnings
sys.path[:0] = {sys.path!r}
warnings.simplefilter("ignore", DeprecationWarning)    # newer Pythons dislike a fork with threads, and are right
import iocpcore
from support import until
from test_accept import refuses
with iocpcore.Proactor({workers}, {backend!r}) as proactor:
    listener = proactor.listen(iocpcore.ECHO)
    end, keep = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(keep)
        os.read(end, 1)
        os._exit(0)
    listener.close()
    if not proactor.workers:
        proactor.poll(0)
    until(lambda: refuses(listener.address))
    proactor.listen(iocpcore.ECHO, port=listener.port).close()
    os.close(keep)
    print(os.waitpid(child, 0)[1])
"""
    )
    assert output.strip() == "0"


def test_a_listener_of_a_given_socket_closes_and_who_has_a_duplicate_listens_on(proactor):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = proactor.listen(iocpcore.ECHO, sock=sock.dup())
        before = proactor.stats().cancelled
        listener.close()
        until(lambda: proactor.stats().cancelled >= before + 16)
        sock.settimeout(WAIT)
        with socket.create_connection(listener.address, timeout=WAIT) as peer:
            accepted, address = sock.accept()
            accepted.close()
            assert address == peer.getsockname()


def test_no_accept_blocks_its_worker_though_the_sockets_owner_makes_it_blocking_again_and_again(proactor, connect):
    """As each socket.dup() does, for the duplicate has the same flags."""
    over = threading.Event()

    def make_blocking(sock):
        while not over.is_set():
            sock.setblocking(True)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = proactor.listen(iocpcore.ECHO, sock=sock.dup())
        owner = threading.Thread(target=make_blocking, args=(sock,))
        owner.start()
        try:
            for _ in range(max(20, int(2000 * SCALE))):
                peer = connect(listener)
                peer.sendall(b"x")
                assert receive_exactly(peer, 1) == b"x"
                peer.close()
        finally:
            over.set()
            connect(listener).close()  # a worker that waits in the system is let go, so that the test can end
            owner.join(WAIT)


@pytest.mark.skipif(sys.platform == "win32", reason="wine asks Linux for the name, which is gone after a reset")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_names_of_a_peer_that_resets_at_once_are_known(backend, workers):
    """They are taken as it is accepted; after a reset the system does not know the peer's any more."""
    names = queue.Queue()

    class Handler:
        def on_connect(self, session):
            names.put((session.peername, session.sockname))

    with iocpcore.Proactor(workers, backend) as proactor:
        listener = proactor.listen(Handler())
        if not workers:
            proactor.poll(0)
        known = {}
        for _ in range(int(300 * SCALE)):
            peer = socket.create_connection(listener.address, timeout=WAIT)
            known[peer.getsockname()] = listener.address
            reset(peer)
            while not workers and proactor.poll(0.01):
                pass
        until(lambda: not names.empty() and proactor.stats().active == 0)
        told = dict(names.queue)
        assert told.items() <= known.items()
        proactor.close(0)


def test_a_listener_is_armed_when_listen_returns(proactor):
    before = proactor.stats().submitted
    proactor.listen(iocpcore.ECHO)
    until(lambda: proactor.stats().submitted >= before + 16)  # the row is published after the batch


def listen_or_error(proactor):
    try:
        return proactor.listen(iocpcore.ECHO)
    except RuntimeError as error:
        return error


def test_of_two_callbacks_that_listen_on_each_others_proactors_one_is_refused(backend):
    both_busy = threading.Barrier(2)
    results = queue.Queue()

    def listen_on(other):
        both_busy.wait(WAIT)
        results.put(listen_or_error(other))

    with iocpcore.Proactor(1, backend) as one, iocpcore.Proactor(1, backend) as two:
        one.post(listen_on, two)
        two.post(listen_on, one)
        outcomes = [results.get(timeout=WAIT) for _ in range(2)]
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Listener", "RuntimeError"]
        assert all(isinstance(listen_or_error(proactor), iocpcore.Listener) for proactor in (one, two))


def test_a_polling_thread_and_a_callback_that_listen_on_each_others_proactors_do_not_wait_for_ever(backend):
    busy = threading.Event()
    results = queue.Queue()

    def listen_on(other):
        busy.set()
        results.put(listen_or_error(other))

    with iocpcore.Proactor(1, backend) as worked, iocpcore.Proactor(0, backend) as polled:
        polled.poll(0)
        worked.post(listen_on, polled)
        assert busy.wait(WAIT)
        outcomes = [listen_or_error(worked)]
        until(lambda: not polled.poll(0) and not results.empty())
        outcomes.append(results.get(timeout=WAIT))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Listener", "RuntimeError"]


def test_a_signal_handler_that_listens_hides_nobody_who_waits(backend):
    """The circle of the test above is closed while the one who waits first has listened in between."""
    output = run_python(
        f"""
import iocpcore, signal, threading, time

main = threading.get_ident()
heard = threading.Event()

def interrupt():
    while main not in iocpcore._core._waiting:
        time.sleep(0.001)
    signal.raise_signal(signal.SIGINT)

def listen_on_theirs():
    heard.wait()
    try:
        polled.listen(iocpcore.ECHO)
    except RuntimeError as error:
        print(error)

def on_signal(number, frame):
    third.listen(iocpcore.ECHO)
    heard.set()

signal.signal(signal.SIGINT, on_signal)
backend = {backend!r}
with iocpcore.Proactor(1, backend) as third, iocpcore.Proactor(1, backend) as worked:
    with iocpcore.Proactor(0, backend) as polled:
        polled.poll(0)
        worked.post(listen_on_theirs)
        threading.Thread(target=interrupt).start()
        worked.listen(iocpcore.ECHO)
"""
    )
    assert "would wait for ever" in output


def test_many_listeners_share_a_proactor(proactor, connect):
    listeners = [proactor.listen(iocpcore.ECHO) for _ in range(5)]
    for listener in listeners:
        peer = connect(listener)
        peer.sendall(b"x")
        assert receive_exactly(peer, 1) == b"x"


@pytest.mark.skipif(sys.platform == "win32", reason="a duplicate cannot shut a listening socket down there")
def test_a_listener_that_only_fails_does_not_spin(proactor, echo):
    """Its socket is broken from outside: every accept fails, and not for want of descriptors."""
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    listening = [number for number in numbers if is_listening(number, echo.port)]
    duplicate = socket.socket(fileno=os.dup(listening[0]))
    duplicate.shutdown(socket.SHUT_RDWR)
    duplicate.close()
    until(lambda: proactor.stats().accept_failures > 256)
    begin = proactor.stats()
    until(lambda: proactor.stats().accept_failures >= begin.accept_failures + 5 * 16)
    end = proactor.stats()
    tries = (end.accept_failures - begin.accept_failures) / 16
    assert end.dequeues - begin.dequeues <= 8 * tries


def is_listening(number, port):
    try:
        with socket.socket(fileno=os.dup(number)) as sock:
            return sock.getsockname()[1:2] == (port,) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False


SHORTAGE = """
import resource, socket, sys
sys.path.insert(0, {tests!r})
import iocpcore
from support import receive_exactly, until

proactor = iocpcore.Proactor(1, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
first = socket.create_connection(listener.address, timeout=30)
first.sendall(b"1")
assert receive_exactly(first, 1) == b"1"

# Peers made beforehand need no descriptor later; the server's side of their connections does.
peers = [socket.socket() for _ in range(20)]
used = max(peer.fileno() for peer in peers) + 1
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for peer in peers:
    peer.settimeout(30)
    peer.connect(listener.address)
failures = lambda: proactor.stats().accept_failures
until(lambda: failures() > 0)

# The session that is there goes on.
first.sendall(b"2")
assert receive_exactly(first, 1) == b"2"

# Every further try costs a few dequeues at most: it waits, it does not spin.
begin = proactor.stats()
until(lambda: failures() >= begin.accept_failures + 5 * 16)
end = proactor.stats()
tries = (end.accept_failures - begin.accept_failures) / 16
assert end.dequeues - begin.dequeues <= 8 * tries, (begin, end)

# Descriptors return: every peer is served.
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for peer in peers:
    peer.sendall(b"3")
    assert receive_exactly(peer, 1) == b"3"
for peer in [first, *peers]:
    peer.close()
proactor.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of sockets that a process could lower")
def test_without_descriptors_sessions_go_on_and_accepting_resumes(backend, pytestconfig):
    run_python(SHORTAGE.format(backend=backend, tests=str(pytestconfig.rootpath / "tests")), timeout=2 * WAIT)


def test_a_callback_may_listen_where_one_that_waited_for_its_worker_has_its_answer_already(backend):
    over = threading.Event()
    results = queue.Queue()

    def listen_on(other):
        results.put(listen_or_error(other))

    def spin():  # so that the thread that waited for an answer has to wait for the GIL too
        while not over.is_set():
            pass

    def ask_and_be_asked(one, two):
        two.post(listen_on, one)
        until(lambda: waiting)
        one.post(listen_on, two)

    waiting = iocpcore._core._waiting
    threading.Thread(target=spin, daemon=True).start()
    try:
        with iocpcore.Proactor(1, backend) as one, iocpcore.Proactor(1, backend) as two:
            for _ in range(20):
                one.post(ask_and_be_asked, one, two)
                outcomes = [results.get(timeout=WAIT) for _ in range(2)]
                assert all(isinstance(outcome, iocpcore.Listener) for outcome in outcomes)
    finally:
        over.set()
