"""Fixtures: the backends, a proactor that must leave nothing behind, and plain sockets as peers."""

import os
import signal
import socket

import pytest

import iocpcore
from support import WAIT, Recorder, assert_nothing_left

# If a shell runs the suite in the background, SIGINT is ignored here, and would be ignored in every child too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def wanted_backends():
    wanted = os.environ.get("IOCPCORE_BACKEND")
    if wanted and wanted not in iocpcore.backends():
        pytest.exit(f"IOCPCORE_BACKEND={wanted}: the suite runs on {', '.join(iocpcore.backends())}", 2)
    return [wanted] if wanted else list(iocpcore.backends())


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", wanted_backends(), indirect=True)


@pytest.fixture
def backend(request):
    missing = iocpcore.backends()[request.param]
    if missing:
        pytest.skip(missing)
    return request.param


@pytest.fixture
def proactor(backend):
    with iocpcore.Proactor(1, backend) as it:
        yield it
    assert_nothing_left(it)


@pytest.fixture
def echo(proactor):
    return proactor.listen(iocpcore.ECHO)


@pytest.fixture
def connect():
    """Connect to a listener with a plain socket that gives up after WAIT; closed after the test."""
    opened = []

    def connect(listener, **options):
        opened.append(socket.create_connection(listener.address[:2], timeout=WAIT, **options))
        return opened[-1]

    yield connect
    for sock in opened:
        sock.close()


@pytest.fixture
def pair(proactor, connect):
    """A session, its peer (a plain socket), and its handler, which is a Recorder unless one is given."""

    def pair(handler=None, host="127.0.0.1", **options):
        handler = Recorder() if handler is None else handler
        before = len(handler.of("on_connect"))
        peer = connect(proactor.listen(handler, host, **options))
        session, _ = handler.wait_for("on_connect", before + 1)
        return session, peer, handler

    return pair


@pytest.fixture
def full_server():
    """An address that answers no attempt to connect: a listener whose backlog is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = []
        try:
            while True:  # each attempt is pending, or the backlog takes it
                waiting.append(socket.socket())
                waiting[-1].settimeout(1.0)
                waiting[-1].connect(server.getsockname())
                assert len(waiting) < 200
        except TimeoutError:
            yield server.getsockname()
        except ConnectionRefusedError:
            pytest.skip("this system refuses connections that others let wait")
        finally:
            for sock in waiting:
                sock.close()
