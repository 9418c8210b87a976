"""adopt() for connected sockets, listen(sock=) for listening ones: those that something else has made."""

import contextlib
import gc
import os
import socket
import ssl
import struct
import sys
import threading

import pytest

import iocpcore
from support import (
    WAIT,
    Acting,
    Recorder,
    assert_nothing_left,
    receive_exactly,
    reset,
    run_python,
    until,
)


@pytest.fixture
def accepted():
    """Both ends of a connection: what a server of the standard library has accepted, and its peer."""
    opened = []

    def accepted(host="127.0.0.1", family=socket.AF_INET):
        with socket.create_server((host, 0), family=family) as server:
            peer = socket.create_connection(server.getsockname()[:2], timeout=WAIT)
            peer.settimeout(WAIT)
            sock, _ = server.accept()
        opened.extend((peer, sock))
        return sock, peer

    yield accepted
    for sock in opened:
        sock.close()


@pytest.mark.parametrize("host, family", [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_an_accepted_socket_becomes_a_session(proactor, accepted, host, family):
    sock, peer = accepted(host, family)
    handler = Acting(on_receive=lambda session, data: session.send(data.upper()))
    session = proactor.adopt(handler, sock)
    assert sock.fileno() == -1
    peer.sendall(b"hello")
    assert receive_exactly(peer, 5) == b"HELLO"
    assert handler.names() == ["on_connect", "on_receive"]
    assert session is handler.of("on_connect")[0][0]
    assert session.peername == peer.getsockname()
    assert session.sockname == peer.getpeername()
    assert session.listener is None


def test_the_peer_of_an_adopted_socket_sees_its_end_though_somebody_keeps_a_duplicate(proactor, accepted):
    sock, peer = accepted()
    with sock.dup():
        proactor.adopt(iocpcore.ECHO, sock)
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""


@pytest.mark.skipif(sys.platform == "win32", reason="a socket does not say there whether it blocks")
@pytest.mark.parametrize("blocking", [False, True])
def test_who_keeps_a_duplicate_of_an_adopted_socket_finds_it_blocking_or_not_as_before(proactor, accepted, blocking):
    sock, peer = accepted()
    sock.setblocking(blocking)
    with sock.dup() as other:
        proactor.adopt(iocpcore.ECHO, sock)
        peer.sendall(b"x" * 100_000)
        assert receive_exactly(peer, 100_000) == b"x" * 100_000
        assert os.get_blocking(other.fileno()) == blocking


def test_adopted_sockets_are_counted(proactor, accepted):
    for handler in (Recorder(), iocpcore.ECHO):
        proactor.adopt(handler, accepted()[0])
    until(lambda: proactor.stats().adopted == 2)
    assert (proactor.stats().accepted, proactor.stats().connected) == (0, 0)


def test_a_session_that_was_adopted_can_be_used_at_once(proactor, accepted):
    sock, peer = accepted()
    session = proactor.adopt(Recorder(), sock)
    session.send(b"at once")
    session.close()
    assert receive_exactly(peer, 8) == b"at once"


def test_data_that_came_before_is_not_lost(proactor, accepted):
    sock, peer = accepted()
    peer.sendall(b"early")
    handler = Recorder()
    proactor.adopt(handler, sock)
    until(lambda: handler.received() == b"early")


def test_the_native_echo_can_adopt(proactor, accepted):
    sock, peer = accepted()
    assert proactor.adopt(iocpcore.ECHO, sock) is None
    peer.sendall(b"hello")
    assert receive_exactly(peer, 5) == b"hello"
    assert proactor.stats().callbacks == 0


def test_adopting_in_a_callback_serves_it_there(backend, accepted):
    where = []
    note = Acting(on_connect=lambda session: where.append(threading.current_thread().name))
    sock, _ = accepted()
    with iocpcore.Proactor(3, backend) as proactor:
        proactor.post(proactor.adopt, note, sock, worker=2)
        until(lambda: where == ["iocpcore-worker-2"])
        proactor.close(0)


def test_a_peer_that_has_reset_before_its_socket_is_adopted_is_told_of_by_on_close(proactor, accepted):
    sock, peer = accepted()
    reset(peer)
    handler = Recorder()
    session = proactor.adopt(handler, sock)
    assert sock.fileno() == -1
    if sys.platform == "win32":  # wine may have taken the error for itself: then it is an end
        until(lambda: handler.of("on_close") or handler.of("on_end"))
        return
    told, error = handler.wait_for("on_close")
    assert told is session
    assert isinstance(error, ConnectionResetError)


def test_a_peer_that_has_ended_and_then_reset_is_told_of_by_on_end(proactor, accepted):
    """As the system tells it of any socket: the reset is seen when something is sent."""
    sock, peer = accepted()
    peer.shutdown(socket.SHUT_WR)
    reset(peer)
    handler = Acting(on_end=lambda session: session.send(b"is anybody there?"))
    proactor.adopt(handler, sock)
    if sys.platform != "win32":  # wine 8 tells the end too, wine 10 the reset at once
        handler.wait_for("on_end")
    _, error = handler.wait_for("on_close")
    assert isinstance(error, OSError)


def test_the_native_echo_adopts_a_socket_whose_peer_has_reset(proactor, accepted):
    sock, peer = accepted()
    reset(peer)
    proactor.adopt(iocpcore.ECHO, sock)
    until(lambda: proactor.stats().closed_by_error + proactor.stats().closed_by_peer == 1)


def test_names_of_an_adopted_socket_are_known_before_on_connect(proactor, accepted):
    leave = threading.Event()
    proactor.post(leave.wait, WAIT)
    sock, peer = accepted()
    session = proactor.adopt(Recorder(), sock)
    assert (session.peername, session.sockname) == (peer.getsockname(), peer.getpeername())
    leave.set()


# ---- a descriptor that is given twice ----


@contextlib.contextmanager
def alias_of(sock):
    """Another socket object of the same descriptor, as a mistake makes it."""
    alias = socket.socket(fileno=sock.fileno())
    try:
        yield alias
    finally:
        alias.detach()


def echoes(peer):
    peer.sendall(b"x")
    return receive_exactly(peer, 1) == b"x"


@pytest.mark.parametrize("handler", [iocpcore.ECHO, Acting(on_receive=lambda session, data: session.send(data))])
@pytest.mark.parametrize("served_already", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_descriptor_that_a_session_has_is_not_adopted_again(backend, accepted, handler, served_already, workers):
    sock, peer = accepted()
    with (
        iocpcore.Proactor(workers, backend) as first,
        iocpcore.Proactor(1, backend) as second,
        alias_of(sock) as alias,
    ):
        first.adopt(handler, sock)
        if served_already and workers:
            assert echoes(peer)
        for proactor in (first, second):
            with pytest.raises(OSError, match="uses this descriptor already"):
                proactor.adopt(handler, alias)
        with pytest.raises(ValueError, match="cannot listen"):
            second.listen(handler, sock=alias)
        peer.sendall(b"x")
        if not workers:
            until(lambda: first.poll(0.01) == 0 and first.stats().bytes_sent == 1)
        assert receive_exactly(peer, 1) == b"x"
        for proactor in (first, second):
            proactor.close(0)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_descriptor_that_a_listener_has_does_not_listen_again(backend, connect, workers):
    sock = listening()
    with (
        iocpcore.Proactor(workers, backend) as first,
        iocpcore.Proactor(1, backend) as second,
        alias_of(sock) as alias,
    ):
        listener = first.listen(iocpcore.ECHO, sock=sock)
        for proactor in (first, second):
            with pytest.raises(OSError, match="another listener"):
                proactor.listen(iocpcore.ECHO, sock=alias)
        with pytest.raises((OSError, ValueError)):
            first.adopt(iocpcore.ECHO, alias)
        assert echoes(connect(listener))


def test_a_descriptor_is_anybodys_again_when_its_session_has_ended(proactor, accepted):
    sock, peer = accepted()
    number = sock.fileno()
    proactor.adopt(iocpcore.ECHO, sock)
    peer.close()
    until(lambda: proactor.stats().active == 0)
    for _ in range(50):
        again, peer = accepted()
        reached = again.fileno() == number
        proactor.adopt(iocpcore.ECHO, again)
        assert echoes(peer)
        peer.close()
        until(lambda: proactor.stats().active == 0)
        if reached:
            return
    pytest.skip("the system did not give the number again")


def test_a_socket_that_a_closed_proactor_refuses_may_be_given_to_another(backend, accepted):
    sock, peer = accepted()
    refusing = iocpcore.Proactor(1, backend)
    refusing.close()
    with iocpcore.Proactor(1, backend) as proactor:
        with pytest.raises(RuntimeError):
            refusing.adopt(iocpcore.ECHO, sock)
        proactor.adopt(iocpcore.ECHO, sock)
        assert echoes(peer)
        proactor.close(0)


# ---- SO_LINGER ----


def linger(on, seconds):
    return struct.pack("hh" if sys.platform == "win32" else "ii", on, seconds)


@pytest.mark.parametrize("given", ["listening", "connected"])
def test_closing_a_socket_that_was_given_lingering_does_not_wait_for_a_peer_that_does_not_read(proactor, given):
    handler = Acting(on_connect=lambda session: (session.send(b"x" * 300_000), session.close()))
    with listening() as sock, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = sock.getsockname()
        if given == "listening":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(1, 2 * int(WAIT)))
            proactor.listen(handler, sock=sock, linger=0.01)
        peer.connect(address)
        if given == "connected":
            accepted, _ = sock.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(1, 2 * int(WAIT)))
            proactor.adopt(handler, accepted, linger=0.01)
        handler.wait_for("on_close")


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_lingering_socket_that_is_adopted_resets_nobody_that_was_sent_all(proactor, accepted, seconds):
    sock, peer = accepted()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(1, seconds))
    handler = Acting(on_connect=lambda session: (session.send(b"all"), session.close()))
    proactor.adopt(handler, sock, linger=0)
    handler.wait_for("on_close")
    assert receive_exactly(peer, 4) == b"all"  # and the end, not a reset


