"""listen(sock=, shared=True): several processes, or proactors, accept from one listening socket."""

import base64
import os
import signal
import socket
import sys
import threading

import pytest

import iocpcore
from support import (
    SCALE,
    WAIT,
    Child,
    Recorder,
    assert_nothing_left,
    open_handles,
    receive_exactly,
    receive_to_end,
    until,
)

# A process that serves until it is told to end, and then says how much it had to do.
SERVER = """
import base64, os, socket, sys
import iocpcore

class WhoAreYou:
    def __init__(self, name):
        self.name = name.encode()

    def on_connect(self, session):
        session.send(self.name)
        session.close()

def serve(sock, name, backend, **options):
    with iocpcore.Proactor(1, backend) as proactor:
        proactor.listen(WhoAreYou(name), sock=sock, **options)
        print("ready", flush=True)
        sys.stdin.readline()
        proactor.close()
        stats = proactor.stats()
    assert stats.accept_failures == stats.in_flight == 0, stats
    print(name, stats.accepted, stats.dequeues, flush=True)
"""

# Spawned: it tells its process id, and is told what makes a socket.
SPAWNED = (
    SERVER
    + """
_, name, backend = sys.argv
print(os.getpid(), flush=True)
told = sys.stdin.readline()
if sys.platform == "win32":
    sock = socket.fromshare(base64.b64decode(told))
else:
    sock = socket.socket(fileno=int(told))
serve(sock, name, backend, shared=True)
"""
)

# Forked: the parent has bound the socket, and ends its children one by one when it is told to.
FORKING = (
    SERVER
    + """
_, backend, *names = sys.argv
sock = socket.create_server(("127.0.0.1", 0), backlog=200)
print(sock.getsockname()[1], flush=True)
children = []
for name in names:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for _, end in [*children, (0, tell)]:
            os.close(end)
        sys.stdin = os.fdopen(told)
        serve(sock, name, backend)
        os._exit(0)
    os.close(told)
    children.append((child, tell))
sock.close()
for child, tell in children:
    sys.stdin.readline()
    os.close(tell)
    assert os.waitpid(child, 0)[1] == 0
"""
)

CLIENTS = 60


