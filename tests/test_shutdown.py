"""Closing a proactor: who is told, who goes on, who is waited for, and for how long."""

import contextlib
import gc
import logging
import signal
import socket
import sys
import threading
import time
import weakref

import pytest

import iocpcore
from support import (
    SCALE,
    WAIT,
    Acting,
    Recorder,
    assert_nothing_left,
    open_handles,
    receive_exactly,
    receive_to_end,
    reset,
    run_python,
    until,
)


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


def test_what_has_come_before_closing_begins_is_told_before_on_shutdown(backend, connect):
    """However much a busy worker finds then: more than a batch of packets here."""
    count, free = 150, threading.Event()
    handler = Told(
        on_receive=lambda session, data: free.wait(WAIT) and session.send(data),
        on_shutdown=lambda session: session.close(),
    )
    closing = Closing(backend, 1)
    _, peers = meet(closing, connect, handler, count)
    peers[0].sendall(b"holds it up")
    handler.wait_for("on_receive")
    for peer in peers[1:]:
        peer.sendall(b"asked")
    closing.begin()
    free.set()
    assert [receive_to_end(peer) for peer in peers] == [b"holds it up", *[b"asked"] * (count - 1)]
    closing.end()


def test_an_idle_session_is_told_of_the_shutdown_though_its_receive_is_cancelled_just_then(backend, connect):
    """Nobody has polled for so long that closing, and taking the idle session's buffer back, are due in one turn."""
    handler = Told(on_shutdown=lambda session: session.close())
    with iocpcore.Proactor(0, backend, drain=2 * WAIT) as proactor:
        peer = connect(proactor.listen(handler))
        until(lambda: proactor.poll(0.01) == 0 and handler.names() == ["on_connect"])
        ended = []
        reader = threading.Thread(target=lambda: (ended.append(receive_to_end(peer)), peer.close()))
        reader.start()
        threading.Event().wait(5.5)  # seconds; after 5 a session is idle
    reader.join(WAIT)
    assert ended == [b""]


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

    with pytest.warns(UserWarning, match="on_shut_down, which is never called: did you mean on_shutdown"):
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


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=WAIT).close()
    except ConnectionRefusedError:
        return True
    except ConnectionError:
        return False  # reset: it was closed just then, with this connection in its queue
    return False


def test_a_listener_that_its_closing_worker_has_forgotten_may_be_closed_and_dropped(backend, connect):
    """A request to close it would lie in the inbox when its memory has gone: the worker is busy."""
    free = threading.Event()
    handler = Told(on_receive=lambda session, data: free.wait(WAIT))
    closing = Closing(backend, 1)
    (session,), (peer,) = meet(closing, connect, handler)
    listener = closing.proactor.listen(Recorder())
    port = listener.port
    closing.begin()
    until(lambda: is_refused(port))
    peer.sendall(b"hold")
    handler.wait_for("on_receive")
    closing.proactor.stats()  # it lets go of the listener
    listener.close()
    del listener
    gc.collect()
    free.set()
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


# ---- what is told of a session agrees ----


def agree(session):
    """What send() and the attributes say, of a session that end() was not called for."""
    try:
        session.send(b"")
        takes = True
    except iocpcore.SessionClosed:
        takes = False
    state = repr(session).split()[-1].rstrip(">")
    return takes, session.closing, session.closed, state


OPEN = (True, False, False, "open")
FINISHING = (False, True, False, "closing")
ENDED = (False, True, True, "closed")


def test_a_session_that_was_just_reset_says_so_in_every_way(proactor, pair):
    """Also between its reset and its on_close, where a function that was posted before is called."""
    session, peer, handler = pair()
    entered, go_on = threading.Event(), threading.Event()

    def wait():
        entered.set()
        go_on.wait(WAIT)

    proactor.post(wait)
    assert entered.wait(WAIT)
    reset(peer)
    seen = []
    proactor.post(lambda: seen.append(agree(session)))
    go_on.set()
    handler.wait_for("on_close")
    assert seen[0] in (OPEN, FINISHING)
    assert agree(session) == ENDED