def test_a_listening_socket_that_resets_when_closed_resets_nobody_that_was_sent_all(proactor):
    sock = listening()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger(1, 0))
    handler = Acting(on_connect=lambda session: (session.send(b"all"), session.close()))
    with sock.dup() as kept:
        listener = proactor.listen(handler, sock=sock, linger=0)
        with socket.create_connection(listener.address, timeout=WAIT) as peer:
            handler.wait_for("on_close")
            assert receive_exactly(peer, 4) == b"all"
        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[: len(linger(1, 0))] == linger(1, 0)


def test_closing_the_proactor_ends_adopted_sessions(backend, accepted):
    sock, peer = accepted()
    handler = Recorder()
    with iocpcore.Proactor(1, backend) as proactor:
        session = proactor.adopt(handler, sock)
        proactor.close(0)
    assert handler.names()[-1] == "on_close"
    assert session.closed
    assert_nothing_left(proactor)


def not_connected():
    return socket.socket()


def datagram():
    return socket.socket(type=socket.SOCK_DGRAM)


def closed():
    sock = socket.socket()
    sock.close()
    return sock


def listening():
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("make", [not_connected, datagram, closed, listening])
def test_a_socket_that_is_not_connected_is_refused_and_stays_its_owners(proactor, make):
    with make() as sock:
        number = sock.fileno()
        with pytest.raises(ValueError, match="sock"):
            proactor.adopt(Recorder(), sock)
        assert sock.fileno() == number


