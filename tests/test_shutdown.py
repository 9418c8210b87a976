"""Closing a proactor: who is told, who goes on, who is waited for, and for how long."""

import contextlib
import socket
import threading

import pytest

import iocpcore
from support import WAIT, Acting, Recorder, assert_nothing_left, receive_exactly, receive_to_end, until


class Closing:
    """A proactor that another thread closes, or the poll of its own: `begin()`, then `end()`, which waits."""

    def __init__(self, backend, workers):
        self.proactor = iocpcore.Proactor(workers, backend)
        self.stop = threading.Event()
        self.thread = None
        self.errors = []

    def run(self, drain):
        try:
            self.proactor.close(drain)
        except RuntimeError as error:
            self.errors.append(error)

    def begin(self, drain=WAIT):
        self.thread = threading.Thread(target=self.run, args=(drain,))
        self.thread.start()
        until(lambda: self.proactor.closing)

    def end(self):
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        assert self.errors == []
        assert_nothing_left(self.proactor)


class Polled(Closing):
    """As Closing, of a proactor without threads: one polls it until it is asked to close, and then closes it."""

    def __init__(self, backend):
        super().__init__(backend, 0)
        self.drain = None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.poll_and_close)
        self.thread.start()
        assert self.ready.wait(WAIT)

    def poll_and_close(self):
        self.proactor.poll(0)
        self.ready.set()
        while not self.stop.is_set():
            self.proactor.poll(0.01)
        self.run(self.drain)

    def begin(self, drain=WAIT):
        self.drain = drain
        self.stop.set()
        until(lambda: self.proactor.closing)


@pytest.fixture(params=["a worker", "three workers", "polled"])
def closing(request, backend):
    made = Polled(backend) if request.param == "polled" else Closing(backend, 1 if request.param == "a worker" else 3)
    yield made
    if not made.proactor.closing:
        made.begin(0)
    with contextlib.suppress(RuntimeError):
        made.end()


class Told(Acting):
    """An Acting that has on_shutdown too."""

    def on_shutdown(self, session):
        self.calls.append(("on_shutdown", session, None))
        self.actions.get("on_shutdown", lambda session: None)(session)


def meet(closing, connect, handler, count=1, **options):
    """So many sessions of the handler, and their peers."""
    listener = closing.proactor.listen(handler, **options)
    peers = [connect(listener) for _ in range(count)]
    handler.wait_for("on_connect", count)
    by_address = {session.peername[:2]: session for session, _ in handler.of("on_connect")}
    return [by_address[peer.getsockname()[:2]] for peer in peers], peers


# ---- on_shutdown ----


def test_on_shutdown_comes_once_to_each_session_when_closing_begins(closing, connect):
    handler = Told(on_shutdown=lambda session: session.close())
    sessions, peers = meet(closing, connect, handler, 5)
    closing.begin()
    assert [receive_to_end(peer) for peer in peers] == [b""] * 5
    for peer in peers:
        peer.close()
    closing.end()
    told = [session for session, _ in handler.of("on_shutdown")]
    assert sorted(told, key=id) == sorted(sessions, key=id)
    assert [error for _, error in handler.of("on_close")] == [None] * 5


def test_a_session_with_on_shutdown_goes_on_until_its_handler_ends_it(closing, connect):
    """It receives, sends, pauses and resumes as before, and other threads send to it."""
    handler = Told(on_receive=lambda session, data: session.send(data))
    (session,), (peer,) = meet(closing, connect, handler)
    closing.begin()
    handler.wait_for("on_shutdown")
    peer.sendall(b"asked")
    assert receive_exactly(peer, 5) == b"asked"
    session.pause()
    session.send(b"foreign")
    assert receive_exactly(peer, 7) == b"foreign"
    peer.sendall(b"later")
    session.resume()
    assert receive_exactly(peer, 5) == b"later"
    assert not session.closing
    session.close()
    assert receive_to_end(peer) == b""
    peer.close()
    closing.end()
    assert handler.names().count("on_shutdown") == 1
    assert handler.of("on_close") == [(session, None)]


