"""Statistics: snapshots of a proactor, its workers, a listener and a session."""

import dataclasses
import json
import socket
import threading
import time

import pytest

import iocpcore
from support import SCALE, WAIT, balanced, receive_exactly, receive_to_end, refusing_port, until

FIELDS = dataclasses.fields(iocpcore.WorkerStats)
COUNTERS = [field.name for field in FIELDS if field.metadata["kind"] == "counter"]


class Echo:
    """Keeps its sessions, and what their statistics were at their end."""

    def __init__(self):
        self.sessions = []
        self.ended = []

    def on_connect(self, session):
        self.sessions.append(session)

    def on_receive(self, session, data):
        session.send(data)

    def on_close(self, session, error):
        self.ended.append(session.stats())


def numbers(stats):
    return {field.name: getattr(stats, field.name) for field in FIELDS}


def count_of(received, sent):
    return iocpcore.SessionStats(bytes_received=received, bytes_sent=sent, bytes_queued=0)


def exchange(listener, connect, data):
    """Send, get it back, leave."""
    with connect(listener) as peer:
        peer.sendall(data)
        assert receive_exactly(peer, len(data)) == data


# ---- of a proactor ----


def test_a_snapshot_is_frozen_and_has_no_room_for_more(proactor, connect):
    handler = Echo()
    listener = proactor.listen(handler)
    exchange(listener, connect, b"x")
    for stats in (proactor.stats(), proactor.stats().workers[0], listener.stats(), handler.sessions[0].stats()):
        for field in dataclasses.fields(stats):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(stats, field.name, 0)
        assert not hasattr(stats, "__dict__")


def test_a_snapshot_does_not_change_with_what_happens_later(proactor, connect):
    before = proactor.stats()
    told = before.as_dict()
    exchange(proactor.listen(iocpcore.ECHO), connect, b"x")
    until(lambda: proactor.stats().closed == 1)
    assert before.as_dict() == told
    assert before != proactor.stats()


def test_the_sums_are_those_of_the_rows(backend, connect):
    with iocpcore.Proactor(3, backend) as proactor:
        listener = proactor.listen(Echo())
        for _ in range(6):
            exchange(listener, connect, bytes(1000))
        stats = proactor.stats()
    rows = [numbers(row) for row in stats.workers]
    assert len(rows) == 3
    assert numbers(stats) == {name: pytest.approx(sum(row[name] for row in rows)) for name in rows[0]}
    assert (type(stats), stats.backend) == (iocpcore.Stats, backend)
    assert {type(row) for row in stats.workers} == {iocpcore.WorkerStats}


def test_every_field_says_its_unit_and_what_it_means():
    for field in FIELDS:
        unit, meaning = field.metadata["unit"], field.metadata["meaning"]
        assert meaning.endswith(".")
        for made in (iocpcore.Stats, iocpcore.WorkerStats):
            assert f"    - {field.name} ({unit}): {meaning}" in made.__doc__.splitlines()


def test_sessions_add_up_whichever_way_they_came(proactor):
    echo = Echo()
    listener = proactor.listen(echo, max_sessions=1, when_full="refuse")
    with socket.create_server(("127.0.0.1", 0)) as server, refusing_port() as refusing:
        peers = [socket.create_connection(listener.address, timeout=WAIT)]
        until(lambda: proactor.stats().active == 1)
        with socket.create_connection(listener.address, timeout=WAIT) as refused:
            assert receive_to_end(refused) == b""
        until(lambda: proactor.stats().refused == 1)
        proactor.adopt(echo, socket.create_connection(server.getsockname(), timeout=WAIT))
        proactor.connect(echo, *server.getsockname())
        proactor.connect(echo, "127.0.0.1", refusing)
        peers += [server.accept()[0] for _ in range(2)]
        until(lambda: len(echo.sessions) == 3 and proactor.stats().connect_failures == 1)
    for active in (3, 2, 1, 0):
        until(lambda active=active: proactor.stats().active == active)
        stats = proactor.stats()
        assert stats.accepted + stats.connected + stats.adopted == stats.active + stats.closed + stats.refused == 4
        if peers:
            peers.pop().close()


