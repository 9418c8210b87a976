"""Sending waits for the peer, and what waits is bounded."""

import hashlib
import socket
import sys
import threading

import pytest

from support import WAIT, receive_exactly, reset, send_until_nothing_moves, until

MIB = 1 << 20
WATER = 65536  # bytes queued above which an echo stops receiving
BUFFER = 16384  # bytes of a receive buffer
RECEIVE = 8 * BUFFER  # bytes that one receive may bring


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def test_a_peer_that_does_not_read_costs_little_and_loses_nothing(proactor, echo, connect):
    data = memoryview(bytes(range(251)) * (64 * MIB // 251 + 1))[: 64 * MIB]
    peer = connect(echo)
    before = resident() if sys.platform == "linux" else 0
    sent = send_until_nothing_moves(peer, data)
    assert sent < len(data)
    after = resident() if sys.platform == "linux" else 0
    assert after - before < MIB + 2 * WATER
    assert proactor.stats().bytes_queued < WATER + RECEIVE
    assert proactor.stats().buffers_used <= (WATER + RECEIVE) // BUFFER + 2

    rest = threading.Thread(target=lambda: (peer.sendall(data[sent:]), peer.shutdown(socket.SHUT_WR)))
    rest.start()
    digest, length = hashlib.sha256(), 0
    while piece := peer.recv(1 << 18):
        digest.update(piece)
        length += len(piece)
    rest.join(WAIT)
    assert length == len(data)
    assert digest.digest() == hashlib.sha256(data).digest()


def test_a_peer_that_sends_single_bytes_and_does_not_read_fills_no_memory(proactor, echo, connect):
    """Each byte would occupy a whole buffer: buffers are bounded too, not only bytes."""
    peer = connect(echo)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(2000):
        peer.sendall(b"x")
    assert receive_exactly(peer, 2000) == b"x" * 2000
    assert proactor.stats().buffers_used + proactor.stats().buffers_spare <= 64  # one slab


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 262144, 1_000_000])
def test_messages_of_every_size_come_back(echo, connect, size):
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    peer = connect(echo)
    thread = threading.Thread(target=peer.sendall, args=(data,))
    thread.start()
    assert receive_exactly(peer, size) == data
    thread.join(WAIT)


def test_what_a_reset_left_unsent_is_counted(proactor, echo, connect):
    peer = connect(echo)
    send_until_nothing_moves(peer, bytes(64 * MIB))
    until(lambda: proactor.stats().bytes_queued > 0)
    reset(peer)
    until(lambda: proactor.stats().active == 0)
    stats = proactor.stats()
    assert stats.bytes_unsent > 0
    assert stats.bytes_sent + stats.bytes_unsent == stats.bytes_received