def who_answers(address, clients=CLIENTS):
    """The name of the process that served each of so many clients, who come in tens."""
    names = []
    for _ in range(clients // 10):
        peers = [socket.create_connection(address, timeout=WAIT) for _ in range(10)]
        for peer in peers:
            with peer:
                names.append(receive_to_end(peer).decode())
    return names


def expect_served(lines, names):
    """Each connection was served once, by whom its client was told; and nobody has spun."""
    assert set(names) <= {line.split()[0] for line in lines}
    for line in lines:
        name, accepted, dequeues = line.split()
        assert int(accepted) == names.count(name)
        assert int(dequeues) <= 50 * len(names)


@pytest.fixture
def spawned():
    """Start a process that shares the socket."""
    children = []

    def spawned(sock, name, backend):
        inherited = () if sys.platform == "win32" else (sock.fileno(),)
        children.append(Child([sys.executable, "-c", SPAWNED, name, backend], pass_fds=inherited))
        process_id = int(children[-1].line())
        if sys.platform == "win32":
            children[-1].tell(base64.b64encode(sock.share(process_id)).decode())
        else:
            children[-1].tell(sock.fileno())
        assert children[-1].line() == "ready"
        return children[-1]

    yield spawned
    for child in children:
        child.close()


@pytest.fixture
def bound():
    with socket.create_server(("127.0.0.1", 0), backlog=200) as sock:
        yield sock


def end(child):
    """Its last line."""
    child.tell("end")
    status, lines, errors = child.end()
    assert (status, errors) == (0, [])
    return lines[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="there a connection belongs to the accept that was posted first")
def test_a_busy_worker_keeps_no_connection_from_another_that_listens_too(backend, bound, connect):
    blocked, leave = threading.Event(), threading.Event()
    with iocpcore.Proactor(1, backend) as busy, iocpcore.Proactor(1, backend) as idle:
        handler = Recorder()
        busy.listen(handler, sock=bound.dup(), shared=True)
        listener = idle.listen(handler, sock=bound.dup(), shared=True)
        busy.post(lambda: (blocked.set(), leave.wait(2 * WAIT)))
        assert blocked.wait(WAIT)
        for count in range(1, 41):
            connect(listener).close()
            handler.wait_for("on_connect", count)
        leave.set()


def test_each_connection_is_served_once_by_one_of_three_processes(backend, bound, spawned):
    children = [spawned(bound, name, backend) for name in ("a", "b", "c")]
    names = who_answers(bound.getsockname())
    assert set(names) <= {"a", "b", "c"}
    expect_served([end(child) for child in children], names)


def test_the_others_go_on_when_one_process_ends(backend, bound, spawned):
    children = {name: spawned(bound, name, backend) for name in ("a", "b")}
    names = who_answers(bound.getsockname())
    lines = [end(children["a"])]
    after = who_answers(bound.getsockname())
    assert set(after) == {"b"}
    expect_served([*lines, end(children["b"])], names + after)


def test_the_others_go_on_when_one_process_is_killed(backend, bound, spawned):
    killed, other = (spawned(bound, name, backend) for name in ("killed", "other"))
    assert who_answers(bound.getsockname())
    killed.process.kill()
    killed.end()
    assert set(who_answers(bound.getsockname())) == {"other"}


def test_a_process_that_comes_later_shares_too(backend, bound, spawned):
    with iocpcore.Proactor(1, backend) as proactor:
        listener = proactor.listen(iocpcore.DISCARD, sock=bound.dup(), shared=True)
        child = spawned(bound, "late", backend)
        listener.close()
        until(lambda: proactor.stats().in_flight == 0)
        assert set(who_answers(bound.getsockname())) == {"late"}
        end(child)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_that_are_forked_after_bind_share_a_listener(backend):
    parent = Child([sys.executable, "-W", "ignore", "-c", FORKING, backend, "a", "b", "c"])
    try:
        address = ("127.0.0.1", int(parent.line()))
        assert [parent.line() for _ in range(3)] == ["ready"] * 3
        names, lines, left = [], [], {"a", "b", "c"}
        for name in "abc":
            answers = who_answers(address)
            assert set(answers) <= left
            names += answers
            parent.tell("end the next")
            lines.append(parent.line())
            left.remove(name)
        with pytest.raises(ConnectionError):
            socket.create_connection(address, timeout=WAIT)
        assert parent.end() == (0, [], [])
        expect_served(lines, names)
    finally:
        parent.close()


@pytest.mark.skipif(sys.platform == "win32", reason="it has one backend")
def test_processes_with_different_backends_share_a_listener(bound, spawned):
    """One wants the socket to block, the other that it does not: nobody must hang in accept()."""
    runnable = [name for name, missing in iocpcore.backends().items() if missing is None]
    children = [spawned(bound, f"{name}{turn}", name) for turn in range(2) for name in runnable]
    names = who_answers(bound.getsockname(), 200)
    expect_served([end(child) for child in children], names)


def test_a_process_that_makes_the_socket_blocking_hangs_nobody(backend, bound, spawned):
    children = [spawned(bound, name, backend) for name in ("a", "b", "c")]
    bound.setblocking(False)
    bound.setblocking(True)
    names = who_answers(bound.getsockname())
    expect_served([end(child) for child in children], names)


# ---- proactors of one process ----


def serve_and_close(backend, sock):
    """By two proactors; then by one alone."""
    with iocpcore.Proactor(1, backend) as first, iocpcore.Proactor(2, backend) as second:
        listeners = [it.listen(iocpcore.ECHO, sock=sock.dup(), shared=True) for it in (first, second)]
        for closing in (None, listeners[0]):
            if closing is not None:
                closing.close()
                until(lambda: first.stats().in_flight == 0)
            for _ in range(20):
                with socket.create_connection(sock.getsockname(), timeout=WAIT) as peer:
                    peer.sendall(b"x")
                    assert receive_exactly(peer, 1) == b"x"
            until(lambda: first.stats().active + second.stats().active == 0)
    # Now each worker has told of its last batch.
    assert first.stats().accepted + second.stats().accepted == 40
    assert first.stats().accept_failures + second.stats().accept_failures == 0
    assert_nothing_left(first)
    assert_nothing_left(second)


def test_proactors_of_one_process_share_a_listener(backend, bound):
    serve_and_close(backend, bound)


def test_a_shared_listener_leaves_no_handle_open(backend, bound):
    serve_and_close(backend, bound)
    before = open_handles()
    for _ in range(3):
        serve_and_close(backend, bound)
    assert open_handles() <= before


def test_shared_listeners_come_and_go_while_clients_connect(backend, bound):
    """Accepts are cancelled as they end: no packet is lost, none comes after its listener."""
    with iocpcore.Proactor(1, backend) as stays, iocpcore.Proactor(1, backend) as changes:
        stays.listen(iocpcore.ECHO, sock=bound.dup(), shared=True)
        for _ in range(50):
            listener = changes.listen(iocpcore.ECHO, sock=bound.dup(), shared=True)
            with socket.create_connection(bound.getsockname(), timeout=WAIT) as peer:
                peer.sendall(b"x")
                assert receive_exactly(peer, 1) == b"x"
                listener.close()
        until(lambda: changes.stats().active == changes.stats().in_flight == 0)
    assert_nothing_left(stays)
    assert_nothing_left(changes)


def test_one_proactor_may_own_the_socket_that_others_share(backend, bound):
    with iocpcore.Proactor(1, backend) as sharing, iocpcore.Proactor(1, backend) as owning:
        sharing.listen(iocpcore.ECHO, sock=bound.dup(), shared=True)
        listener = owning.listen(iocpcore.ECHO, sock=bound.dup())
        for closing in (None, listener):
            if closing is not None:
                closing.close()
                until(lambda: owning.stats().in_flight == 0)
            for _ in range(20):
                with socket.create_connection(bound.getsockname(), timeout=WAIT) as peer:
                    peer.sendall(b"x")
                    assert receive_exactly(peer, 1) == b"x"


def test_a_socket_of_another_port_is_shared_or_refused_with_words(backend, bound):
    """Linux shares it in any case."""
    with iocpcore.Proactor(1, backend) as first, iocpcore.Proactor(1, backend) as second:
        first.listen(iocpcore.ECHO, sock=bound.dup())
        if sys.platform == "win32":
            with bound.dup() as sock, pytest.raises(OSError, match="shared=True") as caught:
                second.listen(iocpcore.ECHO, sock=sock)
            assert caught.value.winerror == 87
        else:
            second.listen(iocpcore.ECHO, sock=bound.dup())
            first.close(0)
        with socket.create_connection(bound.getsockname(), timeout=WAIT) as peer:
            peer.sendall(b"x")
            assert receive_exactly(peer, 1) == b"x"


def test_without_a_socket_there_is_nothing_to_share(proactor):
    with pytest.raises(ValueError, match="shared"):
        proactor.listen(Recorder(), shared=True)


# ---- handing a socket on ----


class Clients:
    """Six that connect, ask and read, again and again, until told to stop; what they got instead of an answer."""

    def __init__(self, address):
        self.address = address
        self.stopping = False
        self.answered = 0
        self.failures = []
        self.threads = [threading.Thread(target=self.run) for _ in range(6)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self.stopping = True
        for thread in self.threads:
            thread.join(2 * WAIT)

    def run(self):
        while not self.stopping:
            try:
                with socket.create_connection(self.address, timeout=WAIT) as peer:
                    peer.sendall(b"ask")
                    answer = receive_exactly(peer, 3)
            except OSError as error:
                answer = error
            if answer == b"ask":
                self.answered += 1
            else:
                self.failures.append(answer)

    def wait_for_answers(self, count):
        until(lambda: self.answered >= count or self.failures)


@pytest.mark.parametrize("shared", [False, True])
def test_no_connection_is_lost_when_a_socket_is_handed_from_one_proactor_to_the_next(backend, bound, shared):
    if sys.platform == "win32" and not shared:
        pytest.skip("Windows lets one completion port have a socket")
    with iocpcore.Proactor(1, backend) as one, iocpcore.Proactor(1, backend) as two:
        listener = one.listen(iocpcore.ECHO, sock=bound.dup(), shared=shared)
        with Clients(bound.getsockname()) as clients:
            for turn in range(max(20, int(200 * SCALE))):
                answered = clients.answered
                successor = (two, one)[turn % 2].listen(iocpcore.ECHO, sock=bound.dup(), shared=shared)
                listener.close()
                listener = successor
                clients.wait_for_answers(answered + 1)
        assert clients.failures == []
    assert one.stats().refused == two.stats().refused == 0


# Serves on an inherited socket until SIGHUP, and what it has accepted to the end.
SUCCEEDING = """
import signal, socket, sys, time
import iocpcore

_, backend, number = sys.argv
proactor = iocpcore.Proactor(1, backend)
listener = proactor.listen(iocpcore.ECHO, sock=socket.socket(fileno=int(number)), shared=True)
replaced = False

def on_signal(number, frame):
    global replaced
    replaced = True

signal.signal(signal.SIGHUP, on_signal)
print("ready", flush=True)
while not replaced:
    time.sleep(0.01)
listener.close()
while proactor.stats().active:
    time.sleep(0.01)
proactor.close()
assert proactor.stats().refused == 0
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_no_connection_is_lost_when_a_process_hands_its_socket_to_its_successor(backend, bound):
    command = [sys.executable, "-c", SUCCEEDING, backend, str(bound.fileno())]
    children = []
    try:
        with Clients(bound.getsockname()) as clients:
            for _ in range(max(3, int(20 * SCALE))):
                children.append(Child(command, pass_fds=(bound.fileno(),)))
                assert children[-1].line() == "ready"
                for replaced in children[-2:-1]:
                    replaced.signal("SIGHUP")
                clients.wait_for_answers(clients.answered + 1)
        assert clients.failures == []
        children[-1].signal("SIGHUP")
        assert [child.end()[::2] for child in children] == [(0, [])] * len(children)
    finally:
        for child in children:
            child.close()
