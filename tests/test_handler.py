"""The native handlers: ECHO (test_echo.py), DISCARD and the load client."""

import contextlib
import queue
import socket
import threading

import pytest

import iocpcore
from support import WAIT, assert_nothing_left, receive_exactly, receive_to_end, until


def test_discard_takes_everything_and_answers_nothing(proactor, connect):
    peer = connect(proactor.listen(iocpcore.DISCARD))
    peer.sendall(bytes(1_000_000))
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    until(lambda: proactor.stats().bytes_received == 1_000_000)
    assert proactor.stats().bytes_sent == 0


def run_load_against(serve_one, proactor, **arguments):
    """A load of one connection against a Python server that misbehaves; its result."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)

        def accept():
            peer, _ = server.accept()
            with peer:
                peer.settimeout(WAIT)
                serve_one(peer)

        thread = threading.Thread(target=accept)
        thread.start()
        load = iocpcore.Load(connections=1, **arguments)
        load.start(proactor, *server.getsockname())
        assert load.wait(WAIT)
        thread.join(WAIT)
        return load.result()


def test_the_load_client_sees_a_wrong_byte(proactor):
    def wrong(peer):
        data = bytearray(receive_exactly(peer, 64))
        data[63] ^= 1
        peer.sendall(data)
        with contextlib.suppress(ConnectionError):
            peer.recv(1)

    result = run_load_against(wrong, proactor, messages=1, size=64)
    assert (result["mismatches"], result["errors"], result["echoes"]) == (1, 1, 0)


def test_the_load_client_sees_two_messages_exchanged(proactor):
    def exchanged(peer):
        data = receive_exactly(peer, 128)
        peer.sendall(data[64:] + data[:64])
        with contextlib.suppress(ConnectionError):
            peer.recv(1)

    assert run_load_against(exchanged, proactor, messages=2, size=64, pipeline=2)["mismatches"] == 1


def test_the_load_client_sees_a_byte_too_many(proactor):
    def generous(peer):
        peer.sendall(receive_exactly(peer, 64) + b"!")
        with contextlib.suppress(ConnectionError):
            peer.recv(1)

    assert run_load_against(generous, proactor, messages=1, size=64)["mismatches"] == 1


def test_the_load_client_sees_a_byte_too_many_that_comes_after_its_end(proactor):
    def late(peer):
        peer.sendall(receive_exactly(peer, 64))
        assert peer.recv(1) == b""
        peer.sendall(b"!")

    result = run_load_against(late, proactor, messages=1, size=64)
    assert (result["mismatches"], result["errors"], result["echoes"]) == (1, 0, 1)


def test_the_load_client_counts_a_connection_that_ends_early(proactor):
    def short(peer):
        peer.sendall(receive_exactly(peer, 64))

    result = run_load_against(short, proactor, messages=5, size=64)
    assert (result["mismatches"], result["errors"], result["echoes"]) == (0, 1, 1)


def test_the_result_of_a_load_adds_up(proactor, echo):
    load = iocpcore.Load(connections=5, messages=40, size=(10, 20), pipeline=3)
    load.start(proactor, "127.0.0.1", echo.port)
    assert load.wait(WAIT)
    result = load.result()
    assert result["connections"] == 5
    assert result["echoes"] == load.echoes == 200
    assert 200 * 10 <= result["bytes"] <= 200 * 20
    assert result["error"] is None
    latency = result["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= result["seconds"] * 1e6 * 1.02


def test_several_threads_may_wait_for_a_load(proactor, echo):
    load = iocpcore.Load(connections=1, messages=100)
    load.start(proactor, "127.0.0.1", echo.port)
    answers = []
    waiting = [threading.Thread(target=lambda: answers.append(load.wait(WAIT))) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(WAIT)
    assert answers == [True] * 4
    assert load.wait(0)


def test_a_load_is_made_once():
    load = iocpcore.Load(connections=1)
    with pytest.raises(RuntimeError, match="twice"):
        load.__init__(pipeline=60000)


def test_a_load_finds_a_name_where_a_server_listens(proactor):
    """A name may have several addresses: client and server must take the same."""
    try:
        socket.getaddrinfo("localhost", None)
    except socket.gaierror as error:
        pytest.skip(f"this machine does not know localhost: {error}")
    listener = proactor.listen(iocpcore.ECHO, "localhost")
    load = iocpcore.Load(connections=1, messages=1)
    load.start(proactor, "localhost", listener.port)
    assert load.wait(WAIT)
    assert load.result()["errors"] == 0


def test_a_load_starts_once(proactor, echo):
    load = iocpcore.Load(connections=1, messages=1)
    with pytest.raises(RuntimeError, match="not started"):
        load.wait(0)
    load.start(proactor, "127.0.0.1", echo.port)
    with pytest.raises(RuntimeError, match="once"):
        load.start(proactor, "127.0.0.1", echo.port)
    assert load.wait(WAIT)
    assert load.wait(0)


def test_waiting_for_a_load_ends_when_the_time_is_over(proactor):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        load = iocpcore.Load(connections=1, messages=1)
        load.start(proactor, *silent.getsockname())
        assert not load.wait(0.01)
        proactor.close(0)
        assert load.wait(WAIT)


def test_native_handlers_have_names():
    assert [repr(it) for it in (iocpcore.ECHO, iocpcore.DISCARD)] == ["<iocpcore.ECHO>", "<iocpcore.DISCARD>"]


def test_a_busy_session_does_not_starve_another(proactor, echo, connect):
    """The load never pauses; a plain peer beside it must still get its turn."""
    load = iocpcore.Load(connections=4, messages=1 << 40, size=16384, pipeline=16)
    with iocpcore.Proactor(1, proactor.backend) as client:
        load.start(client, "127.0.0.1", echo.port)
        until(lambda: load.echoes > 100)
        peer = connect(echo)
        for _ in range(20):
            peer.sendall(b"my turn")
            assert receive_exactly(peer, 7) == b"my turn"
        client.close(0)


def test_a_pause_holds_back_the_peers_end_even_while_others_post(proactor, connect):
    """In the callback the pause has to queue behind what was posted before; the end is there already."""
    paused = queue.Queue()

    class Slow:
        def on_receive(self, session, data):
            proactor.post(len, b"")
            session.pause()
            paused.put(session)

    peer = connect(proactor.listen(Slow()))
    peer.sendall(b"question")
    peer.shutdown(socket.SHUT_WR)
    session = paused.get(timeout=WAIT)
    session.send(b"answer")
    session.resume()
    assert receive_to_end(peer) == b"answer"


def test_listening_without_workers_does_not_wait_for_the_first_poll(backend, connect):
    with iocpcore.Proactor(0, backend) as proactor:
        peer = connect(proactor.listen(iocpcore.ECHO))
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        while proactor.stats().closed_by_peer == 0:
            assert proactor.poll(WAIT) > 0
        assert receive_to_end(peer) == b"x"
    assert_nothing_left(proactor)


def test_a_session_that_nobody_keeps_takes_its_handler_along_without_harm(proactor, echo):
    """Handler and Session are freed with the last callback: what the worker still does must need neither."""

    class Brief:
        def on_connect(self, session):
            session.close()

    for _ in range(10):
        proactor.connect(Brief(), "127.0.0.1", echo.port)
    until(lambda: proactor.stats().connected == 10 and proactor.stats().active == 0)
