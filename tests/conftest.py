"""Backends, a proactor that must end with nothing left, and plain sockets as peers."""

import os
import socket

import pytest

import iocpcore
from support import WAIT, assert_nothing_left


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        wanted = os.environ.get("IOCPCORE_BACKEND")
        metafunc.parametrize("backend", [wanted] if wanted else list(iocpcore.backends()), indirect=True)


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
