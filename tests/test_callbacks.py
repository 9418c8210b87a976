"""Callbacks: which come, in what order, once; what becomes of exceptions; which handlers are taken."""

import asyncio
import contextlib
import functools
import inspect
import logging
import runpy
import socket
import subprocess
import sys
import threading
import types
import typing
import unittest.mock
import warnings

import pytest

import iocpcore
from support import (
    WAIT,
    Acting,
    Recorder,
    receive_exactly,
    receive_to_end,
    refusing_port,
    reset,
    run_python,
    spawn,
    until,
)

ALL = ["on_connect", "on_receive", "on_drain", "on_end", "on_close"]


# ---- order ----


@pytest.mark.valgrind
def test_callbacks_come_in_the_order_of_a_connections_life(pair):
    session, peer, handler = pair(Acting(on_end=lambda session: session.close()))
    peer.sendall(b"one")
    until(lambda: handler.received() == b"one")
    peer.sendall(b"two")
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    assert handler.wait_for("on_close") == (session, None)
    names = handler.names()
    assert names[0] == "on_connect"
    assert names[-2:] == ["on_end", "on_close"]
    assert set(names[1:-2]) == {"on_receive"}
    assert handler.received() == b"onetwo"


def test_on_connect_comes_before_data_that_is_there_already(proactor, connect):
    handler = Recorder()
    peer = connect(proactor.listen(handler))
    peer.sendall(b"at once")
    peer.close()
    handler.wait_for("on_end")
    assert handler.names()[0] == "on_connect"
    assert handler.received() == b"at once"


def test_data_is_bytes(pair):
    _, peer, handler = pair()
    peer.sendall(b"x")
    _, data = handler.wait_for("on_receive")
    assert type(data) is bytes


def test_all_callbacks_of_a_session_run_in_one_thread_of_its_proactor(backend, connect):
    threads = []

    def note(*_):
        threads.append(threading.current_thread().name)

    with iocpcore.Proactor(2, backend) as proactor:
        handler = Acting(on_connect=note, on_receive=lambda session, data: session.close(), on_close=note)
        peer = connect(proactor.listen(handler))
        peer.sendall(b"x")
        assert receive_to_end(peer) == b""
        peer.close()
        handler.wait_for("on_close")
    assert len(threads) == 2 and len(set(threads)) == 1
    assert threads[0].startswith("iocpcore-worker-")


# ---- on_close ----


def test_on_close_comes_once_and_last_when_the_peer_resets(pair):
    session, peer, handler = pair()
    peer.sendall(b"x")
    handler.wait_for("on_receive")
    reset(peer)
    if sys.platform == "win32":  # under wine a receive may not tell a reset from an end; a send does
        until(lambda: handler.of("on_close") or handler.of("on_end"))
        if handler.of("on_end"):
            session.send(b"x")
    _, error = handler.wait_for("on_close")
    assert isinstance(error, ConnectionError)
    assert handler.names()[-1] == "on_close"
    assert handler.names().count("on_close") == 1


def test_on_close_has_no_error_when_both_sides_have_ended(pair):
    session, peer, handler = pair(Acting(on_end=lambda session: session.end()))
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    assert handler.wait_for("on_close") == (session, None)


def test_a_refused_connection_is_told_by_on_close_alone(proactor):
    handler = Recorder()
    with refusing_port() as port:
        session = proactor.connect(handler, "127.0.0.1", port)
        told, error = handler.wait_for("on_close")
    assert told is session
    assert isinstance(error, ConnectionRefusedError)
    assert handler.names() == ["on_close"]
    assert session.closed


def test_a_session_closed_while_it_connects_is_told_once(proactor):
    handler = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as server:
        session = proactor.connect(handler, *server.getsockname())
        session.abort()
        assert handler.wait_for("on_close") == (session, None)
    assert "on_receive" not in handler.names()