def test_counters_never_fall_and_every_snapshot_balances(backend):
    with iocpcore.Proactor(2, backend) as proactor:
        load = iocpcore.Load(20, max(10, int(500 * SCALE)))
        load.start(proactor, *proactor.listen(Echo()).address[:2])
        snapshots = [proactor.stats()]
        while not load.wait(0.001):
            snapshots.append(proactor.stats())
    assert all(balanced(stats) for stats in snapshots)
    for before, after in zip(snapshots, snapshots[1:], strict=False):
        for old, new in zip(before.workers, after.workers, strict=True):
            assert [name for name in COUNTERS if getattr(new, name) < getattr(old, name)] == []


def test_a_snapshot_goes_to_json_and_back(backend, connect):
    with iocpcore.Proactor(2, backend) as proactor:
        exchange(proactor.listen(Echo()), connect, b"x")
        stats = proactor.stats()
    values = json.loads(json.dumps(stats.as_dict()))
    workers = tuple(iocpcore.WorkerStats(**row) for row in values.pop("workers"))
    assert iocpcore.Stats(**values, workers=workers) == stats


def test_before_anything_has_happened_there_are_no_packets_per_dequeue(backend):
    with iocpcore.Proactor(0, backend) as proactor:
        stats = proactor.stats()
    assert (stats.packets_per_dequeue, stats.attaches_per_packet, stats.closed) == (0.0, 0.0, 0)


def test_what_is_derived_follows_from_the_fields(proactor, connect):
    exchange(proactor.listen(Echo()), connect, b"x")
    until(lambda: proactor.stats().closed_by_peer == 1)
    stats = proactor.stats()
    assert stats.packets_per_dequeue == stats.packets / stats.dequeues
    assert stats.attaches_per_packet == stats.attaches / stats.packets > 0
    assert stats.closed == 1


def test_native_handlers_never_attach(proactor, connect):
    exchange(proactor.listen(iocpcore.ECHO), connect, b"x")
    stats = proactor.stats()
    assert (stats.attaches, stats.callbacks, stats.callback_time) == (0, 0, 0.0)


def test_the_time_of_callbacks_is_in_seconds(backend, connect):
    began = time.perf_counter()
    with iocpcore.Proactor(1, backend) as proactor:
        exchange(proactor.listen(Echo()), connect, b"x")
    assert 0 < proactor.stats().callback_time <= time.perf_counter() - began


def test_after_close_the_last_snapshot_stays(backend, connect):
    with iocpcore.Proactor(1, backend) as proactor:
        exchange(proactor.listen(iocpcore.ECHO), connect, b"x")
    assert proactor.stats() == proactor.stats()
    assert (proactor.stats().accepted, proactor.stats().bytes_sent) == (1, 1)


# ---- of a listener ----


def test_a_listener_counts_its_own_connections(proactor, connect):
    first, second = proactor.listen(iocpcore.ECHO), proactor.listen(Echo(), max_sessions=7)
    peers = [connect(listener) for listener in (first, second, second)]
    until(lambda: (first.stats().sessions, second.stats().sessions) == (1, 2))
    assert first.stats() == iocpcore.ListenerStats(accepted=1, refused=0, sessions=1, max_sessions=None)
    assert second.stats() == iocpcore.ListenerStats(accepted=2, refused=0, sessions=2, max_sessions=7)
    for peer in peers:
        peer.close()
    until(lambda: (first.stats().sessions, second.stats().sessions) == (0, 0))
    assert proactor.stats().accepted == first.stats().accepted + second.stats().accepted == 3


def test_a_full_listener_counts_whom_it_refuses(proactor, connect):
    listener = proactor.listen(iocpcore.ECHO, max_sessions=1, when_full="refuse")
    served = connect(listener)
    until(lambda: listener.stats().sessions == 1)
    assert receive_to_end(connect(listener)) == b""
    until(lambda: listener.stats().refused == 1)
    served.sendall(b"x")
    assert receive_exactly(served, 1) == b"x"
    assert listener.stats() == iocpcore.ListenerStats(accepted=2, refused=1, sessions=1, max_sessions=1)


def test_whoever_waits_for_a_place_when_the_proactor_closes_is_refused(proactor, connect):
    listener = proactor.listen(iocpcore.ECHO, max_sessions=1)
    connect(listener)
    connect(listener)
    until(lambda: proactor.stats().parked == 1)
    proactor.close(0)
    assert listener.stats().refused == 1
    until(lambda: proactor.stats().refused == 1)
    stats = proactor.stats()
    assert stats.accepted == stats.active + stats.closed + stats.refused == 2


