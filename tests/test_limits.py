"""Limits and times: sessions, timeouts, socket options; workers that are kept apart; close() from everywhere."""

import contextlib
import os
import socket
import stat
import sys
import threading
import time

import pytest

import iocpcore
from support import (
    WAIT,
    Acting,
    Recorder,
    assert_nothing_left,
    open_handles,
    receive_exactly,
    receive_to_end,
    reset,
    run_python,
    until,
)

BIG = bytes(32 << 20)  # more than every buffer between us and a peer that does not read


def first_byte(peer):
    """Nothing if it was closed or reset without one."""
    try:
        return peer.recv(1)
    except ConnectionError:
        return b""


def ended(peer):
    return first_byte(peer) == b""


# ---- how many sessions ----


def greet(session):
    session.send(b"!")


def test_beyond_max_sessions_connections_wait_for_a_place(proactor, connect):
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    listener = proactor.listen(handler, max_sessions=2)
    peers = [connect(listener) for _ in range(5)]
    until(lambda: proactor.stats().parked == 3)
    assert len(handler.of("on_connect")) == 2
    for served in range(2, 6):
        assert len(handler.of("on_connect")) == min(served, 5)
        peer = next(peer for peer in peers if peer.getsockname() == handler.of("on_connect")[served - 2][0].peername)
        peers.remove(peer)
        assert receive_to_end_after_ending(peer) == b"!"
        if served < 5:
            handler.wait_for("on_connect", served + 1)
    assert receive_to_end_after_ending(peers[0]) == b"!"
    assert proactor.stats().refused == 0


def receive_to_end_after_ending(peer):
    peer.shutdown(socket.SHUT_WR)
    return receive_to_end(peer)


def test_many_more_than_max_sessions_are_all_served_in_time(proactor, connect):
    """More than a listener has accepts, so that some wait in the system's queue."""
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    listener = proactor.listen(handler, max_sessions=1)
    peers = [connect(listener) for _ in range(40)]
    for peer in peers:
        peer.shutdown(socket.SHUT_WR)
    assert [receive_to_end(peer) for peer in peers] == [b"!"] * 40
    until(lambda: proactor.stats().accepted == 40)


def test_beyond_max_sessions_connections_are_refused_if_that_was_chosen(proactor, connect):
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    listener = proactor.listen(handler, max_sessions=2, when_full="refuse")
    served = [connect(listener) for _ in range(2)]
    assert [peer.recv(1) for peer in served] == [b"!"] * 2
    assert ended(connect(listener))
    until(lambda: proactor.stats().refused == 1)
    assert receive_to_end_after_ending(served[0]) == b""
    served[0].close()
    until(lambda: proactor.stats().active == 1)
    assert connect(listener).recv(1) == b"!"


def test_max_sessions_of_a_proactor_counts_those_of_all_its_listeners(backend, connect):
    with iocpcore.Proactor(2, backend, max_sessions=2) as proactor:
        handler = Acting(on_connect=greet)
        listeners = [proactor.listen(handler, when_full="refuse") for _ in range(2)]
        peers = [connect(listener) for listener in listeners]
        assert [peer.recv(1) for peer in peers] == [b"!"] * 2
        assert all(ended(connect(listener)) for listener in listeners)
        until(lambda: proactor.stats().refused == 2)
        proactor.close(0)
    assert_nothing_left(proactor)


def test_a_place_that_another_workers_session_leaves_is_given_to_who_waits(backend, connect):
    with iocpcore.Proactor(2, backend, max_sessions=2) as proactor:
        handler = Acting(on_connect=greet, on_end=lambda session: session.close())
        listeners = [proactor.listen(handler, workers=[worker]) for worker in range(2)]
        first = [connect(listeners[0]) for _ in range(2)]
        assert [peer.recv(1) for peer in first] == [b"!"] * 2
        waiting = connect(listeners[1])
        until(lambda: proactor.stats().parked == 1)
        first[0].close()
        assert waiting.recv(1) == b"!"
        proactor.close(0)