def test_closing_the_proactor_tells_every_session(backend, connect):
    handler = Recorder()
    with iocpcore.Proactor(2, backend) as proactor:
        listener = proactor.listen(handler)
        for _ in range(20):
            connect(listener)
        handler.wait_for("on_connect", 20)
        proactor.close(0)
    closed = [session for session, _ in handler.of("on_close")]
    assert len(closed) == len(set(closed)) == 20
    assert set(closed) == {session for session, _ in handler.of("on_connect")}


def test_nothing_comes_after_on_close_whoever_ends_the_session(proactor, connect):
    """A hundred sessions, each ended by itself in the midst of its data while its peer resets."""
    handler = Acting(
        on_receive=lambda session, data: session.abort() if len(handler.calls) % 2 else session.close(),
        on_end=lambda session: session.close(),
    )
    listener = proactor.listen(handler, receive_size=1)
    for number in range(100):
        peer = connect(listener)
        peer.sendall(b"x" * 50)
        reset(peer) if number % 2 else peer.close()
    until(lambda: proactor.stats().accepted + proactor.stats().accept_failures >= 100)
    until(lambda: proactor.stats().active == 0)
    for session, _ in handler.of("on_connect"):
        names = [name for name, own, _ in handler.calls if own is session]
        assert names.count("on_close") == 1
        assert names[-1] == "on_close"
        assert names.count("on_receive") <= 1


# ---- on_end ----


def test_after_on_end_a_session_still_sends(pair):
    answer = bytes(range(256)) * 40_000

    def finish(session):
        session.send(answer)
        session.end()

    session, peer, handler = pair(Acting(on_end=finish))
    peer.shutdown(socket.SHUT_WR)
    assert receive_to_end(peer) == answer
    assert handler.wait_for("on_close") == (session, None)


def test_after_on_end_a_session_may_send_much_later(pair):
    session, peer, handler = pair()
    peer.shutdown(socket.SHUT_WR)
    handler.wait_for("on_end")
    session.send(b"later")
    assert receive_exactly(peer, 5) == b"later"
    assert not handler.of("on_close")


def test_without_on_end_a_session_sends_what_is_queued_and_closes(pair):
    session, peer, handler = pair(without("on_end"))
    answer = bytes(range(256)) * 40_000
    session.send(answer)
    peer.shutdown(socket.SHUT_WR)
    assert receive_to_end(peer) == answer
    assert handler.wait_for("on_close") == (session, None)


def test_on_end_comes_once(pair):
    session, peer, handler = pair()
    peer.shutdown(socket.SHUT_WR)
    handler.wait_for("on_end")
    session.send(b"x")
    session.pause()
    session.resume()
    session.end()
    assert receive_to_end(peer) == b"x"
    handler.wait_for("on_close")
    assert handler.names().count("on_end") == 1


# ---- exceptions ----


def fail(*_):
    raise LookupError("mine")


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG, "iocpcore")
    return lambda: [record for record in caplog.records if record.name == "iocpcore"]


def provoke(connect, listener, handler, name):
    """Make a session of the listener get that callback; the peer may be reset for it at any time."""
    before = len(handler.of("on_connect"))
    with contextlib.suppress(ConnectionError):
        peer = connect(listener)
    session, _ = handler.wait_for("on_connect", before + 1)
    if name == "on_drain":
        session.send(b"xx")
    elif name == "on_receive":
        peer.sendall(b"x")
    elif name != "on_connect":
        peer.shutdown(socket.SHUT_WR)
    return session


@pytest.mark.parametrize("name", ALL)
def test_an_exception_is_logged_and_counted_once_and_ends_its_session_alone(proactor, connect, logged, name):
    victims = Acting(**{"on_end": lambda session: session.close(), name: fail})
    listener = proactor.listen(victims, high_water=1)
    others = Acting(on_receive=lambda session, data: session.send(data))
    other = connect(proactor.listen(others))
    session = provoke(connect, listener, victims, name)
    ended, error = victims.wait_for("on_close")
    assert ended == session
    assert type(error) is (type(None) if name == "on_close" else ConnectionAbortedError)
    until(lambda: len(logged()) == 1)
    (record,) = logged()
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"{name} of session {session.id} with {session.peername} raised an exception"
    assert record.exc_info[1].args == ("mine",)
    assert session.closed
    other.sendall(b"unharmed")
    assert receive_exactly(other, 8) == b"unharmed"
    until(lambda: proactor.stats().callback_errors == 1)
    provoke(connect, listener, victims, "on_connect")  # the listener goes on