def test_a_closed_listener_of_a_closed_proactor_has_its_statistics_still(backend, connect):
    with iocpcore.Proactor(1, backend) as proactor:
        listener = proactor.listen(iocpcore.ECHO)
        exchange(listener, connect, b"x")
        listener.close()
    assert listener.stats() == iocpcore.ListenerStats(accepted=1, refused=0, sessions=0, max_sessions=None)


def test_statistics_of_listener_and_session_go_to_json(proactor, connect):
    handler = Echo()
    listener = proactor.listen(handler, max_sessions=5)
    peer = connect(listener)
    peer.sendall(b"123")
    receive_exactly(peer, 3)
    (session,) = handler.sessions
    assert json.dumps(listener.stats().as_dict()) == '{"accepted": 1, "refused": 0, "sessions": 1, "max_sessions": 5}'
    until(lambda: session.stats() == count_of(3, 3))  # the peer may know it before the worker does
    assert json.dumps(session.stats().as_dict()) == '{"bytes_received": 3, "bytes_sent": 3, "bytes_queued": 0}'


# ---- of a session ----


def test_a_session_counts_the_bytes_of_its_connection(proactor, connect):
    handler = Echo()
    listener = proactor.listen(handler)
    for size in (1, 1000, 100_000):
        exchange(listener, connect, bytes(size))
        until(lambda size=size: handler.ended[-1:] == [count_of(size, size)])
    assert [session.stats() for session in handler.sessions] == handler.ended


def test_the_bytes_of_all_sessions_are_those_of_the_workers(backend, connect):
    handler = Echo()
    with iocpcore.Proactor(2, backend) as proactor:
        load = iocpcore.Load(20, max(10, int(200 * SCALE)), size=(1, 70_000))
        with iocpcore.Proactor(1, backend) as client:
            load.start(client, *proactor.listen(handler).address[:2])
            assert load.wait(WAIT)
    stats, ends = proactor.stats(), [session.stats() for session in handler.sessions]
    assert len(ends) == 20
    assert sum(end.bytes_received for end in ends) == stats.bytes_received == load.result()["bytes"]
    assert sum(end.bytes_sent for end in ends) == stats.bytes_sent == load.result()["bytes"]


def test_what_a_peer_does_not_read_is_queued_or_sent_and_nothing_else(proactor, connect):
    handler = Echo()
    peer = connect(proactor.listen(handler))
    until(lambda: handler.sessions)
    (session,) = handler.sessions
    given = 1 << 25  # more than the system holds
    session.send(bytes(given))
    until(lambda: session.stats().bytes_sent > 0)
    session.abort()
    until(lambda: handler.ended)
    (end,) = handler.ended
    assert end.bytes_queued == session.unsent > 0
    assert end.bytes_sent + end.bytes_queued == given
    until(lambda: proactor.stats().closed == 1)
    assert (proactor.stats().bytes_sent, proactor.stats().bytes_unsent) == (end.bytes_sent, end.bytes_queued)
    peer.close()


def test_bytes_that_come_too_late_are_counted_but_not_delivered(proactor, connect):
    class Closes(Echo):
        def on_receive(self, session, data):
            session.close()

    handler = Closes()
    peer = connect(proactor.listen(handler))
    peer.sendall(b"1")
    assert peer.recv(1) == b""
    peer.sendall(b"2345")
    peer.shutdown(socket.SHUT_WR)
    until(lambda: handler.ended)
    assert handler.ended == [count_of(5, 0)]
    until(lambda: proactor.stats().bytes_discarded == 4)


def test_another_thread_sees_a_sessions_counters_rise_and_nothing_lost(proactor, connect):
    handler = Echo()
    peer = connect(proactor.listen(handler))
    until(lambda: handler.sessions)
    (session,) = handler.sessions
    total = max(1 << 20, int(SCALE * (1 << 22)))
    wrong = []

    def watch():
        last = session.stats()
        while last.bytes_sent < total and not wrong:
            now = session.stats()
            if now.bytes_received < last.bytes_received or now.bytes_sent < last.bytes_sent:
                wrong.append((last, now))
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    sender = threading.Thread(target=lambda: peer.sendall(bytes(total)))
    sender.start()
    assert len(receive_exactly(peer, total)) == total
    sender.join(WAIT)
    watcher.join(WAIT)
    assert wrong == []
    until(lambda: session.stats() == count_of(total, total))


def test_a_session_that_never_connected_has_counted_nothing(proactor):
    handler = Echo()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        session = proactor.connect(handler, *taken.getsockname())
        until(lambda: session.closed)
    assert session.stats() == count_of(0, 0)