def test_the_peers_end_is_told_after_on_shutdown_as_before(closing, connect):
    handler = Told(on_end=lambda session: (session.send(b"bye"), session.close()))
    (_,), (peer,) = meet(closing, connect, handler)
    closing.begin()
    handler.wait_for("on_shutdown")
    peer.shutdown(socket.SHUT_WR)
    assert receive_to_end(peer) == b"bye"
    closing.end()
    assert handler.names() == ["on_connect", "on_shutdown", "on_end", "on_close"]


def test_when_the_drain_is_over_a_session_with_on_shutdown_is_closed_and_keeps_what_was_sent(closing, connect):
    handler = Told()
    (session,), (peer,) = meet(closing, connect, handler)
    session.send(b"all")
    until(lambda: session.unsent == 0)
    closing.begin(0.1)
    closing.end()
    assert handler.names() == ["on_connect", "on_shutdown", "on_close"]
    assert handler.of("on_close") == [(session, None)]
    assert receive_to_end(peer) == b"all"


def test_without_any_drain_on_shutdown_comes_all_the_same(closing, connect):
    handler = Told()
    meet(closing, connect, handler, 5)
    closing.begin(0)
    closing.end()
    assert handler.names().count("on_shutdown") == handler.names().count("on_close") == 5


def test_on_shutdown_comes_to_a_paused_session_too(closing, connect):
    handler = Told(on_connect=lambda session: session.pause(), on_shutdown=lambda session: session.close())
    _, (peer,) = meet(closing, connect, handler)
    closing.begin()
    peer.close()
    closing.end()
    assert handler.names() == ["on_connect", "on_shutdown", "on_close"]


def test_on_shutdown_does_not_come_to_a_session_that_was_closed_before(closing, connect):
    handler = Told(on_connect=lambda session: session.close())
    _, (peer,) = meet(closing, connect, handler)
    assert peer.recv(1) == b""
    closing.begin()
    peer.close()
    closing.end()
    assert handler.names() == ["on_connect", "on_close"]


def test_on_shutdown_that_raises_ends_its_session(closing, connect, caplog):
    def fail(session):
        raise LookupError("mine")

    handler = Told(on_shutdown=fail)
    meet(closing, connect, handler)
    closing.begin()
    closing.end()
    assert [type(error) for _, error in handler.of("on_close")] == [ConnectionAbortedError]
    assert "on_shutdown of session" in caplog.text


def test_a_handler_may_have_on_shutdown_alone(proactor, connect):
    told = []

    class Handler:
        def on_shutdown(self, session):
            told.append(session)

    connect(proactor.listen(Handler()))
    until(lambda: proactor.stats().active == 1)
    proactor.close(0)
    assert len(told) == 1


def test_a_handler_with_onshutdown_is_asked_whether_it_means_on_shutdown(proactor):
    class Handler:
        def on_receive(self, session, data):
            pass

        def on_shut_down(self, session):
            pass

    with pytest.warns(UserWarning, match="on_shut_down, which nobody will call: is on_shutdown meant"):
        proactor.listen(Handler())


# ---- a session that connects ----


def test_a_session_that_still_connects_is_given_up_and_hears_on_close_alone(closing, full_server):
    handler = Recorder()
    session = closing.proactor.connect(handler, *full_server)
    closing.begin()
    closing.end()
    assert handler.calls == [("on_close", session, None)]


def test_a_session_that_still_connects_and_has_something_to_send_hears_of_the_loss(closing, full_server):
    handler = Recorder()
    session = closing.proactor.connect(handler, *full_server)
    session.send(b"never")
    closing.begin()
    closing.end()
    assert handler.names() == ["on_close"]
    assert isinstance(handler.of("on_close")[0][1], OSError)
    assert session.unsent == 5


# ---- a paused session ----


class Pausing(Recorder):
    """Without on_shutdown; pauses with each request."""

    def on_receive(self, session, data):
        super().on_receive(session, data)
        session.pause()


def test_a_paused_session_is_waited_for_until_it_resumes_and_its_answer_arrives(closing, connect):
    handler = Pausing()
    (session,), (peer,) = meet(closing, connect, handler)
    peer.sendall(b"asks")
    handler.wait_for("on_receive")
    closing.begin()
    assert not session.closing
    session.send(b"answ")
    assert receive_exactly(peer, 4) == b"answ"
    session.send(b"er")
    session.resume()
    assert receive_to_end(peer) == b"er"
    until(lambda: session.closing)
    peer.close()
    closing.end()
    assert handler.of("on_close") == [(session, None)]