def test_a_session_whose_callback_fails_is_reset_and_what_it_has_queued_is_lost(pair):
    def send_and_fail(session, data):
        session.send(bytes(32 << 20))
        raise LookupError

    logging.getLogger("iocpcore").disabled = True
    try:
        session, peer, handler = pair(Acting(on_receive=send_and_fail))
        peer.sendall(b"x")
        handler.wait_for("on_close")
    finally:
        logging.getLogger("iocpcore").disabled = False
    assert session.unsent > 0


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_on_close_tells_of_a_callbacks_failure_though_it_had_ended_its_session(pair, caplog, ending):
    def end_and_fail(session, data):
        getattr(session, ending)()
        raise LookupError

    session, peer, handler = pair(Acting(on_receive=end_and_fail))
    peer.sendall(b"x")
    _, error = handler.wait_for("on_close")
    assert isinstance(error, ConnectionAbortedError)


def test_a_failing_logger_harms_nobody(backend):
    """Nor does one that raises: the worker goes on."""
    output = run_python(
        f"""
import iocpcore, logging, socket, sys
class Raising(logging.Handler):
    def emit(self, record):
        raise MemoryError
logging.getLogger("iocpcore").addHandler(Raising())
sys.unraisablehook = lambda info: None
class Failing:
    def on_connect(self, session):
        raise LookupError
with iocpcore.Proactor(1, {backend!r}) as proactor:
    failing, echo = proactor.listen(Failing()), proactor.listen(iocpcore.ECHO)
    try:
        with socket.create_connection(failing.address, timeout=30) as peer:
            assert peer.recv(1) == b""
    except ConnectionError:
        pass
    with socket.create_connection(echo.address, timeout=30) as peer:
        peer.sendall(b"x")
        print(peer.recv(1))
"""
    )
    assert output.strip() == "b'x'"


FAILING_REPORTS = {
    "a log handler": """
class Failing(logging.Handler):
    def emit(self, record):
        raise OSError("away")
logging.getLogger().addHandler(Failing())
""",
    "a log filter": """
def fail(record):
    raise OSError("away")
logging.getLogger("iocpcore").addFilter(fail)
""",
    "the words of the exception": """
class Failing(logging.Handler):
    def emit(self, record):
        raise Wordless(str(record.exc_info[1]))
logging.getLogger().addHandler(Failing())
""",
}

EXITING_HOOKS = {
    "no hook": "",
    "sys.excepthook": "sys.excepthook = lambda *info: sys.exit(1)",
    "sys.unraisablehook": "sys.unraisablehook = lambda info: sys.exit(1)",
    "both": "sys.excepthook = sys.unraisablehook = lambda *info: sys.exit(1)",
}


# Each combination with one callback, and each callback with one combination.
FAILING = [(hooks, report, "on_receive") for hooks in EXITING_HOOKS for report in FAILING_REPORTS] + [
    ("both", "a log handler", name) for name in ("on_connect", "on_end", "on_close", "a posted function")
]


