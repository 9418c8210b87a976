"""A port that gives no packets any more: its sessions end with the error, and whoever uses the proactor is told."""

import ctypes
import logging
import os
import socket
import sys

import pytest

import iocpcore
from support import WAIT, Acting, until

if sys.platform == "win32":
    pytest.skip("no other code can close a port's handle there without knowing it", allow_module_level=True)


def ports():
    """Descriptors of epoll sets and rings."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target in ("anon_inode:[eventpoll]", "anon_inode:[io_uring]"):
            found.add(int(name))
    return found


def break_off(port):
    """In its worker's thread. A ring has a number of its thread's too, by which it would be found still."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    io_uring_register, unregister_ring = 427, 21
    for number in range(16):
        slot = (ctypes.c_uint * 4)(number, 0, 0, 0)
        syscall(ctypes.c_long(io_uring_register), ctypes.c_uint(port), ctypes.c_uint(unregister_ring), slot, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), port)


class Broken:
    """A proactor with a session and its peer; its first worker's port can be broken."""

    def __init__(self, backend, workers):
        before = ports()
        self.proactor = iocpcore.Proactor(workers, backend)
        self.port = min(ports() - before)
        self.handler = Acting(on_receive=lambda session, data: session.send(data))
        self.listener = self.proactor.listen(self.handler, workers=[0])
        self.peers = [socket.create_connection(self.listener.address, timeout=WAIT) for _ in range(3)]
        for peer in self.peers:
            peer.sendall(b"x")
        self.turn(lambda: len(self.handler.of("on_receive")) == 3)
        for peer in self.peers:
            assert peer.recv(1) == b"x"

    def turn(self, condition):
        until(condition if self.proactor.workers else lambda: (self.proactor.poll(0.001), condition())[1])

    def break_off(self):
        if self.proactor.workers:
            self.proactor.post(break_off, self.port, worker=0)
        else:
            break_off(self.port)

    def peers_end(self):
        for peer in self.peers:
            with peer:
                assert ends(peer)


def ends(peer):
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def errors_in(caplog):
    return [record for record in caplog.records if record.levelno == logging.ERROR]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_whose_port_is_broken_ends_its_sessions_is_logged_once_and_does_not_spin(backend, workers, caplog):
    broken = Broken(backend, workers)
    broken.break_off()
    broken.peers_end()
    for _, error in (broken.handler.wait_for("on_close", count) for count in (1, 2, 3)):
        assert isinstance(error, OSError)
    until(lambda: errors_in(caplog))
    with pytest.raises(OSError):
        broken.proactor.post(print, worker=0)
    failures = broken.proactor.stats().dequeue_failures
    broken.proactor.close(0)
    assert broken.proactor.stats().dequeue_failures == failures < 1000
    (record,) = errors_in(caplog)
    assert record.name == "iocpcore"
    assert "worker 0" in record.getMessage()


def test_poll_raises_what_is_wrong_with_its_port(backend, caplog):
    broken = Broken(backend, 0)
    broken.break_off()
    with pytest.raises(OSError):
        for _ in range(1000):
            broken.proactor.poll(0.001)
    broken.peers_end()
    assert len(broken.handler.of("on_close")) == 3
    with pytest.raises(OSError):
        broken.proactor.poll(0)
    assert len(errors_in(caplog)) == 1
    broken.proactor.close(0)


def test_the_other_workers_go_on_and_get_what_is_new(backend, caplog):
    broken = Broken(backend, 2)
    broken.break_off()
    until(lambda: errors_in(caplog))
    for _ in range(5):
        listener = broken.proactor.listen(iocpcore.ECHO)
        with socket.create_connection(listener.address, timeout=WAIT) as peer:
            peer.sendall(b"hello")
            assert peer.recv(5) == b"hello"
        listener.close()
    called = []
    for number in range(4):
        broken.proactor.post(called.append, number)
    until(lambda: called == [0, 1, 2, 3])
    broken.peers_end()
    broken.proactor.close(0)