def test_a_socket_with_tls_is_refused_rather_than_written_past(proactor, accepted):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(accepted()[0], server_side=True, do_handshake_on_connect=False) as sock:
        with pytest.raises(ValueError, match="without TLS"):
            proactor.adopt(Recorder(), sock)
        assert sock.fileno() >= 0


@pytest.mark.parametrize("sock", [7, None, "socket"])
def test_what_is_no_socket_is_refused(proactor, sock):
    with pytest.raises(TypeError, match="must be a socket"):
        proactor.adopt(Recorder(), sock)


@pytest.mark.parametrize(
    "handler, options, words",
    [
        (iocpcore.ECHO, {"no_delay": False}, "no options"),
        (iocpcore.Load(), {}, "Load"),
        (Recorder, {}, "class"),
        (Recorder(), {"backlog": 1}, r"adopt\(\) got an unexpected keyword argument 'backlog'"),
        (Recorder(), {"linger": None}, "linger"),
    ],
)
def test_a_wrong_handler_or_option_of_adopt_is_refused(proactor, accepted, handler, options, words):
    sock, peer = accepted()
    with pytest.raises(TypeError, match=words):
        proactor.adopt(handler, sock, **options)
    sock.sendall(b"still yours")
    assert receive_exactly(peer, 11) == b"still yours"


def test_a_handler_that_python_makes_itself_adopts_nothing(proactor, accepted):
    with pytest.raises(TypeError, match="none of the callbacks"):
        proactor.adopt(iocpcore.Handler.__new__(iocpcore.Handler), accepted()[0])


@pytest.mark.parametrize("handler", [iocpcore.ECHO, Recorder()], ids=["native", "callbacks"])
def test_a_handler_that_nobody_keeps_outlives_the_session_that_was_adopted(proactor, accepted, handler):
    """A listener has handlers of its own, made of those that it is given: what is adopted must not refer to them."""
    listener = proactor.listen(handler)
    if not isinstance(handler, Recorder):
        (handler,) = [it for it in gc.get_referents(listener) if type(it) is iocpcore.Handler]
    sock, peer = accepted()
    proactor.adopt(handler, sock)
    listener.close()
    del listener, handler
    gc.collect()
    peer.sendall(b"x")
    until(lambda: proactor.stats().bytes_received == 1)


def test_a_proactor_that_is_closed_adopts_nothing(backend, accepted):
    sock, peer = accepted()
    proactor = iocpcore.Proactor(1, backend)
    proactor.close()
    with pytest.raises(RuntimeError, match="closed"):
        proactor.adopt(Recorder(), sock)
    sock.sendall(b"still yours")
    assert receive_exactly(peer, 11) == b"still yours"


