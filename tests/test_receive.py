"""Receiving."""

import socket
import sys

import pytest

import iocpcore
from support import receive_exactly, until


@pytest.mark.parametrize("idle_timeout", [None, 3600])
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
    for peer in peers:
        peer.sendall(b"again")
        assert receive_exactly(peer, 5) == b"again"
    until(lambda: proactor.stats().buffers_used == 5)


def test_sessions_beyond_a_number_wait_without_a_buffer_and_all_answer(proactor, echo, connect):
    enough = 1024 if sys.platform == "win32" else 128  # IOCP_BUFFERS_ENOUGH
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