@pytest.mark.parametrize("hooks, report, name", FAILING)
def test_whatever_fails_while_an_exception_is_reported_the_worker_goes_on(backend, hooks, report, name):
    output = run_python(
        f"""
import contextlib, iocpcore, logging, socket, sys, types
class Wordless(Exception):
    def __str__(self):
        raise ValueError("no words")
{FAILING_REPORTS[report]}
{EXITING_HOOKS[hooks]}
def fail(*_):
    raise Wordless
for workers in 1, 0:
    proactor = iocpcore.Proactor(workers, {backend!r})
    callbacks = {{"on_end": lambda session: session.close(), {name!r}: fail}}
    failing, echo = proactor.listen(types.SimpleNamespace(**callbacks)), proactor.listen(iocpcore.ECHO)
    proactor.post(fail)
    with socket.create_connection(failing.address) as failed, socket.create_connection(echo.address) as peer:
        with contextlib.suppress(OSError):     # it may be reset already
            failed.sendall(b"x")
            failed.shutdown(socket.SHUT_WR)
        expected = 1 + ({name!r} in iocpcore._core.CALLBACKS)
        while proactor.stats().callback_errors < expected:
            if workers == 0:
                proactor.poll(0.1)
        peer.settimeout(0.1)
        peer.sendall(b"x")
        while True:
            if workers == 0:
                proactor.poll(0.1)
            with contextlib.suppress(TimeoutError):
                print(peer.recv(1))
                break
    proactor.close()
""",
    )
    assert output.split() == ["b'x'"] * 2


def test_an_exception_that_cannot_be_logged_is_given_to_the_hook_for_what_nobody_can_catch(proactor, monkeypatch):
    given = []
    reported = LookupError("mine")
    monkeypatch.setattr(sys, "unraisablehook", lambda info: given.append((info.exc_value, info.object)))
    monkeypatch.setattr(logging.getLogger("iocpcore"), "handle", raising(OSError("away")))
    proactor.post(raising(reported))
    until(lambda: len(given) == 2)
    assert given[0] == (reported, "reported by iocpcore")
    assert isinstance(given[1][0], OSError)
    assert given[1][0].__context__ is reported


# ---- what ends programs ----


def raising(error):
    def raise_it(*_):
        raise error

    return raise_it


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ALL)
def test_what_ends_programs_is_raised_from_close(backend, connect, error, name):
    handler = Acting(**{"on_end": lambda session: session.close(), name: raising(error(name))})
    proactor = iocpcore.Proactor(2, backend)
    session = provoke(connect, proactor.listen(handler, high_water=1), handler, name)
    until(lambda: proactor.closing)
    with pytest.raises(error, match=name):
        proactor.close()
    proactor.close()  # it was raised once
    assert session.closed
    with pytest.raises(RuntimeError, match="closed"):
        proactor.listen(iocpcore.ECHO)


def test_what_ends_programs_is_raised_even_if_its_function_cannot_be_named(backend):
    class Nameless:
        __repr__ = raising(ValueError("no name"))
        __call__ = raising(SystemExit("posted"))

    proactor = iocpcore.Proactor(1, backend)
    proactor.post(Nameless())
    until(lambda: proactor.closing)
    with pytest.raises(SystemExit, match="posted"):
        proactor.close()


def test_an_interrupt_that_comes_while_an_exception_is_logged_is_raised_from_close(backend, monkeypatch):
    monkeypatch.setattr(logging.getLogger("iocpcore"), "handle", raising(KeyboardInterrupt()))
    proactor = iocpcore.Proactor(1, backend)
    proactor.post(raising(LookupError()))
    until(lambda: proactor.closing)
    with pytest.raises(KeyboardInterrupt):
        proactor.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_is_raised_from_poll(backend, error):
    proactor = iocpcore.Proactor(0, backend)
    proactor.post(raising(error("posted")))
    with pytest.raises(error, match="posted"):
        while True:
            proactor.poll(WAIT)
    assert proactor.closing
    proactor.close()


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_what_ends_programs_is_raised_from_serve(backend, error):
    output = run_python(
        f"""
import iocpcore, socket
class Failing:
    def on_connect(self, session):
        raise {error}("mine")
def started(listener):
    global peer
    peer = socket.create_connection(listener.address)
try:
    iocpcore.serve(Failing(), backend={backend!r}, started=started)
except {error} as caught:
    print(repr(caught))
"""
    )
    assert output.strip() == f"{error}('mine')"


def test_a_program_ends_with_the_status_that_a_callback_wants(backend):
    program = f"""
import iocpcore
with iocpcore.Proactor(1, {backend!r}) as proactor:
    proactor.post(exit, 7)
    while not proactor.closing:
        pass
"""
    done = spawn(subprocess.run, [sys.executable, "-c", program], stdin=subprocess.DEVNULL, timeout=WAIT)
    assert done.returncode == 7