class Silent:
    """A handler without on_end: the peer's end finishes its sessions."""

    def __init__(self):
        self.sessions = []
        self.seen = []

    def on_connect(self, session):
        self.sessions.append(session)

    def on_close(self, session, error):
        self.seen.append(agree(session))


def test_a_session_that_finishes_says_so_in_every_way_and_so_one_that_has_ended(proactor, connect):
    handler = Silent()
    peer = connect(proactor.listen(handler))
    until(lambda: handler.sessions)
    (session,) = handler.sessions
    assert agree(session) == OPEN
    session.send(bytes(32 << 20))
    peer.shutdown(socket.SHUT_WR)
    until(lambda: session.closing)
    assert agree(session) == FINISHING
    reset(peer)
    until(lambda: handler.seen)
    assert handler.seen == [ENDED]
    assert agree(session) == ENDED


def test_a_session_of_a_closing_proactor_says_so_in_every_way(closing, connect):
    handler = Recorder()
    (session,), (peer,) = meet(closing, connect, handler)
    closing.begin()
    assert peer.recv(1) == b""
    assert agree(session) in (FINISHING, ENDED)
    peer.close()
    closing.end()
    assert agree(session) == ENDED


def test_a_session_whose_time_is_over_says_so_in_every_way(proactor, connect):
    handler = Silent()
    connect(proactor.listen(handler, idle_timeout=0.05))
    until(lambda: handler.seen)
    assert handler.seen == [ENDED]


def test_after_end_a_session_is_not_closing_but_takes_no_more(pair):
    session, _, _ = pair()
    session.end()
    assert agree(session) == (False, False, False, "ended")


# ---- how long close() waits ----


SLOW = int(500 * SCALE)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_however_long_all_on_close_take_together_each_is_told(backend, connect, monkeypatch, workers):
    monkeypatch.setattr(iocpcore._core, "MARGIN", 0.5)
    told = []

    class Handler(Recorder):
        def on_close(self, session, error):
            time.sleep(0.01)
            told.append(session)

    proactor = iocpcore.Proactor(workers, backend)
    handler = Handler()
    listener = proactor.listen(handler)
    peers = [connect(listener) for _ in range(SLOW)]
    if workers == 0:
        while len(handler.of("on_connect")) < SLOW:
            proactor.poll(0.1)
    handler.wait_for("on_connect", SLOW)
    handles = open_handles()
    proactor.close(0)
    assert len(told) == SLOW
    assert_nothing_left(proactor)  # nothing was undrained either: all ended at once, however late it was looked at
    assert open_handles() <= handles - SLOW
    assert peers


LEFT = """
import iocpcore, socket, threading, time
iocpcore._core.MARGIN = 0.3
release = threading.Event()
entered = threading.Semaphore(0)
class Gateway:
    def on_receive(self, session, data):
        entered.release()
        release.wait(30)
    def on_close(self, session, error):
        pass
def posted():
    entered.release()
    release.wait(30)
def close(drain=0):
    try:
        proactor.close(drain)
    except RuntimeError as error:
        print(f"{error}\\n", end="")  # in one piece: several threads may
    else:
        print("closed\\n", end="")
"""


class Clock:
    """The module time, `ahead` of what it is."""

    ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


@pytest.mark.parametrize("workers", [0, 1])
def test_a_close_after_one_that_was_interrupted_long_ago_has_its_own_time(backend, connect, monkeypatch, workers):
    """Whoever polls gets nothing done in between."""
    clock = Clock()
    monkeypatch.setattr(iocpcore._core, "time", clock)
    proactor = iocpcore.Proactor(workers, backend)
    handler = Acting(on_connect=lambda session: session.pause())
    connect(proactor.listen(handler))
    until(lambda: handler.of("on_connect") or (workers == 0 and proactor.poll(0.01) < 0))

    def interrupt():
        until(lambda: proactor.closing)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        proactor.close(4 * WAIT)
    thread.join(WAIT)
    clock.ahead = 5 * WAIT
    proactor.close(0)
    assert_nothing_left(proactor)
    assert len(handler.of("on_close")) == 1



