"""Session: sending, its limits and its order; the ends; pausing; names; what a kept one costs."""

import array
import contextlib
import ctypes
import gc
import os
import pathlib
import socket
import struct
import sys
import threading
import weakref

import pytest

import iocpcore
from support import (
    SCALE,
    WAIT,
    Acting,
    Recorder,
    assert_nothing_left,
    receive_exactly,
    receive_to_end,
    reset,
    send_until_nothing_moves,
    until,
)

MIB = 1 << 20
BIG = bytes(32 * MIB)  # more than every buffer between us and a peer that does not read


class Exporter(bytes):
    """Not exactly bytes: it is copied."""


# ---- what is sent ----


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"a memoryview")[2:],
        array.array("H", [1, 2, 3]),
        Exporter(b"a subclass of bytes"),
        b"x" * 16384,
        b"x" * 16385,
        bytes(range(256)) * 4096,
        bytearray(range(256)) * 4096,
    ],
    ids=lambda data: f"{type(data).__name__}-{memoryview(data).nbytes}",
)
@pytest.mark.parametrize("where", ["callback", "thread"])
def test_a_buffer_of_every_kind_arrives(pair, data, where):
    wanted = bytes(data)
    if where == "callback":
        _, peer, _ = pair(Acting(on_connect=lambda session: session.send(data)))
    else:
        session, peer, _ = pair()
        session.send(data)
    assert receive_exactly(peer, len(wanted)) == wanted


@pytest.mark.parametrize("where", ["callback", "thread"])
@pytest.mark.parametrize("size", [5, 100_000])
def test_a_buffer_that_is_no_bytes_may_be_changed_at_once(pair, where, size):
    data = bytearray(b"a" * size)

    def send_and_spoil(session):
        session.send(memoryview(data))
        data[:] = b"b" * size
        session.send(data)
        data.clear()  # nobody holds its buffer any more

    if where == "callback":
        _, peer, _ = pair(Acting(on_connect=send_and_spoil))
    else:
        session, peer, _ = pair()
        send_and_spoil(session)
    assert receive_exactly(peer, 2 * size) == b"a" * size + b"b" * size


@pytest.mark.parametrize("data", ["text", None, 7, [1, 2]])
def test_what_is_no_buffer_is_refused(pair, data):
    session, peer, _ = pair()
    with pytest.raises(TypeError, match="bytes-like"):
        session.send(data)
    session.send(b"unharmed")
    assert receive_exactly(peer, 8) == b"unharmed"


def test_a_buffer_with_gaps_is_refused(pair):
    session, peer, _ = pair()
    with pytest.raises(BufferError, match="contiguous"):
        session.send(memoryview(b"abcdef")[::2])
    session.send(b"unharmed")
    assert receive_exactly(peer, 8) == b"unharmed"


@pytest.mark.parametrize("nothing", [b"", bytearray(), memoryview(b"")])
def test_sending_nothing_does_nothing(pair, nothing):
    session, peer, _ = pair()
    assert session.send(nothing) is True
    assert session.unsent == 0
    session.send(b"x")
    session.close()
    assert receive_to_end(peer) == b"x"


def test_sending_nothing_promises_an_on_drain_only_if_one_is_due(pair):
    session, _, _ = pair(high_water=1 << 30)
    session.send(BIG)
    session.set_water_marks(1)
    assert session.send(b"") is True
    assert session.send(b"x") is False
    assert session.send(b"") is False


def test_with_a_high_mark_of_none_whatever_is_queued_is_too_much(pair):
    session, peer, handler = pair()
    session.set_water_marks(0)
    assert session.send(b"x") is False
    handler.wait_for("on_drain")
    assert receive_exactly(peer, 1) == b"x"