# ---- which handlers are taken ----


def without(*names):
    """A Recorder that lacks these callbacks."""
    handler = Recorder()
    for name in names:
        setattr(handler, name, None)
    return handler


@pytest.mark.parametrize("name", ALL)
def test_every_callback_is_optional(proactor, connect, name):
    handler = without(name)
    listener = proactor.listen(handler, high_water=1)
    peer = connect(listener)
    peer.sendall(b"x")
    until(lambda: proactor.stats().bytes_received == 1)
    if name != "on_connect":
        session, _ = handler.wait_for("on_connect")
        session.send(b"xx")
        assert receive_exactly(peer, 2) == b"xx"
        if name != "on_drain":
            handler.wait_for("on_drain")  # without on_end the peer's end may come first, and ends the session
    peer.shutdown(socket.SHUT_WR)
    if name != "on_connect":
        if name != "on_end":
            handler.wait_for("on_end")
        session.close()
        assert peer.recv(1) == b""
    peer.close()
    if name == "on_connect":
        session, _ = handler.wait_for("on_end")
        session.close()
    until(lambda: session.closed)
    lacking = {name, "on_drain"} if name == "on_connect" else {name}  # there was no session to fill
    assert set(handler.names()) == set(ALL) - lacking


def test_a_handler_of_one_callback_is_enough(proactor, connect):
    class Upper:
        def on_receive(self, session, data):
            session.send(data.upper())

    peer = connect(proactor.listen(Upper()))
    peer.sendall(b"shout")
    assert receive_exactly(peer, 5) == b"SHOUT"
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""


def test_a_misspelt_callback_is_warned_of_where_the_handler_was_given(proactor):
    class Handler:
        def on_recieve(self, session, data):
            """Nobody will call this."""

        def on_close(self, session, error):
            """It has this one at least."""

    words = "the handler Handler has on_recieve, which is never called: did you mean on_receive?"
    with pytest.warns(UserWarning, match=words) as caught:
        proactor.listen(Handler())
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["on_disconnect", "onDisconnect"])
def test_who_writes_disconnect_means_on_close(proactor, name):
    handler = Recorder()
    setattr(handler, name, print)
    with pytest.warns(UserWarning, match=f"{name}, which is never called: did you mean on_close?"):
        proactor.listen(handler)


def test_other_names_are_not_warned_of(proactor):
    class Handler(Recorder):
        online = 3

        def once(self):
            """Not ours."""

        def on_message(self):
            """Nor this."""

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proactor.listen(Handler())


def test_a_class_instead_of_an_object_is_refused(proactor):
    with pytest.raises(TypeError, match="not the class Recorder itself"):
        proactor.listen(Recorder)


def test_a_callback_that_cannot_be_called_is_refused(proactor):
    handler = Recorder()
    handler.on_end = 5
    with pytest.raises(TypeError, match="on_end of the handler .* cannot be called"):
        proactor.listen(handler)


def test_an_async_callback_is_refused(proactor):
    class Handler:
        async def on_receive(self, session, data):
            """Called, it would only make a coroutine."""

    with pytest.raises(TypeError, match="on_receive of the handler .* is an async function, which nobody would await"):
        proactor.listen(Handler())


def test_a_callback_that_is_a_generator_is_refused(proactor):
    class Handler:
        def on_receive(self, session, data):
            yield data

    with pytest.raises(TypeError, match="on_receive of the handler .* is a generator function, which nobody would run"):
        proactor.listen(Handler())


