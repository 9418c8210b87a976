"""Connecting: the load client's sessions."""

import socket

import pytest

import iocpcore
from support import WAIT, assert_nothing_left, receive_exactly, refusing_port, until


def test_a_refused_connection_is_an_error_with_the_systems_words(backend):
    load = iocpcore.Load(connections=3, messages=1)
    with refusing_port() as port, iocpcore.Proactor(1, backend) as proactor:
        load.start(proactor, "127.0.0.1", port)
        assert load.wait(WAIT)
    result = load.result()
    assert (result["errors"], result["echoes"]) == (3, 0)
    assert "refused" in result["error"].lower()
    assert proactor.stats()["connect_failures"] == 3
    assert_nothing_left(proactor)


def test_connecting_works_on_ipv6(proactor):
    listener = proactor.listen(iocpcore.ECHO, "::1")
    load = iocpcore.Load(connections=2, messages=10)
    load.start(proactor, "::1", listener.port)
    assert load.wait(WAIT)
    assert load.result()["errors"] == 0
    assert load.result()["echoes"] == 20


def test_closing_while_connecting_ends_the_attempt(backend):
    """A listener whose backlog is full leaves the next connection pending."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        load = iocpcore.Load(connections=20, messages=1)
        proactor = iocpcore.Proactor(1, backend)
        load.start(proactor, *full.getsockname())
        until(lambda: proactor.stats()["submitted"] >= 20)
        proactor.close(0)
        assert load.wait(WAIT)
    assert load.result()["errors"] == 20
    assert_nothing_left(proactor)


def test_a_host_that_does_not_resolve_is_the_resolvers_error_and_the_load_can_still_start(proactor, echo):
    load = iocpcore.Load(connections=1, messages=1)
    with pytest.raises(socket.gaierror):
        load.start(proactor, "nowhere.invalid", 9)
    load.start(proactor, "127.0.0.1", echo.port)
    assert load.wait(WAIT)


def test_connections_are_spread_over_the_workers(backend, connect):
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent, iocpcore.Proactor(4, backend) as proactor:
        load = iocpcore.Load(connections=40, messages=1)
        load.start(proactor, *silent.getsockname())
        until(lambda: [row["connected"] for row in proactor.stats()["workers"]] == [10, 10, 10, 10])
        proactor.close(0)


def test_a_started_load_sends_its_first_messages_at_once(proactor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        load = iocpcore.Load(connections=1, messages=10, size=100, pipeline=4)
        load.start(proactor, *server.getsockname())
        peer, _ = server.accept()
        with peer:
            peer.settimeout(WAIT)
            assert len(receive_exactly(peer, 400)) == 400
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