def test_a_large_bytes_object_is_held_until_it_is_sent_and_no_longer(pair):
    data = bytes(bytearray(b"large") * (8 * MIB // 5))
    held = sys.getrefcount(data)
    session, peer, _ = pair()
    session.send(data)
    assert sys.getrefcount(data) == held + 1
    assert receive_exactly(peer, len(data)) == data
    until(lambda: sys.getrefcount(data) == held)


@pytest.mark.valgrind
def test_a_large_bytes_object_is_let_go_when_its_session_is_aborted(pair):
    data = bytes(bytearray(len(BIG)))
    held = sys.getrefcount(data)
    session, _, handler = pair()
    session.send(data)
    session.abort()
    handler.wait_for("on_close")
    until(lambda: sys.getrefcount(data) == held)


def test_a_small_bytes_object_is_not_held(pair):
    data = bytes(bytearray(b"small" * 100))
    held = sys.getrefcount(data)
    session, _, _ = pair()
    session.send(data)
    assert sys.getrefcount(data) == held


# ---- order ----


def record(sender, number, size):
    return struct.pack("!III", sender, number, size) + bytes([number & 255]) * size


def read_records(peer, count):
    """[(sender, number)] as they came; each must be whole."""
    stream = peer.makefile("rb")
    records = []
    for _ in range(count):
        sender, number, size = struct.unpack("!III", stream.read(12))
        assert stream.read(size) == bytes([number & 255]) * size
        records.append((sender, number))
    return records


def send_records(session, sender, count):
    """Small and large, bytes and others, in turn."""
    for number in range(count):
        data = record(sender, number, (0, 100, 2000, 20_000)[number % 4])
        session.send(data if number % 3 else bytearray(data))


@pytest.mark.valgrind
def test_order_is_the_order_of_the_calls_whatever_the_kind_of_buffer(pair):
    count = 400
    session, peer, _ = pair(send_limit=None)
    thread = threading.Thread(target=send_records, args=(session, 0, count))
    thread.start()
    assert read_records(peer, count) == [(0, number) for number in range(count)]
    thread.join(WAIT)


@pytest.mark.valgrind
def test_what_each_of_several_threads_sends_keeps_its_order(proactor, pair):
    """One of them is the session's own worker, which could act at once, and must not overtake."""
    count = 200
    session, peer, _ = pair(send_limit=None)
    threads = [threading.Thread(target=send_records, args=(session, sender, count)) for sender in range(3)]
    for thread in threads:
        thread.start()
    proactor.post(send_records, session, 3, count)
    records = read_records(peer, 4 * count)
    for sender in range(4):
        assert [number for own, number in records if own == sender] == list(range(count))
    for thread in threads:
        thread.join(WAIT)


@pytest.fixture
def busy(proactor):
    """A function that keeps the worker in a callback until it is called again."""
    over = threading.Event()

    def keep():
        begun = threading.Event()
        proactor.post(lambda: (begun.set(), over.wait(WAIT)))
        assert begun.wait(WAIT)
        return over.set

    yield keep
    over.set()


def test_sends_of_several_sessions_that_wait_for_the_worker_keep_their_order(pair, busy):
    """Small ones of a session share a buffer there; large ones, and those of others, come in between."""
    talks = [pair() for _ in range(3)]
    go_on = busy()
    said = [b"", b"", b""]
    for turn in range(200):
        for i, (session, _, _) in enumerate(talks):
            size = (1, 100, 900, 3000, 16384, 20000)[(turn + i) % 6]
            piece = bytes([turn]) * size
            session.send(bytearray(piece) if turn % 7 == 0 else piece)
            said[i] += piece
    go_on()
    for (_, peer, _), expected in zip(talks, said, strict=True):
        assert receive_exactly(peer, len(expected)) == expected


def test_small_sends_that_wait_for_the_worker_go_before_the_end_that_was_asked_for_after_them(pair, busy):
    session, peer, _ = pair()
    go_on = busy()
    for i in range(1000):
        session.send(bytes([i % 256]))
    session.end()
    go_on()
    assert receive_to_end(peer) == bytes(i % 256 for i in range(1000))


def test_small_sends_that_wait_are_counted_until_they_are_sent(pair, busy):
    session, peer, _ = pair()
    go_on = busy()
    for _ in range(1000):
        session.send(b"x")
    assert session.unsent == 1000
    go_on()
    assert receive_exactly(peer, 1000) == b"x" * 1000
    until(lambda: session.unsent == 0)


def test_small_sends_that_wait_are_unsent_when_their_session_ends(pair, busy):
    session, peer, handler = pair()
    go_on = busy()
    for _ in range(1000):
        session.send(b"x")
    session.abort()
    go_on()
    handler.wait_for("on_close")
    assert session.unsent == 1000


@pytest.mark.uninstrumented  # a sanitizer's allocations are larger
@pytest.mark.skipif(sys.platform == "win32", reason="what a process has in memory is read from /proc")
@pytest.mark.parametrize("sessions", [1, 10])
def test_a_small_send_that_waits_for_the_worker_costs_about_its_bytes(pair, busy, sessions):
    def resident():
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    talks = [pair(send_limit=None) for _ in range(sessions)]
    go_on = busy()
    before = resident()
    sends = 200_000
    for i in range(sends):
        talks[i % sessions][0].send(b"0123456789")
    assert (resident() - before) / sends < 100  # of an item and a buffer each it is more than 1,100
    go_on()
    for _, peer, _ in talks:
        receive_exactly(peer, 10 * sends // sessions)


def test_a_callback_does_not_overtake_what_another_thread_has_sent_before(pair):
    sent = threading.Event()

    def answer(session, data):
        assert sent.wait(WAIT)
        session.send(b"second")

    session, peer, _ = pair(Acting(on_receive=answer))
    peer.sendall(b"?")
    session.send(b"first ")
    sent.set()
    assert receive_exactly(peer, 12) == b"first second"


# ---- water marks and limits ----


def test_send_says_when_more_than_the_high_water_mark_is_queued_and_on_drain_follows(pair):
    answers = []

    def fill(session):
        answers.extend(session.send(b"x" * size) for size in (600, 400, 1, 0))

    _, peer, handler = pair(Acting(on_connect=fill), high_water=1000)
    assert answers == [True, True, False, False]
    assert receive_exactly(peer, 1001) == b"x" * 1001
    handler.wait_for("on_drain")


def test_on_drain_comes_once_for_each_time_that_senders_were_told_to_wait(pair):
    session, peer, handler = pair(high_water=1000, low_water=10)
    for time in (1, 2, 3):
        assert not session.send(b"x" * 1001)
        receive_exactly(peer, 1001)
        handler.wait_for("on_drain", time)
        assert session.unsent == 0
    assert session.send(b"x")
    receive_exactly(peer, 1)
    session.close()
    peer.close()
    handler.wait_for("on_close")
    assert len(handler.of("on_drain")) == 3


def test_on_drain_comes_when_the_low_water_mark_is_reached_and_not_before(pair):
    left = []
    session, peer, handler = pair(
        Acting(on_drain=lambda session: left.append(session.unsent)), high_water=20 * MIB, low_water=2 * MIB
    )
    assert not session.send(BIG)
    assert receive_exactly(peer, len(BIG)) == BIG
    handler.wait_for("on_drain")
    assert left[0] <= 2 * MIB


@pytest.mark.parametrize(
    "marks, error", [((-1,), ValueError), ((1, 2), ValueError), ((1, -1), ValueError), ((1, 0.5), TypeError)], ids=str
)
def test_water_marks_that_are_refused_change_nothing(pair, marks, error):
    session, _, _ = pair(high_water=1000)
    with pytest.raises(error, match="high|low"):
        session.set_water_marks(*marks)
    assert session.send(b"x" * 100)


def test_nobody_who_was_not_told_to_wait_is_told_to_go_on(pair):
    session, peer, handler = pair()
    for _ in range(100):
        assert session.send(b"x" * 100)
        receive_exactly(peer, 100)
    session.close()
    peer.close()
    handler.wait_for("on_close")
    assert not handler.of("on_drain")


def test_send_refuses_more_when_the_limit_is_queued_and_takes_it_again_later(pair):
    refused = []

    def fill(session):
        session.send(b"x" * 1000)
        try:
            session.send(b"y")
        except iocpcore.SendLimitExceeded as error:
            refused.append(str(error))

    session, peer, _ = pair(Acting(on_connect=fill), send_limit=1000)
    assert "1000 bytes queued" in refused[0]
    assert receive_exactly(peer, 1000) == b"x" * 1000
    until(lambda: session.unsent == 0)
    session.send(b"y")
    assert receive_exactly(peer, 1) == b"y"


def test_a_limit_that_is_exceeded_is_a_buffer_error():
    assert issubclass(iocpcore.SendLimitExceeded, BufferError)


def test_without_a_limit_send_takes_everything(pair):
    session, _, handler = pair(send_limit=None)
    for _ in range(5):
        session.send(BIG)
    assert session.unsent > 4 * len(BIG)
    session.abort()
    handler.wait_for("on_close")


def test_unsent_counts_what_is_queued(pair):
    unsent = []

    def send(session):
        unsent.append(session.unsent)
        session.send(b"x" * 10)
        unsent.append(session.unsent)

    session, peer, _ = pair(Acting(on_connect=send))
    assert unsent == [0, 10]
    assert receive_exactly(peer, 10) == b"x" * 10
    until(lambda: session.unsent == 0)


@pytest.mark.parametrize("end", ["abort", "reset"])
def test_in_on_close_unsent_is_what_will_never_be_sent(proactor, pair, end):
    unsent = []
    session, peer, handler = pair(Acting(on_close=lambda session, error: unsent.append(session.unsent)))
    session.send(BIG)
    until(lambda: proactor.stats().bytes_sent > 0)
    session.abort() if end == "abort" else reset(peer)
    handler.wait_for("on_close")
    until(lambda: proactor.stats().bytes_unsent > 0)
    assert unsent == [proactor.stats().bytes_unsent]
    assert unsent[0] + proactor.stats().bytes_sent == len(BIG)


# ---- a session that takes no more ----


@pytest.mark.parametrize("finish", ["end", "close", "abort"])
@pytest.mark.parametrize("where", ["callback", "thread"])
def test_sending_after_the_end_says_so(pair, finish, where):
    raised = []

    def use(session):
        getattr(session, finish)()
        for data in (b"late", b"x" * 100_000, b""):
            with pytest.raises(iocpcore.SessionClosed, match="no longer takes data to send"):
                session.send(data)
        raised.append(finish)

    if where == "callback":
        with contextlib.suppress(ConnectionError):  # the abort may come before the peer has looked
            pair(Acting(on_connect=use))
    else:
        use(pair()[0])
    until(lambda: raised == [finish])


def test_sending_on_a_session_that_has_gone_is_a_connection_error(pair):
    session, peer, handler = pair()
    peer.close()
    handler.wait_for("on_end")
    session.close()
    handler.wait_for("on_close")
    assert session.closed
    with pytest.raises(ConnectionError):
        session.send(b"late")
    for method in (session.end, session.pause, session.resume, session.close, session.abort):
        method()


def test_sending_after_the_proactor_has_closed_says_so(backend, connect):
    handler = Recorder()
    with iocpcore.Proactor(1, backend) as proactor:
        connect(proactor.listen(handler))
        session, _ = handler.wait_for("on_connect")
        proactor.close(0)
    with pytest.raises(iocpcore.SessionClosed):
        session.send(b"late")
    assert session.closed
    assert session.sockname[1] == session.listener.port


def test_sending_in_on_close_says_so(pair):
    raised = []

    def send(session, error):
        try:
            session.send(b"late")
        except iocpcore.SessionClosed:
            raised.append(session.closed)

    session, _, _ = pair(Acting(on_close=send))
    session.abort()
    until(lambda: raised == [True])


# ---- end, close, abort ----


def test_end_finishes_sending_and_goes_on_receiving(pair):
    session, peer, handler = pair()
    session.send(BIG)
    session.end()
    assert receive_to_end(peer) == BIG
    peer.sendall(b"still heard")
    until(lambda: handler.received() == b"still heard")
    peer.close()
    assert handler.wait_for("on_close") == (session, None)


def test_a_reset_after_end_is_told(pair):
    session, peer, handler = pair()
    session.end()
    assert peer.recv(1) == b""
    peer.sendall(b"heard")
    until(lambda: handler.received() == b"heard")
    reset(peer)
    _, error = handler.wait_for("on_close")
    if sys.platform == "win32" and error is None:
        pytest.skip("wine delivers this reset as an end")
    assert isinstance(error, ConnectionResetError)
    # wine has no words for Winsock's errors
    assert sys.platform != "win32" or error.strerror in (ctypes.FormatError(10054).rstrip("."), "error 10054")


def test_end_twice_is_end_once(pair):
    session, peer, _ = pair()
    session.end()
    session.end()
    assert peer.recv(1) == b""


def test_close_sends_what_is_queued_then_ends_and_hears_no_more(pair):
    session, peer, handler = pair()
    session.send(BIG)
    session.close()
    peer.sendall(b"not heard")
    assert receive_to_end(peer) == BIG
    peer.close()
    assert handler.wait_for("on_close") == (session, None)
    assert handler.received() == b""
    assert session.unsent == 0


def test_a_session_that_python_makes_itself_is_a_closed_one():
    session = iocpcore.Session.__new__(iocpcore.Session)
    assert (session.closed, session.unsent, session.peername) == (True, 0, None)
    session.close()
    with pytest.raises(iocpcore.SessionClosed):
        session.send(b"x")


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_session_says_that_it_closes_before_it_has_closed(pair, end):
    session, _, _ = pair()
    assert not session.closing
    session.end()
    assert not session.closing  # it goes on receiving
    getattr(session, end)()
    assert session.closing


def test_abort_resets_and_loses_what_is_queued(pair):
    session, peer, handler = pair()
    session.send(BIG)
    session.abort()
    assert handler.wait_for("on_close") == (session, None)
    assert session.unsent > 0
    with pytest.raises(ConnectionError):
        receive_to_end(peer)
        peer.sendall(b"x")  # under wine a receive does not tell a reset from an end; the first send does


@pytest.mark.parametrize(
    "first, second", [("close", "abort"), ("abort", "close"), ("close", "close"), ("end", "close")]
)
def test_a_session_ends_once_however_often_it_is_asked_to(pair, first, second):
    session, peer, handler = pair()
    getattr(session, first)()
    getattr(session, second)()
    peer.close()
    handler.wait_for("on_close")
    session.abort()
    assert handler.names().count("on_close") == 1


def test_abort_ends_a_close_that_waits(pair):
    session, _, handler = pair(linger=300.0)
    session.send(BIG)
    session.close()
    assert not handler.of("on_close")
    session.abort()
    handler.wait_for("on_close")


def test_abort_from_another_thread_ends_a_session_that_its_closing_proactor_waits_for(backend, connect):
    proactor = iocpcore.Proactor(1, backend)
    handler = Recorder()
    connect(proactor.listen(handler, linger=300.0))
    session, _ = handler.wait_for("on_connect")
    closer = threading.Thread(target=proactor.close, args=(300.0,))
    closer.start()
    until(lambda: proactor.closing)
    session.abort()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert_nothing_left(proactor)


def test_closing_before_the_connection_stands_still_sends_what_is_queued(proactor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        handler = Recorder()
        session = proactor.connect(handler, *server.getsockname())
        session.send(b"hello")
        session.close()
        peer, _ = server.accept()
        with peer:
            peer.settimeout(WAIT)
            assert receive_to_end(peer) == b"hello"
        assert handler.wait_for("on_close") == (session, None)
        assert session.unsent == 0


# ---- pause and resume ----


def test_no_data_comes_once_pause_has_returned_in_another_thread(pair):
    data = memoryview(bytes(range(251)) * (64 * MIB // 251))
    session, peer, handler = pair()
    peer.sendall(data[:100_000])
    until(lambda: handler.received() != b"")
    session.pause()
    seen = len(handler.calls)
    sent = 100_000 + send_until_nothing_moves(peer, data[100_000:])
    assert sent < len(data)
    assert len(handler.calls) == seen
    session.resume()
    until(lambda: len(handler.received()) == sent)
    assert handler.received() == data[:sent]


def test_pausing_and_resuming_without_end_loses_nothing_and_keeps_order(pair):
    session, peer, handler = pair()
    data = bytes(range(256)) * (int(16_000_000 * SCALE) // 256)
    thread = threading.Thread(target=peer.sendall, args=(data,))
    thread.start()
    while thread.is_alive():
        session.pause()
        session.resume()
    thread.join(WAIT)
    until(lambda: len(handler.received()) == len(data))
    assert handler.received() == data


def test_a_callback_that_pauses_hears_nothing_until_it_is_resumed(pair):
    session, peer, handler = pair(Acting(on_receive=lambda session, data: session.pause()), receive_size=1)
    peer.sendall(b"abc")
    for time in (1, 2, 3):
        handler.wait_for("on_receive", time)
        assert len(handler.of("on_receive")) == time
        session.resume()
    assert handler.received() == b"abc"


def test_the_peers_end_waits_while_a_session_is_paused(proactor, pair):
    session, peer, handler = pair(Acting(on_connect=lambda session: session.pause()))
    peer.sendall(b"x")
    peer.shutdown(socket.SHUT_WR)
    proactor.post(session.send, b"y")
    assert receive_exactly(peer, 1) == b"y"
    assert handler.names() == ["on_connect"]
    session.resume()
    handler.wait_for("on_end")
    assert handler.names() == ["on_connect", "on_receive", "on_end"]


def test_a_paused_session_still_sends_and_drains(pair):
    session, peer, handler = pair(high_water=1000)
    session.pause()
    session.send(b"x" * 1001)
    assert receive_exactly(peer, 1001) == b"x" * 1001
    handler.wait_for("on_drain")


def test_a_callback_that_sends_much_and_pauses_is_told_when_that_has_drained(pair):
    """Much goes out before the next callback, and may be gone before the pause is looked at."""

    def answer(session, data):
        if not session.send(b"x" * 100_000):
            session.pause()

    _, peer, handler = pair(Acting(on_receive=answer, on_drain=lambda session: session.resume()))
    for time in (1, 2, 3):
        peer.sendall(b"?")
        assert receive_exactly(peer, 100_000) == b"x" * 100_000
        handler.wait_for("on_drain", time)


@pytest.mark.parametrize("finish", ["close", "abort"])
def test_a_paused_session_can_be_ended(pair, finish):
    session, peer, handler = pair()
    peer.sendall(b"x")
    session.pause()
    getattr(session, finish)()
    peer.close()
    handler.wait_for("on_close")


# ---- names ----


def test_ids_are_never_used_again(proactor, connect):
    handler = Recorder()
    listener = proactor.listen(handler)
    for _ in range(20):
        connect(listener).close()
    until(lambda: len(handler.of("on_end")) == 20)
    ids = [session.id for session, _ in handler.of("on_connect")]
    assert len(set(ids)) == 20


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_sides_have_names(pair, host):
    session, peer, _ = pair(host=host)
    assert session.peername == peer.getsockname()
    assert session.sockname == peer.getpeername()
    assert session.listener.address == session.sockname


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_session_that_we_connect_has_names(proactor, host):
    handler = Recorder()
    listener = proactor.listen(iocpcore.ECHO, host)
    session = proactor.connect(handler, host, listener.port)
    assert session.peername == listener.address
    handler.wait_for("on_connect")
    assert session.peername == listener.address
    assert session.sockname[0] == host and session.sockname[1] > 0
    assert session.listener is None


def test_names_and_the_users_data_outlive_the_connection(pair):
    session, peer, handler = pair()
    session.data = {"user": 1}
    name = peer.getsockname()
    session.abort()
    handler.wait_for("on_close")
    assert session.peername == name
    assert session.data == {"user": 1}


def test_a_session_says_what_it_is(pair):
    session, peer, handler = pair()
    assert repr(session) == f"<iocpcore.Session {session.id} {peer.getsockname()} open>"
    session.close()
    assert repr(session).endswith(" closing>")
    peer.close()
    handler.wait_for("on_close")
    assert repr(session).endswith(" closed>")


def test_a_session_is_not_made_by_calling_its_type():
    with pytest.raises(TypeError, match="listen"):
        iocpcore.Session()


@pytest.mark.parametrize("name", ["id", "peername", "sockname", "listener", "unsent", "closed"])
def test_what_the_core_knows_cannot_be_set(pair, name):
    session, _, _ = pair()
    with pytest.raises(AttributeError):
        setattr(session, name, None)


# ---- memory ----


class Client:
    """A handler of its own for each session, and a cycle: session.data -> handler -> session."""

    def __init__(self):
        self.connected = threading.Event()
        self.ended = threading.Event()

    def on_connect(self, session):
        self.session = session
        session.data = self
        self.connected.set()

    def on_close(self, session, error):
        self.ended.set()


def collected(reference):
    gc.collect()
    return reference() is None


def test_a_cycle_through_a_session_is_collected_once_the_connection_has_gone(proactor, echo):
    client = Client()
    session = proactor.connect(client, "127.0.0.1", echo.port)
    assert client.connected.wait(WAIT)
    references = weakref.ref(client), weakref.ref(session)
    ended = client.ended
    del client
    del session
    gc.collect()
    assert all(reference() is not None for reference in references)  # the connection lives, and so do they
    references[1]().close()
    assert ended.wait(WAIT)
    until(lambda: all(collected(reference) for reference in references))


def test_a_kept_session_keeps_neither_its_handler_nor_its_proactor(backend, connect):
    client = Client()
    reference = weakref.ref(client)
    with iocpcore.Proactor(1, backend) as proactor:
        session = proactor.connect(client, "127.0.0.1", proactor.listen(iocpcore.ECHO).port)
        assert client.connected.wait(WAIT)
        session.data = None
        client.session = None
        session.abort()
        assert client.ended.wait(WAIT)
        del client
        until(lambda: collected(reference))
    assert_nothing_left(proactor)
    reference = weakref.ref(proactor)
    del proactor
    until(lambda: collected(reference))
    assert session.closed


def test_a_session_nobody_keeps_lives_as_long_as_its_connection(proactor, connect):
    class Greeter:
        def on_connect(self, session):
            reference.append(weakref.ref(session))

        def on_receive(self, session, data):
            session.send(data)

    reference = []
    peer = connect(proactor.listen(Greeter()))
    until(lambda: reference)
    gc.collect()
    peer.sendall(b"x")
    assert peer.recv(1) == b"x"
    assert reference[0]() is not None
    peer.close()
    until(lambda: collected(reference[0]))


def test_a_handler_that_nobody_keeps_outlives_the_last_packet_of_its_session(proactor, echo):
    """The address sanitizer sees it if not: what the worker still looks at was freed with the Session."""

    class Leaver:
        def on_connect(self, session):
            connected.append(1)
            session.close()

    connected = []
    for _ in range(20):
        proactor.connect(Leaver(), "127.0.0.1", echo.port)
    until(lambda: len(connected) == 20 and proactor.stats().active == 0)


@pytest.mark.parametrize("memory", ["reused", "given back"])
def test_a_kept_session_never_reaches_the_next_connection(proactor, connect, memory):
    handler = Recorder()
    listener = proactor.listen(handler)
    connect(listener)
    old, _ = handler.wait_for("on_connect")
    old.abort()
    handler.wait_for("on_close")
    until(lambda: proactor.stats().active == 0)
    if memory == "given back":
        until(lambda: proactor.stats().sessions_spare == 0)
    peer = connect(listener)
    new, _ = handler.wait_for("on_connect", 2)
    old.abort()
    old.pause()
    with pytest.raises(iocpcore.SessionClosed):
        old.send(b"to nobody")
    new.send(b"to the new one")
    assert receive_exactly(peer, 14) == b"to the new one"
    assert old != new and old.id != new.id


def test_a_thousand_sessions_leave_no_objects_behind(proactor, connect):
    class Greeter:
        def on_connect(self, session):
            references.append(weakref.ref(session))

    references = []
    count = int(1000 * SCALE)
    listener = proactor.listen(Greeter())
    for _ in range(count):
        connect(listener).close()
    until(lambda: len(references) == count)
    until(lambda: proactor.stats().active == 0)
    gc.collect()
    until(lambda: not any(reference() for reference in references))


# ---- a very large send ----


def memory_available():
    """Bytes that the system says it can still give, 0 where it does not say."""
    try:
        with open("/proc/meminfo") as meminfo:
            return next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable"))
    except OSError:
        return 0


@pytest.mark.uninstrumented
@pytest.mark.skipif(memory_available() < 6 << 30, reason="needs 6 GiB of memory")
def test_two_gib_in_one_send_are_sent_whole(pair):
    size = (2 << 30) + 5
    session, peer, _ = pair()
    data = bytes(size)
    assert session.send(data) is False
    assert session.unsent <= size
    session.close()
    buffer, received = bytearray(MIB), 0
    while count := peer.recv_into(buffer):
        received += count
    assert received == size


# ---- load ----


def test_every_send_under_load_is_delivered_or_raises_or_is_counted(proactor, connect):
    """Four threads send to a hundred sessions while another closes and aborts them; one order for each thread."""
    sessions, messages = 100, int(100_000 * SCALE)
    handler = Recorder()
    unsent = {}
    handler.on_close = lambda session, error: unsent.setdefault(session, []).append(session.unsent)
    listener = proactor.listen(handler, send_limit=None)
    peers = [connect(listener) for _ in range(sessions)]
    handler.wait_for("on_connect", sessions)
    served = {session.peername: session for session, _ in handler.of("on_connect")}
    targets = [served[peer.getsockname()] for peer in peers]
    taken = [[[] for _ in range(4)] for _ in range(sessions)]  # of each session, by each thread
    delivered = [b""] * sessions

    def read(index):
        pieces = []
        try:
            while piece := peers[index].recv(1 << 20):
                pieces.append(piece)
        except ConnectionError:
            pass
        delivered[index] = b"".join(pieces)

    def send(sender):
        for number in range(messages):
            index = (number * 7 + sender) % sessions
            try:
                targets[index].send(struct.pack("!II", sender, number))
            except iocpcore.SessionClosed:
                continue
            taken[index][sender].append(number)

    def close():
        for index in range(sessions - 1):
            until(lambda index=index: sum(map(len, taken[index])) > index * messages // 2500 or not senders_live())
            targets[index].abort() if index % 2 else targets[index].close()

    def senders_live():
        return any(thread.is_alive() for thread in senders)

    readers = [threading.Thread(target=read, args=(index,)) for index in range(sessions)]
    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    closer = threading.Thread(target=close)
    for thread in [*readers, *senders, closer]:
        thread.start()
    for thread in [*senders, closer]:
        thread.join(2 * WAIT)
    targets[-1].close()
    for thread in readers:
        thread.join(WAIT)
        assert not thread.is_alive()
    for peer in peers:
        peer.close()
    until(lambda: len(unsent) == sessions)

    for index, session in enumerate(targets):
        accepted = sum(map(len, taken[index])) * 8
        data = delivered[index]
        assert len(unsent[session]) == 1
        if index % 2 and index < sessions - 1:  # a reset destroys what the peer has not read
            assert len(data) + unsent[session][0] <= accepted
        else:
            assert len(data) + unsent[session][0] == accepted
        got = [[] for _ in range(4)]
        for sender, number in struct.iter_unpack("!II", data[: len(data) // 8 * 8]):
            got[sender].append(number)
        for sender in range(4):
            assert got[sender] == taken[index][sender][: len(got[sender])]
    stats = proactor.stats()
    assert stats.bytes_sent + stats.bytes_unsent == 8 * sum(len(one) for each in taken for one in each)
