"""Forked children: what they have of their parent's proactor keeps nothing of it alive."""

import os
import socket
import sys

import pytest

from support import WAIT, Child

if not hasattr(os, "fork"):
    pytest.skip("this system cannot fork", allow_module_level=True)

# A server that says its port, forks a child that does nothing, and serves until it is killed.
SERVER = """
import iocpcore, os, socket, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)    # newer Pythons dislike a fork with threads, and are right
_, backend, workers, when = sys.argv

def fork():
    if when == "nested" and os.fork() == 0:
        os.fork()
        os.read(0, 1)
        os._exit(0)
    if when != "nested" and os.fork() == 0:
        os.read(0, 1)
        os._exit(0)

class Server:
    def on_receive(self, session, data):
        if data == b"fork":
            fork()
        session.send(data)

proactor = iocpcore.Proactor(int(workers), backend)
listener = proactor.listen(Server())
if when == "before":
    fork()
print(listener.port, flush=True)
while not proactor.workers:
    proactor.poll()
os.read(0, 1)
"""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("when", ["before", "in a callback", "nested"])
def test_peers_learn_at_once_that_a_server_was_killed_whose_children_live(backend, workers, when):
    server = Child([sys.executable, "-c", SERVER, backend, str(workers), when])
    try:
        address = ("127.0.0.1", int(server.line()))
        peers = [socket.create_connection(address, timeout=WAIT) for _ in range(3)]
        for peer in peers:
            peer.sendall(b"fork" if when != "before" and peer is peers[1] else b"more")
            assert peer.recv(4) in (b"fork", b"more")
        server.process.kill()
        for peer in peers:
            with peer:
                assert ends(peer)
    finally:
        server.process.stdin.close()  # its children end
        server.close()


def ends(peer):
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True
