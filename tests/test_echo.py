"""The whole path, accept -> receive -> handler -> send -> close: every byte returns, in order, once."""

import pytest

import iocpcore
from support import SCALE, WAIT, assert_nothing_left, balanced, open_handles, receive_exactly, until


def exchange(load, *proactors):
    """Let a load run to its end, looking at the statistics all the time."""
    for _ in range(int(WAIT * 10)):
        assert all(balanced(proactor.stats()) for proactor in proactors)
        if load.wait(0.1):
            return load.result()
    raise AssertionError(f"the load hangs: {load.result()} {[proactor.stats() for proactor in proactors]}")


@pytest.mark.valgrind
@pytest.mark.parametrize("skip_on_success", [True, False], ids=["inline", "packets"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_two_hundred_pipelined_connections_lose_and_reorder_nothing(backend, workers, skip_on_success):
    load = iocpcore.Load(connections=200, messages=max(1, int(300 * SCALE)), size=(1, 70_000), pipeline=8)
    with (
        iocpcore.Proactor(workers, backend, skip_on_success=skip_on_success) as server,
        iocpcore.Proactor(workers, backend, skip_on_success=skip_on_success) as client,
    ):
        load.start(client, "127.0.0.1", server.listen(iocpcore.ECHO).port)
        result = exchange(load, server, client)
    assert (result["mismatches"], result["errors"]) == (0, 0)
    assert result["echoes"] == 200 * max(1, int(300 * SCALE))
    assert server.stats().bytes_sent == server.stats().bytes_received == result["bytes"]
    assert_nothing_left(server)
    assert_nothing_left(client)


@pytest.mark.valgrind
def test_a_line_comes_back(echo, connect):
    peer = connect(echo)
    peer.sendall(b"hello\n")
    assert receive_exactly(peer, 6) == b"hello\n"


def test_sessions_are_spread_over_the_workers(backend, connect):
    with iocpcore.Proactor(4, backend) as proactor:
        listener = proactor.listen(iocpcore.ECHO)
        for _ in range(40):
            peer = connect(listener)
            peer.sendall(b"x")
            receive_exactly(peer, 1)
        until(lambda: [row.active for row in proactor.stats().workers] == [10, 10, 10, 10])


@pytest.mark.valgrind
def test_nothing_stays_open_after_close(backend):
    def serve_once():
        load = iocpcore.Load(connections=20, messages=20, size=100)
        with iocpcore.Proactor(2, backend) as proactor:
            load.start(proactor, "127.0.0.1", proactor.listen(iocpcore.ECHO).port)
            assert load.wait(WAIT)

    serve_once()
    before = open_handles()
    serve_once()
    until(lambda: open_handles() == before)  # under wine a thread's handle outlives it for a moment


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_serves_every_family(proactor, connect, host):
    listener = proactor.listen(iocpcore.ECHO, host)
    peer = connect(listener)
    peer.sendall(b"six")
    assert receive_exactly(peer, 3) == b"six"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_on_every_address_serves_both_families(proactor, connect, host):
    port = proactor.listen(iocpcore.ECHO, None).port

    class Address:
        address = (host, port)

    peer = connect(Address)
    peer.sendall(b"both")
    assert receive_exactly(peer, 4) == b"both"