def test_a_paused_session_whose_peer_has_ended_is_waited_for_too(closing, connect):
    handler = Pausing()
    (session,), (peer,) = meet(closing, connect, handler)
    peer.sendall(b"asks")
    peer.shutdown(socket.SHUT_WR)
    handler.wait_for("on_receive")
    closing.begin()
    session.send(b"answer")
    session.resume()
    assert receive_to_end(peer) == b"answer"
    closing.end()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_paused_session_is_waited_for_until_it_is_closed(closing, connect, end):
    handler = Pausing()
    (session,), (peer,) = meet(closing, connect, handler)
    peer.sendall(b"asks")
    handler.wait_for("on_receive")
    closing.begin()
    getattr(session, end)()
    peer.close()
    closing.end()
    assert len(handler.of("on_close")) == 1


def test_a_paused_session_is_waited_for_no_longer_than_the_drain(closing, connect):
    handler = Pausing()
    (session,), (peer,) = meet(closing, connect, handler)
    peer.sendall(b"asks")
    handler.wait_for("on_receive")
    closing.begin(0.1)
    closing.end()
    assert handler.of("on_close") == [(session, None)]
    with pytest.raises(iocpcore.SessionClosed):
        session.send(b"late")


def test_a_session_that_resumes_while_its_proactor_closes_hears_no_more(closing, connect):
    """What came behind the pause is a new request: it gets an end, as one that comes now."""
    handler = Pausing()
    (session,), (peer,) = meet(closing, connect, handler)
    peer.sendall(b"asks")
    handler.wait_for("on_receive")
    peer.sendall(b"and asks again")
    closing.begin()
    session.resume()
    assert receive_to_end(peer) == b""
    peer.close()
    closing.end()
    assert handler.received() == b"asks"


def test_what_a_callback_sends_after_its_resume_arrives_while_the_proactor_closes(closing, connect):
    handler = Pausing()
    (session,), (peer,) = meet(closing, connect, handler, workers=[0])
    peer.sendall(b"asks")
    handler.wait_for("on_receive")
    begun, answer = threading.Event(), threading.Event()

    def callback():
        begun.set()
        answer.wait(WAIT)
        session.resume()
        session.send(b"answer")

    if isinstance(closing, Polled):
        pytest.skip("the thread that polls is the one that closes, and cannot while it is in a callback")
    closing.proactor.post(callback, worker=0)
    assert begun.wait(WAIT)
    closing.begin()
    answer.set()
    assert receive_to_end(peer) == b"answer"
    peer.close()
    closing.end()


def test_a_session_that_is_not_paused_finishes_at_once(closing, connect):
    handler = Recorder()
    (session,), (peer,) = meet(closing, connect, handler)
    closing.begin()
    assert receive_to_end(peer) == b""
    until(lambda: session.closing)
    with pytest.raises(iocpcore.SessionClosed):
        session.send(b"x")
    peer.close()
    closing.end()


# ---- what is refused, and what was asked before ----


def test_while_it_closes_a_proactor_takes_nothing_new(closing, connect):
    handler = Told()
    (session,), (peer,) = meet(closing, connect, handler)
    proactor = closing.proactor
    closing.begin()
    handler.wait_for("on_shutdown")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        for refused in (
            lambda: proactor.listen(handler),
            lambda: proactor.connect(handler, *server.getsockname()),
            lambda: proactor.adopt(handler, sock),
            lambda: proactor.post(print),
        ):
            with pytest.raises(RuntimeError, match="closed"):
                refused()
    session.close()
    peer.close()
    closing.end()


def test_functions_that_were_posted_before_are_called(closing, connect):
    handler = Told()
    (session,), (peer,) = meet(closing, connect, handler)
    called = []
    for number in range(100):
        closing.proactor.post(called.append, number)
    closing.begin(0)
    closing.end()
    assert sorted(called) == list(range(100))