def test_sessions_that_we_connect_are_not_counted_against_max_sessions(backend):
    with iocpcore.Proactor(1, backend, max_sessions=1) as proactor:
        listener = proactor.listen(iocpcore.ECHO)
        handler = Recorder()
        session = proactor.connect(handler, "127.0.0.1", listener.port)
        session.send(b"x")
        until(lambda: handler.received() == b"x")
        proactor.close(0)


def end_in_turn(handler, peers, ended=0):
    """End one session after the other: the next to be served is always the next that came."""
    for number, peer in enumerate(peers, ended + 1):
        session, _ = handler.wait_for("on_connect", number)
        assert session.peername == peer.getsockname()
        assert len(handler.of("on_connect")) == number
        assert receive_to_end_after_ending(peer) == b"!"


def test_connections_get_their_places_in_the_order_of_their_coming(proactor, connect):
    """More of them than a listener has accepts, so that some wait in the system's queue."""
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    listener = proactor.listen(handler, max_sessions=1)
    end_in_turn(handler, [connect(listener) for _ in range(40)])


def test_a_newcomer_does_not_overtake_those_who_wait(proactor, connect):
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    listener = proactor.listen(handler, max_sessions=1)
    peers = [connect(listener) for _ in range(4)]
    for ended in range(8):
        end_in_turn(handler, peers[:1], ended)
        peers = [*peers[1:], connect(listener)]


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_of_several_listeners_share_places_in_the_order_of_their_coming(backend, connect, workers):
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    with iocpcore.Proactor(workers, backend, max_sessions=1) as proactor:
        listeners = [proactor.listen(handler) for _ in range(2)]
        peers = []
        for number in range(10):
            peers.append(connect(listeners[number % 2]))
            until(lambda: proactor.stats().accepted == len(peers))
        end_in_turn(handler, peers)
    assert_nothing_left(proactor)


def test_a_listener_that_is_full_keeps_no_place_from_another(backend, connect):
    handler = Acting(on_connect=greet)
    with iocpcore.Proactor(1, backend, max_sessions=2) as proactor:
        full, other = proactor.listen(handler, max_sessions=1), proactor.listen(handler)
        peers = [connect(full) for _ in range(2)]
        until(lambda: proactor.stats().parked == 1)
        assert connect(other).recv(1) == b"!"
        reset(peers[0])  # its place is for the other who came to the full one
        assert peers[1].recv(1) == b"!"
        proactor.close(0)
    assert_nothing_left(proactor)


def test_those_who_wait_for_a_place_get_it_after_their_listener_has_closed(proactor, connect):
    handler = Acting(on_connect=greet, on_end=lambda session: session.close())
    listener = proactor.listen(handler, max_sessions=1)
    peers = [connect(listener) for _ in range(40)]  # more than its accepts: some are taken from the system's queue
    until(lambda: proactor.stats().parked == 16)
    listener.close()
    end_in_turn(handler, peers)
    assert proactor.stats().refused == 0
    until(lambda: listener.stats().sessions == 0)


def test_those_who_wait_for_a_place_are_let_go_when_their_proactor_closes(backend, connect):
    with iocpcore.Proactor(1, backend) as proactor:
        listener = proactor.listen(Recorder(), max_sessions=1)
        peers = [connect(listener) for _ in range(2)]
        until(lambda: proactor.stats().parked == 1)
        proactor.close(0)
    assert all(ended(peer) for peer in peers)
    assert proactor.stats().refused == 1
    assert_nothing_left(proactor)


# ---- time ----


def test_an_idle_session_is_closed_with_a_timeout_error(proactor, pair):
    session, peer, handler = pair(idle_timeout=0.3)
    told, error = handler.wait_for("on_close")
    assert told is session
    assert isinstance(error, TimeoutError)
    assert handler.names() == ["on_connect", "on_close"]
    assert ended(peer)
    until(lambda: proactor.stats().closed_by_timeout == 1)