class Takes:
    """Callables of every kind, and whether one argument is what they take."""

    def one(self, session):
        """As it should be."""

    def none(self):
        """Too few."""

    def two(self, session, data):
        """Too many."""

    def default(self, session, data=None):
        """One is enough."""

    def any(self, *arguments, **options):
        """Whatever comes."""

    def keyword(self, session, *, data):
        """It could not be called."""

    def optional_keyword(self, session, *, data=None):
        """It can."""

    @staticmethod
    def static(session):
        """Without self."""

    @staticmethod
    def static_none():
        """Too few."""

    @classmethod
    def of_class(cls, session):
        """With its class."""

    @classmethod
    def of_class_none(cls):
        """Too few."""

    @functools.wraps(two)
    def wrapped(self, session):
        """It says that it takes two, but the wrapper is what is called."""

    @functools.wraps(one)
    def wrapped_wrongly(self):
        """It says that it takes one."""

    class Callable:
        def __call__(self, session):
            """An object that can be called."""

    class CallableWithout:
        def __call__(self):
            """Too few."""

    class Unreadable:
        __signature__ = "none"

        def __call__(self, *arguments):
            """inspect.signature() raises for it."""


TAKEN = {
    "method": Takes().one,
    "default": Takes().default,
    "any": Takes().any,
    "optional keyword": Takes().optional_keyword,
    "static": Takes.static,
    "class method": Takes.of_class,
    "wrapped": Takes().wrapped,
    "callable": Takes.Callable(),
    "unreadable": Takes.Unreadable(),
    "lambda": lambda session: None,
    "partial": functools.partial(Takes().two, data=None),
    "C": [].append,
    "C, without a signature": {}.pop,
    "C, any": print,
    "Cython": iocpcore.Session.close,
    "class": str,
    "Mock": unittest.mock.Mock(),
    "MagicMock": unittest.mock.MagicMock(),
    "autospec": unittest.mock.create_autospec(Takes().one),
}
REFUSED = {
    "none": Takes().none,
    "two": Takes().two,
    "unbound": Takes.two,
    "keyword": Takes().keyword,
    "static": Takes.static_none,
    "class method": Takes.of_class_none,
    "wrapped": Takes().wrapped_wrongly,
    "callable": Takes.CallableWithout(),
    "lambda": lambda: None,
    "partial": functools.partial(Takes().one, None),
    "C": [].clear,
    "Cython": iocpcore.Session.send,
}


@pytest.mark.parametrize("callback", TAKEN.values(), ids=TAKEN)
def test_a_callback_that_takes_a_session_is_taken(proactor, callback):
    proactor.listen(types.SimpleNamespace(on_connect=callback))


@pytest.mark.parametrize("callback", REFUSED.values(), ids=REFUSED)
def test_a_callback_that_does_not_take_a_session_is_refused_where_its_handler_is_given(proactor, callback):
    with pytest.raises(TypeError, match=r"on_connect of the handler SimpleNamespace is called with \(session\), which"):
        proactor.listen(types.SimpleNamespace(on_connect=callback))


@pytest.mark.parametrize("name", iocpcore._core.CALLBACKS)
def test_every_callback_is_asked_whether_it_takes_what_it_is_called_with(proactor, name):
    right = {"on_receive": lambda session, data: None, "on_close": lambda session, error: None}
    proactor.listen(types.SimpleNamespace(**{name: right.get(name, lambda session: None)}))
    with pytest.raises(TypeError, match=rf"{name} of .* is called with \(session.* it does not take: missing a"):
        proactor.listen(types.SimpleNamespace(**{name: lambda first, second, third: None}))
    with pytest.raises(TypeError, match=rf"{name} of .* is called with \(session.* it does not take: too many"):
        proactor.listen(types.SimpleNamespace(**{name: lambda: None}))


@pytest.mark.parametrize("caller", ["listen", "connect", "adopt", "serve"])
def test_a_callback_of_wrong_shape_is_refused_by_whatever_takes_handlers(proactor, caller):
    handler = types.SimpleNamespace(on_receive=lambda data: None)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        arguments = {"connect": server.getsockname(), "adopt": (sock,)}.get(caller, ())
        with pytest.raises(TypeError, match=r"on_receive of .* is called with \(session, data\), which"):
            getattr(iocpcore if caller == "serve" else proactor, caller)(handler, *arguments)