# ---- listening sockets ----


@pytest.mark.parametrize("listens", [False, True])
def test_a_given_listening_socket_serves(proactor, connect, listens):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    if listens:
        sock.listen(5)
    address = sock.getsockname()
    listener = proactor.listen(iocpcore.ECHO, sock=sock)
    assert sock.fileno() == -1
    assert listener.address == address
    peer = connect(listener)
    peer.sendall(b"x")
    assert receive_exactly(peer, 1) == b"x"


def test_connections_that_waited_already_are_served(proactor):
    sock = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(sock.getsockname(), timeout=WAIT) as peer:
        proactor.listen(iocpcore.ECHO, sock=sock)
        peer.sendall(b"x")
        assert receive_exactly(peer, 1) == b"x"


@pytest.mark.parametrize("make", [not_connected, datagram])
def test_a_socket_that_cannot_listen_is_refused_and_stays_its_owners(proactor, make):
    with make() as sock:
        number = sock.fileno()
        with pytest.raises(ValueError, match="sock"):
            proactor.listen(Recorder(), sock=sock)
        assert sock.fileno() == number


def test_a_listening_socket_with_tls_is_refused_rather_than_served_without(proactor):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(listening(), server_side=True) as sock, pytest.raises(ValueError, match="without TLS"):
        proactor.listen(Recorder(), sock=sock)


@pytest.mark.parametrize("address", [{"port": 9999}, {"host": "0.0.0.0"}], ids=str)
def test_a_given_socket_and_another_address_are_refused(proactor, address):
    with listening() as sock, pytest.raises(ValueError, match="sock has an address already"):
        proactor.listen(Recorder(), sock=sock, **address)


def test_what_is_no_listening_socket_is_refused(proactor):
    with pytest.raises(TypeError, match="must be a socket"):
        proactor.listen(Recorder(), sock=7)
    with pytest.raises(ValueError, match="sock is closed"):
        proactor.listen(Recorder(), sock=closed())


def test_a_connected_socket_cannot_listen(proactor, accepted):
    sock, peer = accepted()
    with pytest.raises(ValueError, match=r"sock is connected.*adopt\(\)"):
        proactor.listen(Recorder(), sock=sock)
    sock.sendall(b"still yours")
    assert receive_exactly(peer, 11) == b"still yours"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_may_not_use_its_parents_sessions(backend):
    output = run_python(
        f"""
import iocpcore, os, socket, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)    # newer Pythons dislike a fork with threads, and are right
class Greeter:
    def on_connect(self, session):
        global served
        served = session
        connected.set()
connected = threading.Event()
with iocpcore.Proactor(1, {backend!r}) as proactor:
    with socket.create_connection(proactor.listen(Greeter()).address, timeout=30) as peer:
        assert connected.wait(30)
        child = os.fork()
        if child == 0:
            for use in (lambda: served.send(b"child"), served.close, served.abort, served.end, served.pause):
                try:
                    use()
                except RuntimeError as error:
                    print(error, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        served.send(b"parent")
        print(peer.recv(100))
        peer.close()
"""
    )
    lines = output.splitlines()
    assert len(lines) == 6
    assert all("belongs to the parent process" in line for line in lines[:5])
    assert lines[5] == "b'parent'"


def test_a_child_inherits_nothing_of_a_proactor(backend):
    """Else a child that outlives us would keep connections and ports open."""
    output = run_python(
        f"""
import iocpcore, socket, subprocess, sys
proactor = iocpcore.Proactor(1, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
peer = socket.create_connection(listener.address)
peer.sendall(b"x"); peer.recv(1)
program = "print(7, flush=True); input()"       # once it runs, what it does not inherit is closed
child = subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, close_fds=False)
child.stdout.readline()
proactor.close(0)
assert peer.recv(1) == b""
try:
    socket.create_connection(listener.address, timeout=5)
except (ConnectionRefusedError, TimeoutError):
    print("nobody listens")
child.communicate(b"end\\n", timeout=30)
"""
    )
    assert output.strip() == "nobody listens"


@pytest.mark.parametrize("give", [
    lambda proactor, sock: proactor.adopt(Recorder(), sock),
    lambda proactor, sock: proactor.listen(Recorder(), sock=sock),
], ids=["adopt", "listen"])
def test_a_socket_object_that_was_given_before_is_refused_as_closed(proactor, accepted, give):
    sock, _ = accepted()
    proactor.adopt(Recorder(), sock)
    with pytest.raises(ValueError, match="sock is closed, or was given to a proactor before"):
        give(proactor, sock)