@pytest.mark.parametrize("who", ["receives", "sends"])
def test_a_session_that_does_something_is_not_idle(pair, who):
    """Ten times something, each well within the time, in all well beyond it."""
    session, peer, handler = pair(idle_timeout=2.0)
    begun = time.monotonic()
    while time.monotonic() - begun < 3.0:
        if who == "receives":
            peer.sendall(b"x")
        else:
            session.send(b"x")
        threading.Event().wait(0.1)
    assert not session.closed


@pytest.mark.parametrize("sessions", [2, 300], ids=["in one batch", "in several batches"])
def test_who_sends_while_a_callback_lasts_is_not_idle(proactor, connect, sessions):
    """What the system has already taken in is looked at before anybody is told that his time is over."""
    begun, go_on = threading.Event(), threading.Event()

    def block_once(session, data):
        if data == b"block":
            begun.set()
            assert go_on.wait(WAIT)

    handler = Acting(on_receive=block_once)
    listener = proactor.listen(handler, idle_timeout=3.0, receive_size=5)  # connecting all takes much less
    peers = [connect(listener) for _ in range(sessions)]
    handler.wait_for("on_connect", sessions)
    peers[0].sendall(b"block")
    assert begun.wait(WAIT)
    for peer in peers:
        peer.sendall(b"x")
    threading.Event().wait(3.1)
    go_on.set()
    handler.wait_for("on_receive", sessions + 1)


@pytest.mark.parametrize("size", [100, 100_000], ids=["little", "much"])
def test_who_is_sent_something_after_a_long_callback_is_not_idle(proactor, connect, size):
    def answer(session, data):
        if data == b"long":
            threading.Event().wait(1.5)
        session.send(b"x" * size)

    peer = connect(proactor.listen(Acting(on_receive=answer), idle_timeout=1.0))
    for question in (b"long", b"short"):
        peer.sendall(question)
        assert receive_exactly(peer, size) == b"x" * size


def test_an_idle_native_session_is_closed(proactor, connect):
    peer = connect(proactor.listen(iocpcore.ECHO, idle_timeout=0.3))
    assert ended(peer)
    until(lambda: proactor.stats().closed_by_timeout == 1)


def test_a_peer_that_takes_nothing_is_given_up_with_a_timeout_error(proactor, pair):
    session, peer, handler = pair(send_timeout=0.5)
    session.send(BIG)
    _, error = handler.wait_for("on_close")
    assert isinstance(error, TimeoutError)
    assert session.unsent > 0
    until(lambda: proactor.stats().closed_by_timeout == 1)


def test_a_peer_that_takes_nothing_is_given_up_while_its_session_closes(pair):
    session, peer, handler = pair(send_timeout=0.5)
    session.send(BIG)
    session.close()
    _, error = handler.wait_for("on_close")
    assert isinstance(error, TimeoutError)
    assert session.unsent > 0


def test_a_slow_peer_is_no_stalled_peer(pair):
    session, peer, handler = pair(send_timeout=2.0)
    session.send(BIG)
    received = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 3.0:
        received += len(receive_exactly(peer, 1 << 20))
        threading.Event().wait(0.2)
    assert received + len(receive_exactly(peer, len(BIG) - received)) == len(BIG)
    assert not session.closed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells of a send when it has ended, not before")
@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
def test_a_peer_that_takes_less_than_the_system_tells_of_is_no_stalled_peer(pair, closing):
    session, peer, handler = pair(send_timeout=1.0)
    session.send(BIG)
    if closing:
        session.close()
    received = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 3.0:
        received += len(receive_exactly(peer, 1 << 16))
        threading.Event().wait(0.1)
    assert received + len(receive_exactly(peer, len(BIG) - received)) == len(BIG)


