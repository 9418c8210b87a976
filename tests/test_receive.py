"""Receiving."""

import socket
import sys
import threading

import pytest

import iocpcore
from support import WAIT, Acting, Recorder, receive_exactly, until

BUFFER = 16384  # bytes; a session begins with one


@pytest.fixture
def much(pair):
    """As pair(), after two receives: the first has filled its buffer, the second found twice as much and had four."""
    session, peer, handler = pair(Acting(on_connect=lambda session: session.pause()))
    data = bytes(range(256)) * (3 * BUFFER // 256)
    peer.sendall(data)
    session.resume()
    until(lambda: len(handler.received()) == len(data))
    assert handler.received() == data
    return session, peer, handler


@pytest.fixture
def idle(connect):
    """Call it to wait until who says nothing has been idle for long enough: another's idle timeout says so."""

    def wait():
        with iocpcore.Proactor() as another:
            handler = Recorder()
            connect(another.listen(handler, idle_timeout=7))
            handler.wait_for("on_close")

    return wait


@pytest.mark.parametrize("idle_timeout", [None, 3600])
@pytest.mark.skipif(sys.platform == "win32", reason="no receive of a connection that goes on is cancelled there")
def test_an_idle_session_gives_its_buffer_back_and_still_answers(proactor, connect, idle_timeout):
    """After some seconds without data its receive is cancelled and a zero-byte receive posted."""
    echo = proactor.listen(iocpcore.ECHO, idle_timeout=idle_timeout)
    peers = [connect(echo) for _ in range(5)]
    for peer in peers:
        peer.sendall(b"first")
        assert receive_exactly(peer, 5) == b"first"
    until(lambda: proactor.stats().buffers_used == 5)
    until(lambda: proactor.stats().buffers_used == 0)
    assert proactor.stats().active == 5
    for buffers in 0, 0, 5:    # who was idle is likely to be so again: it holds none until it has said more
        for peer in peers:
            peer.sendall(b"again")
            assert receive_exactly(peer, 5) == b"again"
        until(lambda buffers=buffers: proactor.stats().buffers_used == buffers)
    assert proactor.stats().cancelled == 5  # no buffer had to be taken back meanwhile


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere it gives its buffer back")
def test_no_receive_of_an_idle_session_is_cancelled(proactor, connect, idle):
    """Windows may deliver nothing more to a connection whose receive was cancelled."""
    peer = connect(proactor.listen(iocpcore.ECHO))
    peer.sendall(b"first")
    assert receive_exactly(peer, 5) == b"first"
    idle()
    assert proactor.stats().cancelled == 0
    assert proactor.stats().buffers_used == 0   # until it has said more: then it keeps one
    peer.sendall(b"again")
    assert receive_exactly(peer, 5) == b"again"


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere it gives its buffer back")
def test_a_session_that_has_said_more_keeps_its_buffer_until_it_has_been_idle_and_speaks(proactor, connect, idle):
    peer = connect(proactor.listen(iocpcore.ECHO))
    for buffers in 0, 1:
        peer.sendall(b"words")
        assert receive_exactly(peer, 5) == b"words"
        until(lambda buffers=buffers: proactor.stats().buffers_used == buffers)
    idle()
    assert (proactor.stats().buffers_used, proactor.stats().cancelled) == (1, 0)
    peer.sendall(b"again")
    assert receive_exactly(peer, 5) == b"again"
    until(lambda: proactor.stats().buffers_used == 0)


def test_sessions_beyond_a_number_wait_without_a_buffer_and_all_answer(proactor, echo, connect):
    enough = 256 if sys.platform == "win32" else 64  # IOCP_BUFFERS_ENOUGH
    peers = [connect(echo) for _ in range(enough + 50)]
    for word in b"first", b"again":
        for peer in peers:
            peer.sendall(word)
        for peer in peers:
            assert receive_exactly(peer, 5) == word
    until(lambda: 0 < proactor.stats().buffers_used <= enough + 1)
    assert proactor.stats().active == len(peers)


@pytest.mark.valgrind
def test_data_and_end_that_arrive_together_are_both_seen(echo, connect):
    peer = connect(echo)
    peer.sendall(b"last words")
    peer.shutdown(socket.SHUT_WR)
    assert receive_exactly(peer, 100) == b"last words"


def test_urgent_data_does_not_stall_the_stream(echo, connect):
    """The urgent byte is not part of the stream, on either system; what is around it is."""
    peer = connect(echo)
    peer.sendall(b"before")
    peer.send(b"!", socket.MSG_OOB)
    peer.sendall(b"after")
    peer.shutdown(socket.SHUT_WR)
    assert receive_exactly(peer, 100) == b"beforeafter"


def test_bytes_that_come_one_by_one_come_back_one_by_one(echo, connect):
    peer = connect(echo)
    for byte in b"slowly":
        peer.sendall(bytes([byte]))
        assert receive_exactly(peer, 1) == bytes([byte])


# ---- more than a buffer holds ----


def test_after_a_full_buffer_a_larger_piece_comes(much):
    _, _, handler = much
    assert [len(piece) for _, piece in handler.of("on_receive")] == [BUFFER, 2 * BUFFER]


def test_a_session_that_receives_much_holds_no_buffer_while_it_waits(proactor, much):
    _, peer, handler = much
    until(lambda: proactor.stats().buffers_used == 0)
    peer.sendall(b"again")
    until(lambda: handler.received().endswith(b"again"))
    until(lambda: proactor.stats().buffers_used == 0)


def test_a_session_that_receives_little_again_holds_one_buffer_again(proactor, much):
    _, peer, handler = much
    for buffers in (0, 1, 1):   # it had room for four, then for two
        before = len(handler.received())
        peer.sendall(b"little")
        until(lambda before=before: len(handler.received()) > before)
        until(lambda buffers=buffers: proactor.stats().buffers_used == buffers)


def test_a_session_whose_peer_has_ended_holds_no_buffer(proactor, much):
    session, peer, handler = much
    peer.shutdown(socket.SHUT_WR)
    handler.wait_for("on_end")
    until(lambda: proactor.stats().buffers_used == 0)
    session.send(b"still here")
    assert receive_exactly(peer, 10) == b"still here"


def test_a_session_that_pauses_when_it_has_received_holds_no_buffer(proactor, pair):
    session, peer, handler = pair(Acting(on_receive=lambda session, data: session.pause()))
    peer.sendall(b"first")
    handler.wait_for("on_receive")
    until(lambda: proactor.stats().buffers_used == 0)
    session.resume()
    peer.sendall(b"again")
    until(lambda: handler.received() == b"firstagain")


def test_of_a_session_that_is_aborted_in_on_receive_all_buffers_go_back(proactor, pair):
    def abort_at_much(session, data):
        if len(data) > BUFFER:
            session.abort()

    session, peer, handler = pair(Acting(on_connect=lambda session: session.pause(), on_receive=abort_at_much))
    peer.sendall(bytes(3 * BUFFER))
    session.resume()
    handler.wait_for("on_close")
    until(lambda: proactor.stats().buffers_used == 0)


def test_what_a_paused_session_has_not_heard_when_it_is_aborted_is_discarded(proactor, pair):
    session, peer, handler = pair(Acting())
    for count in 1, 2:  # on Windows it then has a buffer that waits for more
        peer.sendall(b"heard")
        until(lambda count=count: handler.received() == count * b"heard")
    is_paused = threading.Event()
    session.pause()
    proactor.post(is_paused.set)
    assert is_paused.wait(WAIT)
    peer.sendall(b"unheard")
    until(lambda: session.stats().bytes_received == 17)
    session.abort()
    handler.wait_for("on_close")
    until(lambda: proactor.stats().buffers_used == 0)
    assert handler.received() == b"heardheard"
    assert proactor.stats().bytes_discarded == 7


def exchange(peer, data):
    """Send it and receive as much, at the same time."""
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    returned = receive_exactly(peer, len(data))
    sender.join()
    return returned


@pytest.mark.parametrize("size", [1000, BUFFER, 40_000, 1 << 18])
@pytest.mark.parametrize("native", [True, False])
def test_a_long_stream_comes_back_the_same_whatever_a_receive_may_bring(proactor, connect, native, size):
    handler = iocpcore.ECHO if native else Acting(on_receive=lambda session, data: session.send(data))
    peer = connect(proactor.listen(handler, receive_size=size))
    data = bytes(i * i % 251 for i in range(1_000_000))
    assert exchange(peer, data) == data


def test_a_load_of_large_messages_finds_each_byte(proactor, echo):
    load = iocpcore.Load(connections=4, messages=20, size=(1, 300_000), pipeline=3)
    load.start(proactor, *echo.address)
    assert load.wait(60)
    result = load.result()
    assert (result["echoes"], result["mismatches"], result["errors"]) == (80, 0, 0)