def test_a_callback_that_does_not_return_is_named(backend):
    output = run_python(
        LEFT
        + f"""
proactor = iocpcore.Proactor(2, {backend!r})
handler = Gateway()
listener = proactor.listen(handler, workers=[1])
peer = socket.create_connection(listener.address)
peer.sendall(b"x")
entered.acquire()
proactor.post(posted, worker=0)
entered.acquire()
closers = [threading.Thread(target=close) for _ in range(2)]
for closer in closers: closer.start()
for closer in closers: closer.join()
release.set()
"""
    )
    expected = (
        "close() timed out after 0.3 s without progress: worker 0 is in a function that was posted, posted; "
        "worker 1 is in on_receive of Gateway, session 1. The memory in use was leaked on purpose."
    )
    assert output.splitlines() == [expected] * 2


def test_a_session_whose_worker_does_not_come_back_is_closed(backend):
    output = run_python(
        LEFT
        + f"""
proactor = iocpcore.Proactor(1, {backend!r})
sessions = []
class Keeping(Gateway):
    def on_connect(self, session):
        sessions.append(session)
peer = socket.create_connection(proactor.listen(Keeping()).address)
peer.sendall(b"x")
entered.acquire()
close()
del proactor
session = sessions[0]
for ask in (session.pause, session.resume, session.end, session.close, session.abort):
    ask()
try:
    session.send(b"x")
except iocpcore.SessionClosed:
    print(session.closed)
release.set()
"""
    )
    assert output.splitlines()[1:] == ["True"]


def test_while_one_worker_is_stuck_what_the_other_has_to_tell_is_told(backend):
    output = run_python(
        LEFT
        + f"""
proactor = iocpcore.Proactor(2, {backend!r})
told = []
class Slow:
    def on_connect(self, session):
        told.append(None)
    def on_close(self, session, error):
        time.sleep(0.02)
        told.append(error)
listener = proactor.listen(Slow(), workers=[1])
peers = [socket.create_connection(listener.address) for _ in range(50)]
while len(told) < 50: time.sleep(0.01)
proactor.post(posted, worker=0)
entered.acquire()
close()
print(len(told))
release.set()
"""
    )
    assert output.splitlines() == [
        "close() timed out after 0.3 s without progress: worker 0 is in a function that was posted, posted. "
        "The memory in use was leaked on purpose.",
        "100",
    ]


def test_at_the_end_of_the_program_all_on_close_come_however_long_they_take(backend):
    output = run_python(
        f"""
import iocpcore, socket, time
iocpcore._core.MARGIN = 0.3
count = 0
class Slow:
    def on_connect(self, session):
        global count
        count += 1
    def on_close(self, session, error):
        global count
        time.sleep(0.02)
        count += 1
        if count == 100:
            print("all")
proactor = iocpcore.Proactor(1, {backend!r})
listener = proactor.listen(Slow())
peers = [socket.create_connection(listener.address) for _ in range(50)]
while count < 50: time.sleep(0.01)
"""
    )
    assert output == "all\n"


# ---- the drain of the constructor ----


def test_close_has_the_constructors_drain(backend, connect):
    proactor = iocpcore.Proactor(1, backend, drain=0)
    handler = Told()
    listener = proactor.listen(handler)
    connect(listener)
    handler.wait_for("on_connect")
    with proactor:
        pass
    assert [error for _, error in handler.of("on_close")] == [None]
    assert_nothing_left(proactor)