def test_a_session_with_nothing_to_send_is_not_stalled(pair):
    session, peer, handler = pair(send_timeout=0.2)
    session.send(b"x")
    assert receive_exactly(peer, 1) == b"x"
    threading.Event().wait(0.6)
    session.send(b"y")
    assert receive_exactly(peer, 1) == b"y"
    assert not session.closed


def test_a_peer_that_never_ends_is_not_waited_for_longer_than_linger(proactor, pair):
    session, peer, handler = pair(linger=0.2)
    session.send(b"all")
    session.close()
    assert handler.wait_for("on_close") == (session, None)
    assert session.unsent == 0
    assert receive_to_end(peer) == b"all"
    until(lambda: proactor.stats().closed_by_timeout == 1)


def test_without_linger_a_session_is_closed_when_all_is_sent(pair):
    session, peer, handler = pair(linger=0)
    session.send(b"all")
    session.close()
    assert handler.wait_for("on_close") == (session, None)
    assert receive_to_end(peer) == b"all"


# ---- socket options ----


def adopted(proactor, **options):
    """The options of a socket that was adopted, through a duplicate of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname(), timeout=WAIT)
        sock, _ = server.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    handler = Recorder()
    duplicate = sock.dup()
    proactor.adopt(handler, sock, **options)
    handler.wait_for("on_connect")
    return peer, duplicate


@pytest.mark.parametrize("wanted", [True, False])
def test_no_delay_is_set_unless_it_is_not_wanted(proactor, wanted):
    peer, duplicate = adopted(proactor, no_delay=wanted)
    with peer, duplicate:
        assert bool(duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == wanted


def other_end(peer):
    """A duplicate of the socket that this process has at the other end."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    if sock.getpeername() == peer.getsockname():
                        return sock.dup()
    raise LookupError("it is not open here")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no list of descriptors to find the socket in")
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("wanted", [True, False])
def test_accepted_connections_have_no_delay_unless_it_is_not_wanted(proactor, connect, wanted, given):
    sock = socket.create_server(("127.0.0.1", 0)) if given else None
    handler = Recorder()
    peer = connect(proactor.listen(handler, sock=sock, no_delay=wanted))
    handler.wait_for("on_connect")
    with other_end(peer) as end:
        assert bool(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == wanted


def test_keep_alive_is_off_unless_it_is_wanted(proactor):
    peer, duplicate = adopted(proactor)
    with peer, duplicate:
        assert not duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_keep_alive_is_as_it_was_wanted(proactor):
    peer, duplicate = adopted(proactor, keep_alive=(60, 7, 3))
    with peer, duplicate:
        assert duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform != "win32":
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            values = [duplicate.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
            assert values == [60, 7, 3]


@pytest.mark.parametrize("size", [1, 100, 16384, 16385, 40_000, 1 << 18])
def test_a_receive_brings_at_most_receive_size(pair, size):
    session, peer, handler = pair(receive_size=size)
    data = bytes(range(256)) * (1 if size < 100 else 1000)
    peer.sendall(data)
    until(lambda: len(handler.received()) == len(data))
    assert handler.received() == data
    assert max(len(piece) for _, piece in handler.of("on_receive")) <= size


@pytest.mark.parametrize("size", [1, 100_000])
def test_the_native_echo_has_a_receive_size_too(proactor, connect, size):
    peer = connect(proactor.listen(iocpcore.ECHO, receive_size=size))
    data = bytes(range(256)) * 40
    peer.sendall(data)
    assert receive_exactly(peer, len(data)) == data


# ---- workers ----


def test_a_listener_can_be_given_workers(backend, connect):
    names = []
    with iocpcore.Proactor(3, backend) as proactor:
        handler = Acting(on_connect=lambda session: names.append(threading.current_thread().name))
        listener = proactor.listen(handler, workers=[0, 2])
        for _ in range(10):
            connect(listener)
        until(lambda: len(names) == 10)
        proactor.close(0)
    assert sorted(names) == ["iocpcore-worker-0"] * 5 + ["iocpcore-worker-2"] * 5


def test_a_worker_with_native_sessions_alone_never_takes_the_gil(backend, connect):
    with iocpcore.Proactor(2, backend) as proactor:
        upper = Acting(on_receive=lambda session, data: session.send(data.upper()))
        python = proactor.listen(upper, workers=[0])
        native = proactor.listen(iocpcore.ECHO, workers=[1])
        for listener, answer in ((python, b"HELLO"), (native, b"hello")):
            peer = connect(listener)
            peer.sendall(b"hello")
            assert receive_exactly(peer, 5) == answer
        until(lambda: [row.bytes_sent for row in proactor.stats().workers] == [5, 5])
        rows = proactor.stats().workers
        proactor.close(0)
    assert rows[0].attaches > 0
    assert rows[1].attaches == rows[1].callbacks == 0
    assert rows[1].accepted == 1


def test_a_handler_that_blocks_delays_its_own_workers_sessions_only(backend, connect):
    """While it does, others are served by the other worker: the Python ones too, for it sleeps without the GIL."""
    entered, leave = threading.Event(), threading.Event()

    def block(session, data):
        entered.set()
        leave.wait(WAIT)

    with iocpcore.Proactor(2, backend) as proactor:
        blocking = connect(proactor.listen(Acting(on_receive=block), workers=[0]))
        upper = Acting(on_receive=lambda session, data: session.send(data.upper()))
        beside = connect(proactor.listen(upper, workers=[0]))
        elsewhere = proactor.listen(upper, workers=[1])
        other = connect(elsewhere)
        beside.sendall(b"x")
        assert receive_exactly(beside, 1) == b"X"
        blocking.sendall(b"block")
        assert entered.wait(WAIT)
        beside.sendall(b"y")
        for peer in (other, connect(elsewhere)):
            peer.sendall(b"hello")
            assert receive_exactly(peer, 5) == b"HELLO"
        beside.setblocking(False)
        with pytest.raises(BlockingIOError):
            beside.recv(1)
        beside.settimeout(WAIT)
        leave.set()
        assert receive_exactly(beside, 1) == b"Y"
        proactor.close(0)


def test_new_sessions_go_to_a_worker_that_has_fewer_while_one_blocks(backend, connect):
    """The listener's own worker accepts; its blocking delays that, but not what the others serve already."""
    entered, leave = threading.Event(), threading.Event()

    def block():
        entered.set()
        leave.wait(WAIT)

    with iocpcore.Proactor(2, backend) as proactor:
        handler = Acting(on_receive=lambda session, data: session.send(data))
        listener = proactor.listen(handler)
        peers = [connect(listener) for _ in range(4)]
        handler.wait_for("on_connect", 4)
        proactor.post(block, worker=0)
        assert entered.wait(WAIT)
        for peer in peers:
            peer.sendall(b"x")
        until(lambda: len(handler.of("on_receive")) == 2)
        leave.set()
        assert [receive_exactly(peer, 1) for peer in peers] == [b"x"] * 4
        proactor.close(0)


# ---- arguments ----


WRONG = [
    ({"backlog": 0}, ValueError),
    ({"backlog": 65536}, ValueError),
    ({"backlog": "5"}, TypeError),
    ({"max_sessions": 0}, ValueError),
    ({"max_sessions": 1.5}, TypeError),
    ({"when_full": "drop"}, ValueError),
    ({"when_full": None}, ValueError),
    ({"workers": []}, ValueError),
    ({"workers": [1]}, ValueError),
    ({"workers": [-1]}, ValueError),
    ({"workers": ["0"]}, TypeError),
    ({"workers": 0}, TypeError),
    ({"workers": {0}}, TypeError),
    ({"idle_timeout": 0}, ValueError),
    ({"idle_timeout": -1}, ValueError),
    ({"idle_timeout": float("inf")}, ValueError),
    ({"idle_timeout": float("nan")}, ValueError),
    ({"idle_timeout": "1"}, TypeError),
    ({"send_timeout": 0}, ValueError),
    ({"send_timeout": True}, TypeError),
    ({"linger": -0.1}, ValueError),
    ({"linger": None}, TypeError),
    ({"keep_alive": True}, TypeError),
    ({"keep_alive": (1, 2)}, TypeError),
    ({"keep_alive": (0, 1, 1)}, ValueError),
    ({"keep_alive": (1, 40_000, 1)}, ValueError),
    ({"keep_alive": (1, 1, 128)}, ValueError),
    ({"keep_alive": (1.0, 1, 1)}, TypeError),
    ({"no_delay": 1}, TypeError),
    ({"shared": None}, TypeError),
    ({"shared": True}, ValueError),
    ({"receive_size": 0}, ValueError),
    ({"receive_size": (1 << 18) + 1}, ValueError),
    ({"receive_size": None}, TypeError),
    ({"high_water": 0}, ValueError),
    ({"high_water": "1"}, TypeError),
    ({"low_water": -1}, ValueError),
    ({"high_water": 10, "low_water": 11}, ValueError),
    ({"send_limit": 0}, ValueError),
    ({"send_limit": 1.0}, TypeError),
    ({"timeout": 1.0}, TypeError),
    ({"idle_time": 1.0}, TypeError),
]


@pytest.mark.parametrize("arguments, error", WRONG, ids=str)
def test_a_wrong_argument_of_listen_is_refused_by_its_name(proactor, arguments, error):
    handles = open_handles()
    with pytest.raises(error, match=list(arguments)[-1].replace("workers", "worker")):
        proactor.listen(Recorder(), **arguments)
    assert open_handles() <= handles


@pytest.mark.parametrize("value, error", [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)])
def test_a_wrong_limit_of_a_proactor_is_refused(backend, value, error):
    with pytest.raises(error, match="max_sessions"):
        iocpcore.Proactor(1, backend, max_sessions=value)


# ---- close() from everywhere ----


def test_close_in_a_callback_returns_at_once_and_the_proactor_ends(backend, connect):
    proactor = iocpcore.Proactor(2, backend)
    handler = Acting(on_receive=lambda session, data: (proactor.close(0), proactor.close(0)))
    peer = connect(proactor.listen(handler))
    peer.sendall(b"x")
    until(lambda: proactor.closing)
    proactor.close()
    assert handler.names()[-1] == "on_close"
    assert_nothing_left(proactor)


def test_close_in_on_close_is_no_harm(backend, connect):
    proactor = iocpcore.Proactor(1, backend)
    handler = Acting(on_close=lambda session, error: proactor.close(0))
    listener = proactor.listen(handler)
    peers = [connect(listener) for _ in range(10)]
    handler.wait_for("on_connect", 10)
    assert len(peers) == 10
    handler.of("on_connect")[0][0].abort()
    until(lambda: proactor.closing)
    proactor.close(0)
    assert len(handler.of("on_close")) == 10
    assert_nothing_left(proactor)


def test_close_during_load_is_bounded_and_tells_every_session(backend):
    server = iocpcore.Proactor(2, backend)
    handler = Acting(on_receive=lambda session, data: session.send(data), on_end=lambda session: session.close())
    load = iocpcore.Load(connections=20, messages=1 << 40, size=(1, 10_000), pipeline=4)
    with iocpcore.Proactor(1, backend) as client:
        load.start(client, "127.0.0.1", server.listen(handler).port)
        until(lambda: load.echoes > 100)
        server.close(0)
        assert load.wait(WAIT)
        client.close(0)
    assert load.result()["mismatches"] == 0
    assert len(handler.of("on_close")) == len(handler.of("on_connect"))
    assert_nothing_left(server)


def test_callbacks_that_send_while_the_proactor_closes_are_told(backend, connect):
    """What they send is sent, or raises, or is counted: nothing hangs."""

    def send(session, data):
        try:
            session.send(data)
        except iocpcore.SessionClosed:
            raised.append(session)

    raised = []
    proactor = iocpcore.Proactor(1, backend)
    handler = Acting(on_receive=send)
    peer = connect(proactor.listen(handler))
    stop = threading.Event()

    def stream():
        try:
            while not stop.is_set():
                peer.sendall(b"x" * 1000)
                peer.recv(1 << 16)
        except OSError:
            pass

    thread = threading.Thread(target=stream)
    thread.start()
    handler.wait_for("on_receive", 10)
    proactor.close(0.1)
    stop.set()
    peer.close()
    thread.join(WAIT)
    assert len(handler.of("on_close")) == 1
    assert_nothing_left(proactor)


def test_a_callback_that_lasts_longer_than_the_drain_is_waited_for(backend, connect):
    entered, leave = threading.Event(), threading.Event()

    def block(session, data):
        entered.set()
        leave.wait(WAIT)

    proactor = iocpcore.Proactor(1, backend)
    handler = Acting(on_receive=block)
    peer = connect(proactor.listen(handler))
    peer.sendall(b"x")
    assert entered.wait(WAIT)
    threading.Timer(0.3, leave.set).start()
    proactor.close(0)
    assert handler.names()[-1] == "on_close"
    assert_nothing_left(proactor)


BEGIN = """
import iocpcore, signal, socket, sys, threading, time
class Echo:
    def on_receive(self, session, data):
        session.send(data)
"""


def test_a_signal_handler_may_close(backend):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(2, {backend!r})
listener = proactor.listen(Echo())
peer = socket.create_connection(listener.address)
peer.sendall(b"x"); peer.recv(1)
def close(number, frame):
    proactor.close(0)
    print("closed")
signal.signal(signal.SIGINT, close)
threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
proactor.close(1000)        # the peer never ends
print(proactor.stats().active)
"""
    )
    assert output.split() == ["closed", "0"]


@pytest.mark.parametrize("how", ["", "sys.exit(0)", "raise SystemExit"])
def test_the_interpreter_ends_in_order_with_python_sessions_under_load(backend, how):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(2, {backend!r})
listener = proactor.listen(Echo())
load = iocpcore.Load(connections=20, messages=1 << 40, pipeline=4)
client = iocpcore.Proactor(1, {backend!r})
load.start(client, "127.0.0.1", listener.port)
while load.echoes < 1000:
    time.sleep(0.001)
print("leaving")
{how}
"""
    )
    assert output.strip() == "leaving"


