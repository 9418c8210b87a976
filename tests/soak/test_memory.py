"""What an idle session costs: the process that serves two thousand of them is asked, and the peers are in this one."""

import json
import sys

import pytest

from support import Child, receive_exactly, until

SESSIONS = 2000
OTHER_FILES = 100

SERVER = """
import ctypes, json, resource, sys
import iocpcore

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Echo:
    def on_receive(self, session, data):
        session.send(data)


def private():
    '''Bytes of memory that no other process has a part in.'''
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


with iocpcore.Proactor(1, sys.argv[1]) as proactor:
    listener = proactor.listen({"native": iocpcore.ECHO, "Python": Echo()}[sys.argv[2]], backlog=4096)
    print(listener.port, flush=True)
    for _ in sys.stdin:
        stats = proactor.stats()
        print(json.dumps([stats.active, stats.buffers_used, stats.buffers_spare, private()]), flush=True)
"""


@pytest.fixture
def allowed():
    """This process may have a socket for each session; the system's limit is as it was after the test."""
    resource = pytest.importorskip("resource", reason="memory is measured on Linux")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < SESSIONS + OTHER_FILES:
        pytest.skip(f"{SESSIONS} sessions take as many open files, and the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Server:
    """A server in a process of its own, and its peers."""

    def __init__(self, child):
        self.child = child
        self.address = ("127.0.0.1", int(child.line()))

    def ask(self):
        """Its sessions, the buffers that they hold, those kept for reuse, and its private memory in bytes."""
        self.child.tell("now")
        return json.loads(self.child.line())

    def idle(self, sessions):
        """Its private memory, once it has so many sessions, each has given its buffer back, and nobody keeps these."""
        until(lambda: self.ask()[:-1] == [sessions, 0, 0])
        return self.ask()[-1]


@pytest.fixture
def serve(allowed, backend):
    children = []

    def serve(handler):
        children.append(Child([sys.executable, "-c", SERVER, backend, handler]))
        return Server(children[-1])

    yield serve
    for child in children:
        child.close()


def echo(peer):
    peer.sendall(b"fourteen bytes")
    assert receive_exactly(peer, 14) == b"fourteen bytes"


@pytest.mark.uninstrumented
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured on Linux")
@pytest.mark.parametrize(("handler", "most"), [("native", 640), ("Python", 1100)])
def test_an_idle_session_that_has_had_one_echo_takes_little_memory(serve, connect, handler, most):
    server = serve(handler)
    for _ in range(10):  # code and pools are there afterwards
        echo(connect(server))
    before = server.idle(10)
    for _ in range(SESSIONS):
        echo(connect(server))
    assert (server.idle(10 + SESSIONS) - before) / SESSIONS <= most