def test_a_with_waits_for_the_constructors_drain(backend, connect):
    handler = Told(on_shutdown=lambda session: threading.Timer(0.2, session.close).start())
    with iocpcore.Proactor(1, backend, drain=WAIT) as proactor:
        peer = connect(proactor.listen(handler))
        handler.wait_for("on_connect")
        peer.shutdown(socket.SHUT_WR)
    assert handler.names()[-1] == "on_close"


def test_a_close_with_a_drain_of_its_own_has_that(backend, connect):
    proactor = iocpcore.Proactor(1, backend, drain=1000)
    handler = Told()
    connect(proactor.listen(handler))
    handler.wait_for("on_connect")
    proactor.close(0)
    assert handler.names()[-1] == "on_close"


@pytest.mark.parametrize(("drain", "error"), [(None, TypeError), ("1", TypeError), (True, TypeError), (-1, ValueError)])
def test_a_drain_that_is_no_number_of_seconds_is_refused(drain, error):
    with pytest.raises(error, match="drain"):
        iocpcore.Proactor(drain=drain)


# ---- on_close's error ----


def test_on_closes_error_has_what_the_callback_raised_as_its_cause(pair, caplog):
    raised = LookupError("mine")

    def fail(session, data):
        raise raised

    session, peer, handler = pair(Acting(on_receive=fail))
    peer.sendall(b"x")
    _, error = handler.wait_for("on_close")
    assert isinstance(error, ConnectionAbortedError)
    assert error.__cause__ is raised


@pytest.mark.parametrize("hears", [True, False], ids=["with on_close", "without"])
def test_what_a_callback_raised_goes_when_its_session_has_ended(proactor, connect, hears, caplog):
    """No cycle is left: the collector is off."""

    class Raised(Exception):
        pass

    alive = []

    class Handler:
        def on_receive(self, session, data):
            error = Raised()
            alive.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

        if hears:

            def on_close(self, session, error):
                assert isinstance(error.__cause__, Raised)

    logging.getLogger("iocpcore").disabled = True
    gc.collect()
    gc.disable()
    try:
        peer = connect(proactor.listen(Handler()))
        peer.sendall(b"x")
        until(lambda: alive and alive[0]() is None)
    finally:
        gc.enable()
        logging.getLogger("iocpcore").disabled = False


def test_a_drain_that_ends_with_bytes_unsent_is_a_timeout_error(closing, connect):
    handler = Acting(on_connect=lambda session: session.send(bytes(32 << 20)))
    (session,), _ = meet(closing, connect, handler)
    closing.begin(0)
    closing.end()
    ((_, error),) = handler.of("on_close")
    assert isinstance(error, TimeoutError)
    assert session.unsent > 0


@pytest.mark.parametrize("told", [True, False], ids=["with on_shutdown", "paused"])
def test_a_drain_that_ends_with_bytes_unsent_of_a_session_that_goes_on_is_a_timeout_error(closing, connect, told):
    handler = (Told if told else Acting)(on_connect=lambda session: (session.send(bytes(32 << 20)), session.pause()))
    (session,), _ = meet(closing, connect, handler)
    closing.begin(0.1)
    closing.end()
    ((_, error),) = handler.of("on_close")
    assert isinstance(error, TimeoutError)


@pytest.mark.skipif(sys.platform == "win32", reason="wine delivers such a reset as an end")
@pytest.mark.parametrize("size", [1000, 32 << 20])
def test_a_reset_after_close_is_told_whether_the_system_had_taken_all_or_not(pair, size):
    session, peer, handler = pair()
    session.send(bytes(size))
    session.close()
    until(lambda: session.stats().bytes_sent > 0)
    reset(peer)
    _, error = handler.wait_for("on_close")
    assert isinstance(error, ConnectionError)


def test_abort_is_no_error_though_bytes_are_lost(pair):
    session, _, handler = pair()
    session.send(bytes(32 << 20))
    session.close()
    session.abort()
    assert handler.wait_for("on_close") == (session, None)
    assert session.unsent > 0