def test_the_interpreter_ends_in_order_while_foreign_threads_send(backend):
    output = run_python(
        BEGIN
        + f"""
sessions = []
class Keep:
    def on_connect(self, session):
        sessions.append(session)
proactor = iocpcore.Proactor(2, {backend!r})
listener = proactor.listen(Keep())
peers = [socket.create_connection(listener.address) for _ in range(4)]
while len(sessions) < 4:
    time.sleep(0.001)
def send(session):
    try:
        while True:
            if not session.send(b"x" * 1000):
                time.sleep(0.001)
    except iocpcore.SessionClosed:
        pass
for session in sessions:
    threading.Thread(target=send, args=(session,), daemon=True).start()
time.sleep(0.05)
print("leaving")
"""
    )
    assert output.strip() == "leaving"


def test_sessions_that_a_close_has_cut_short_have_a_timeout_error_and_their_unsent_bytes(backend, connect):
    unsent = []
    proactor = iocpcore.Proactor(1, backend)
    handler = Acting(
        on_connect=lambda session: session.send(BIG), on_close=lambda session, error: unsent.append(session.unsent)
    )
    connect(proactor.listen(handler))
    until(lambda: proactor.stats().bytes_sent > 0)
    proactor.close(0)
    assert [type(error) for _, error in handler.of("on_close")] == [TimeoutError]
    assert unsent == [proactor.stats().bytes_unsent]
