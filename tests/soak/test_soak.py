"""A short soak (soak.py runs longer), and that its peers and rules see what they are there for."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import pytest

import soak
from support import SCALE, WAIT, reset

SECONDS = 3  # of a soak in the suite


def run(backend, **arguments):
    settings = {"seconds": SECONDS, "clients": 2, "peers": max(5, int(20 * SCALE)), **arguments}
    return soak.Soak(backend=backend, **settings).run()


# The first round of seed 1 ends when all have left, that of seed 2 under load: test_the_seeds_end_as_they_say.
@pytest.mark.parametrize("seed", [1, 2], ids=["all leave", "closed under load"])
def test_a_short_soak_breaks_no_rule(backend, seed):
    total = run(backend, seed=seed)
    assert total["connections"] > 0
    assert total["bytes checked"] > 0
    assert total["listeners opened and closed"] > 0


@pytest.mark.valgrind
def test_a_very_small_soak_breaks_no_rule(backend):
    assert run(backend, seed=1, seconds=1, clients=1, peers=3, connections=10)["connections"] <= 20


def test_the_seeds_end_as_they_say():
    ends = {seed: soak.Round(soak.Soak(backend=None, seed=seed, seconds=1), 0, 1).drain for seed in (1, 2)}
    assert ends[1] is None
    assert ends[2] is not None


# ---- what the peers see ----


@pytest.fixture
def crowd_against():
    """The reports of peers with that script against a server of one connection that misbehaves."""

    def crowd_against(serve_one, script, **settings):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(WAIT)

            def accept():
                peer, _ = server.accept()
                with peer, contextlib.suppress(ConnectionError):
                    peer.settimeout(WAIT)
                    serve_one(peer)

            thread = threading.Thread(target=accept)
            thread.start()
            reports = []
            settings = {"seed": 1, "life": WAIT, "peers": 1, "connections": 1, "scripts": [script], **settings}
            soak.Crowd({"addresses": [server.getsockname()], **settings}, reports.append).run()
            thread.join(WAIT)
        assert reports[-1]["over"]
        return [report for report in reports if "broken" in report]

    return crowd_against


def echo(peer, change=lambda number, data: data):
    """Echo, but what `change` makes of each piece."""
    number = 0
    while data := peer.recv(65_536):
        peer.sendall(change(number, data))
        number += 1


def test_peers_of_a_right_server_report_nothing(crowd_against):
    assert crowd_against(echo, "plain") == []


def test_a_changed_byte_is_seen(crowd_against):
    (broken,) = crowd_against(lambda peer: echo(peer, lambda number, data: bytes([data[0] ^ 1]) + data[1:]), "plain")
    assert broken["wrong_byte"]


def test_a_lost_byte_is_seen(crowd_against):
    def loses(number, data):
        return data[1:] if number == 0 else data

    (broken,) = crowd_against(lambda peer: echo(peer, loses), "half_close")
    assert broken["wrong_byte"] or "the end after" in broken["broken"]


def test_a_byte_too_many_is_seen(crowd_against):
    def generous(peer):
        echo(peer)
        peer.sendall(b"!")

    (broken,) = crowd_against(generous, "half_close")
    assert "1 bytes more than" in broken["broken"]


def test_a_byte_from_nowhere_is_seen(crowd_against):
    (broken,) = crowd_against(lambda peer: peer.sendall(b"!"), "end_at_once")
    assert broken["wrong_byte"]


def test_an_end_before_everything_came_back_is_seen(crowd_against):
    def short(peer):
        peer.sendall(peer.recv(1))
        while peer.recv(65_536):
            pass

    (broken,) = crowd_against(short, "half_close")
    assert "the end after 1 of" in broken["broken"]


def test_a_reset_without_cause_is_seen(crowd_against):
    def resets(peer):
        peer.recv(1)
        reset(peer)

    (broken,) = crowd_against(resets, "plain")
    assert not broken["wrong_byte"]


def test_a_server_that_does_nothing_is_seen(crowd_against):
    silent = threading.Event()
    (broken,) = crowd_against(lambda peer: silent.wait(0.5), "end_at_once", stuck=0.1)
    assert "nothing happens after 0 bytes sent" in broken["broken"]


def test_a_server_that_does_not_listen_is_seen():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    reports = []
    settings = {"addresses": [address], "seed": 1, "life": WAIT, "peers": 1, "connections": 5}
    soak.Crowd(settings, reports.append).run()
    assert [report["broken"] for report in reports if "broken" in report] != []


# ---- what the rules see ----


class Statistics:
    """A proactor that says what it is told to."""

    def __init__(self, **row):
        names = ("submitted", "packets", "inline_successes", "failed_starts", "in_flight", "active", "bytes_queued")
        self.row = {**dict.fromkeys((*names, "buffers_used"), 0), **row}

    def stats(self):
        row = SimpleNamespace(**self.row)
        return SimpleNamespace(**self.row, workers=[row])


@pytest.mark.parametrize(
    "row",
    [
        {"submitted": 1},
        {"in_flight": -1},
        {"bytes_queued": soak.QUEUED_MOST + 1, "active": 1},
        {"buffers_used": soak.BUFFERS_MOST + 1, "active": 1},
    ],
)
def test_a_snapshot_that_breaks_a_rule_is_a_violation(row):
    round_ = soak.Round(soak.Soak(backend=None, seed=1, seconds=1), 0, 1)
    round_.proactor = Statistics()
    round_.look()
    round_.proactor = Statistics(**row)
    with pytest.raises(soak.Violation):
        round_.look()


def test_what_broke_before_the_close_is_a_violation_and_what_broke_after_it_is_not():
    class Client:
        broken = [{"broken": "plain: the end", "at": 10.0, "wrong_byte": False}]
        killed = True

        def ended(self):
            return False

    round_ = soak.Round(soak.Soak(backend=None, seed=1, seconds=1), 0, 1)
    round_.clients = [Client()]
    round_.closing_at = 9.0
    round_.judge()
    round_.closing_at = 11.0
    with pytest.raises(soak.Violation, match="plain: the end"):
        round_.judge()
