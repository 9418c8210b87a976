"""What an operator sees in the log: one warning of a trouble, then at most one in a period, with a count."""

import logging
import socket
import sys
import threading

import pytest

import iocpcore
from support import WAIT, Recorder, receive_exactly, refusing_port, run_python, until

FEW = "Windows has no limit of sockets that a process could lower"


@pytest.fixture
def warned(caplog):
    """A function that gives the warnings so far."""
    caplog.set_level(logging.WARNING, "iocpcore")
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def often(monkeypatch):
    """A proactor that is made then warns again after a hundredth of a second."""
    monkeypatch.setattr(iocpcore._core, "WARNED_EVERY", 0.01)


class Deaf:
    """It has no on_close."""

    def on_receive(self, session, data):
        pass


# ---- descriptors ----

SHORTAGE = """
import logging, resource, socket, sys
sys.path.insert(0, {tests!r})
import iocpcore
from support import receive_exactly, until

class Log(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())

def limit(most):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def shorten():
    with socket.socket() as next_one:
        used = next_one.fileno()
    limit(used)

lines = []
logging.getLogger("iocpcore").addHandler(Log())
iocpcore._core.WARNED_EVERY = {every}
proactor = iocpcore.Proactor(2, {backend!r})
stats = proactor.stats
listener = proactor.listen(iocpcore.ECHO)
peers = [socket.socket() for _ in range(4)]
for peer in peers:
    peer.settimeout(30)
"""

ACCEPT = SHORTAGE + """
shorten()
for peer in peers:
    peer.connect(listener.address)
until(lambda: stats().exhausted >= {failures} and len(lines) >= {lines})
limit(200)
for peer in peers:
    peer.sendall(b"3")
    assert receive_exactly(peer, 1) == b"3"
print(stats().accept_failures >= stats().exhausted)
print(stats().attaches)
print(*lines, sep="\\n")
for peer in peers:
    peer.close()
proactor.close()
"""

CONNECT = SHORTAGE + """
shorten()
errors = []

class Client:
    def on_close(self, session, error):
        errors.append(error)

for number in range(5):
    proactor.connect(Client(), *listener.address)
until(lambda: len(errors) == stats().connect_failures == 5 and len(lines) >= 1)
limit(200)
print(stats().exhausted, stats().connect_failures)
print(*lines, sep="\\n")
proactor.close()
"""


def run_short(code, backend, pytestconfig, every=60.0, **values):
    tests = str(pytestconfig.rootpath / "tests")
    return run_python(code.format(backend=backend, tests=tests, every=every, **values), timeout=2 * WAIT).splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason=FEW)
def test_accepts_without_descriptors_are_one_warning(backend, pytestconfig):
    fewer, attaches, *lines = run_short(ACCEPT, backend, pytestconfig, failures=10, lines=1)
    (line,) = lines
    assert line.startswith("worker 0 cannot take new connections, which wait until it can: [Errno 24] ")
    assert (fewer, attaches) == ("True", "1")  # for nothing else does a native handler's worker take the GIL


@pytest.mark.skipif(sys.platform == "win32", reason=FEW)
def test_a_trouble_that_goes_on_is_warned_of_again_with_a_count(backend, pytestconfig):
    _, _, first, *others = run_short(ACCEPT, backend, pytestconfig, every=0.01, failures=10, lines=3)
    assert "times" not in first or first.endswith("so far)")
    assert len(others) >= 2
    assert all(other.endswith("times since the last warning)") for other in others)


@pytest.mark.skipif(sys.platform == "win32", reason=FEW)
def test_connects_without_descriptors_are_one_warning(backend, pytestconfig):
    counts, *lines = run_short(CONNECT, backend, pytestconfig)
    (line,) = lines
    assert "cannot connect: out of descriptors or memory: [Errno 24] " in line
    assert counts == "5 5"


# ---- a connection that nobody hears of ----


def failed(proactor, count):
    until(lambda: proactor.stats().connect_failures == count and proactor.stats().active == 0)


def test_a_refused_connect_without_an_on_close_is_a_warning(proactor, warned):
    with refusing_port() as port:
        proactor.connect(Deaf(), "127.0.0.1", port)
        until(warned)
    (line,) = warned()
    assert line.startswith(f"a connection to 127.0.0.1 port {port} failed: ")
    assert line.endswith("; its handler has no on_close to tell it to")


def test_many_of_them_are_one_warning(proactor, warned):
    with refusing_port() as port:
        for _ in range(20):
            proactor.connect(Deaf(), "127.0.0.1", port)
        failed(proactor, 20)
    proactor.close(0)
    assert len(warned()) == 1


def test_after_a_while_the_others_are_counted(often, backend, warned):
    with refusing_port() as port, iocpcore.Proactor(2, backend) as proactor:
        proactor.connect(Deaf(), "127.0.0.1", port)
        until(warned)
        for _ in range(3):
            proactor.connect(Deaf(), "127.0.0.1", port)
        until(lambda: len(warned()) >= 2)
    assert "since the last warning)" in warned()[1]