class Inherits(iocpcore.SessionHandler):
    def on_receive(self, session, data):
        """The only one it has."""


def test_a_handler_that_inherits_from_session_handler_has_its_own_callbacks_only(proactor):
    handler = Inherits()
    assert [name for name in iocpcore._core.CALLBACKS if hasattr(handler, name)] == ["on_receive"]
    proactor.listen(handler)


def test_inheriting_from_session_handler_makes_no_handler_of_an_object_without_callbacks(proactor):
    class Handler(iocpcore.SessionHandler):
        """None of its own."""

    with pytest.raises(TypeError, match="the handler Handler has none of the callbacks"):
        proactor.listen(Handler())


def test_type_checkers_know_the_callbacks_and_their_arguments(monkeypatch):
    monkeypatch.setattr(typing, "TYPE_CHECKING", True)
    known = runpy.run_path(iocpcore._handlers.__file__, run_name="iocpcore._handlers")["SessionHandler"]
    shapes = {name: tuple(inspect.signature(getattr(known, name)).parameters)[1:] for name in iocpcore._core.CALLBACKS}
    assert shapes == iocpcore._core.ARGUMENTS


def test_an_asyncio_protocol_is_told_where_the_guide_is(proactor):
    class Echo(asyncio.Protocol):
        def data_received(self, data):
            """Nobody would call it."""

    with pytest.raises(TypeError, match=r"Echo is an asyncio protocol.*docs/guide/embedding\.md"):
        proactor.listen(Echo())


def test_an_asyncio_protocol_with_callbacks_is_a_handler(proactor):
    class Both(asyncio.Protocol):
        def on_receive(self, session, data):
            """This one is called."""

    proactor.listen(Both())


class Unspeakable:
    """Its repr() may not be asked for."""

    asked = 0

    def __repr__(self):
        Unspeakable.asked += 1
        raise LookupError("no words")

    def on_close(self, session, error):
        """It has this one."""


@pytest.mark.parametrize(
    "wrong",
    [{}, {"on_receive": 5}, {"on_recieve": print}, {"on_end": lambda: None}],
    ids=["no callback", "a number", "a misspelt one", "one that takes nothing"],
)
def test_the_repr_of_a_handler_is_not_asked_for(proactor, wrong):
    Unspeakable.asked = 0
    handler = Unspeakable()
    vars(handler).update(wrong)
    with contextlib.suppress(TypeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listener = proactor.listen(handler)
        assert "Unspeakable" in repr(listener)
        proactor.connect(handler, *listener.address).abort()
        with socket.create_server(("127.0.0.1", 0)) as server:
            proactor.adopt(handler, socket.create_connection(server.getsockname()))
    assert Unspeakable.asked == 0


def test_the_repr_of_what_holds_a_posted_method_is_not_asked_for(proactor):
    class Holder(Unspeakable):
        async def useless(self):
            """Nobody would await it."""

    Unspeakable.asked = 0
    with pytest.raises(TypeError, match="async function"):
        proactor.post(Holder().useless)
    assert Unspeakable.asked == 0


def test_a_callback_is_asked_for_once(proactor):
    class Handler:
        asked = 0

        @property
        def on_close(self):
            Handler.asked += 1
            return Takes.static if Handler.asked > 1 else print

    proactor.listen(Handler())
    assert Handler.asked == 1


def test_a_module_or_a_namespace_may_be_a_handler(proactor, connect):
    received = []
    handler = types.SimpleNamespace(on_receive=lambda session, data: received.append(data))
    peer = connect(proactor.listen(handler))
    peer.sendall(b"x")
    until(lambda: received == [b"x"])


def test_the_peer_sees_the_end_though_on_close_has_not_returned(pair):
    seen = threading.Event()
    in_time = []
    actions = {"on_end": iocpcore.Session.close, "on_close": lambda session, error: in_time.append(seen.wait(5))}
    _, peer, _ = pair(Acting(**actions))
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    seen.set()
    until(lambda: in_time)
    assert in_time == [True]