def test_a_polled_proactor_warns_too(backend, warned):
    with refusing_port() as port, iocpcore.Proactor(0, backend) as proactor:
        proactor.connect(Deaf(), "127.0.0.1", port)
        until(lambda: warned() or proactor.poll(0.01) < 0)
    assert len(warned()) == 1


def test_a_handler_that_hears_of_it_needs_no_warning(proactor, warned):
    handler = Recorder()
    with refusing_port() as port:
        proactor.connect(handler, "127.0.0.1", port)
        handler.wait_for("on_close")
    proactor.close(0)
    assert warned() == []


def test_a_connect_that_is_given_up_is_no_failure(proactor, warned):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proactor.connect(Deaf(), "127.0.0.1", listening.getsockname()[1]).abort()
        until(lambda: proactor.stats().active == 0)
    proactor.close(0)
    assert warned() == []


def test_a_session_that_breaks_later_is_not_warned_of(proactor, echo, warned):
    session = proactor.connect(Deaf(), *echo.address)
    until(lambda: proactor.stats().active == 2)
    session.abort()
    until(lambda: proactor.stats().active == 0)
    proactor.close(0)
    assert warned() == []


# ---- the inbox ----


@pytest.fixture
def busy(proactor):
    """The worker is in a callback until the event is set."""
    begun, over = threading.Event(), threading.Event()

    def wait():
        begun.set()
        over.wait(WAIT)

    proactor.post(wait)
    assert begun.wait(WAIT)
    yield over
    over.set()


def test_many_calls_that_wait_for_a_worker_are_warned_of_while_they_wait(proactor, busy, warned):
    for _ in range(100_000):
        proactor.post(id, None)
    assert warned() == []
    proactor.post(id, None)
    (line,) = warned()
    assert line.startswith("worker 0 is behind: more than 100,000 calls of other threads ")
    proactor.post(id, None)
    busy.set()
    until(lambda: proactor.stats().backlogs == 1)
    proactor.close(0)
    assert len(warned()) == 1


def test_many_bytes_that_wait_for_a_worker_are_warned_of(proactor, pair, warned):
    session, peer, _ = pair(send_limit=None)
    begun, over = threading.Event(), threading.Event()
    proactor.post(lambda: (begun.set(), over.wait(WAIT)))
    assert begun.wait(WAIT)
    megabyte = bytes(1 << 20)
    for _ in range(64):
        session.send(megabyte)
    assert warned() == []
    session.send(megabyte)
    assert len(warned()) == 1
    over.set()
    peer.close()


def test_a_backlog_again_within_a_minute_is_told_later(proactor, warned):
    for again in (1, 2):
        begun, over = threading.Event(), threading.Event()
        proactor.post(lambda begun=begun, over=over: (begun.set(), over.wait(WAIT)))
        assert begun.wait(WAIT)
        for _ in range(100_001):
            proactor.post(id, None)
        over.set()
        until(lambda again=again: proactor.stats().backlogs == again)
    assert len(warned()) == 1


def test_a_proactor_that_closes_while_its_backlog_is_about_to_be_logged_is_not_looked_at(backend, warned, monkeypatch):
    get_logger = logging.getLogger
    begun, over = threading.Event(), threading.Event()
    proactor = iocpcore.Proactor(2, backend)
    proactor.post(lambda: begun.set() or over.wait(WAIT), worker=1)
    assert begun.wait(WAIT)

    def close_first(name=None):
        if not over.is_set():
            over.set()
            proactor.close(0)
            assert [bytes([200]) * size for size in range(1000, 60000, 37)]  # whatever was freed is used again
        return get_logger(name)

    monkeypatch.setattr(logging, "getLogger", close_first)
    for _ in range(100_001):
        proactor.post(id, None, worker=1)
    (line,) = warned()
    assert line.startswith("worker 1 is behind")


# ---- a log that fails ----


class Raising(logging.Handler):
    def handle(self, record):
        raise RuntimeError("the log is full")


def test_a_log_handler_that_raises_ends_no_worker(proactor, echo, connect, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda failure: unraisable.append(str(failure.exc_value)))
    handler = Raising()
    logging.getLogger("iocpcore").addHandler(handler)
    try:
        with refusing_port() as port:
            proactor.connect(Deaf(), "127.0.0.1", port)
            until(lambda: unraisable)
    finally:
        logging.getLogger("iocpcore").removeHandler(handler)
    assert unraisable == ["the log is full"]
    peer = connect(echo)
    peer.sendall(b"x")
    assert receive_exactly(peer, 1) == b"x"


class Closing(logging.Handler):
    def __init__(self, proactor):
        super().__init__()
        self.proactor = proactor

    def emit(self, record):
        self.proactor.close(0)


def test_a_log_handler_may_close_the_proactor(proactor):
    handler = Closing(proactor)
    logging.getLogger("iocpcore").addHandler(handler)
    try:
        with refusing_port() as port:
            proactor.connect(Deaf(), "127.0.0.1", port)
            until(lambda: proactor.closing)
    finally:
        logging.getLogger("iocpcore").removeHandler(handler)
