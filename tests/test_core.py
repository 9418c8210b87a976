"""The Python-visible types: arguments, life and death of a proactor, threads, signals, other processes."""

import ast
import contextlib
import ctypes
import enum
import functools
import gc
import importlib.resources
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings

import pytest

import iocpcore
from support import WAIT, assert_nothing_left, open_handles, receive_exactly, run_python, until


class Ending:
    def on_close(self, session, error):
        """It has this one."""


# ---- arguments ----


@pytest.mark.parametrize(
    "workers, error",
    [(-1, ValueError), (257, ValueError), ("2", TypeError), (1.0, TypeError), (True, TypeError)],
)
def test_a_wrong_number_of_workers_is_refused(workers, error):
    threads = threading.active_count()
    handles = open_handles()
    with pytest.raises(error, match="workers"):
        iocpcore.Proactor(workers)
    assert threading.active_count() == threads
    assert open_handles() == handles


@pytest.mark.parametrize("value", ["no", 1, None])
def test_what_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(TypeError, match="skip_on_success must be True or False"):
        iocpcore.Proactor(skip_on_success=value)


def test_an_unknown_backend_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match="unknown backend 'kqueue'.*auto, " + ", ".join(iocpcore.backends())):
        iocpcore.Proactor(backend="kqueue")


def test_a_backend_of_another_system_is_refused_and_its_system_named():
    other, system = ("epoll", "Linux") if sys.platform == "win32" else ("iocp", "Windows")
    with pytest.raises(RuntimeError, match=f"^backend '{other}' cannot run here: it is for {system}$"):
        iocpcore.Proactor(backend=other)


def test_a_backend_of_another_type_is_refused():
    with pytest.raises(TypeError, match="backend"):
        iocpcore.Proactor(backend=7)


def test_the_environment_chooses_the_backend_when_nobody_else_does(monkeypatch, backend):
    monkeypatch.setenv("IOCPCORE_BACKEND", backend)
    with iocpcore.Proactor() as proactor:
        assert proactor.backend == backend


def test_an_unknown_backend_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("IOCPCORE_BACKEND", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        iocpcore.Proactor()


@pytest.mark.parametrize("port, error", [(70000, ValueError), (-1, ValueError), ("80", TypeError), (None, TypeError)])
def test_a_wrong_port_is_refused(proactor, port, error):
    handles = open_handles()
    with pytest.raises(error, match="port"):
        proactor.listen(iocpcore.ECHO, port=port)
    assert open_handles() == handles


@pytest.mark.parametrize("call", [
    lambda proactor: iocpcore.run(proactor, started=5),
    lambda proactor: iocpcore.serve(iocpcore.ECHO, started=5),
], ids=["run", "serve"])
def test_a_started_that_cannot_be_called_is_refused_at_once(proactor, call):
    with pytest.raises(TypeError, match="started must be a function, not int"):
        call(proactor)


@pytest.mark.parametrize("drain, error", [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_wrong_drain_time_is_refused_and_the_proactor_stays_open(proactor, drain, error):
    with pytest.raises(error, match="drain"):
        proactor.close(drain)
    proactor.listen(iocpcore.ECHO)


def test_a_host_of_another_type_is_refused(proactor):
    with pytest.raises(TypeError, match="host"):
        proactor.listen(iocpcore.ECHO, 127001)


@pytest.mark.parametrize("handler", ["echo", None, object()])
def test_a_handler_without_any_callback_is_refused(proactor, handler):
    with pytest.raises(TypeError, match="none of the callbacks on_connect"):
        proactor.listen(handler)


@pytest.mark.parametrize("base", [iocpcore.Handler, iocpcore.Load, iocpcore.Listener, iocpcore.Session])
def test_what_native_code_knows_by_its_class_cannot_be_subclassed(base):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (base,), {})


def test_a_handler_is_not_made_by_calling_its_type():
    with pytest.raises(TypeError, match="any other handler is an object with callbacks"):
        iocpcore.Handler()


def test_a_handler_that_python_makes_itself_is_none(proactor):
    for use in (proactor.listen, lambda handler: proactor.connect(handler, "127.0.0.1", 9)):
        with pytest.raises(TypeError, match="none of the callbacks"):
            use(iocpcore.Handler.__new__(iocpcore.Handler))


def test_a_proactor_may_be_subclassed(backend, connect):
    class Named(iocpcore.Proactor):
        def __init__(self, name, *arguments):
            super().__init__(*arguments)
            self.name = name

        def listen(self, handler, *arguments, **options):
            self.listens_for = handler
            return super().listen(handler, *arguments, **options)

    with Named("gateway", 1, backend) as proactor:
        listener = proactor.listen(iocpcore.ECHO)
        assert listener.proactor is proactor
        assert (proactor.name, proactor.listens_for) == ("gateway", iocpcore.ECHO)
        peer = connect(listener)
        peer.sendall(b"x")
        assert receive_exactly(peer, 1) == b"x"
        peer.close()
    assert_nothing_left(proactor)


def test_a_subclass_that_does_not_call_proactors_init_says_so():
    class Lazy(iocpcore.Proactor):
        def __init__(self):
            """Nothing."""

    with pytest.raises(RuntimeError, match=r"Proactor.__init__\(\) was not called"):
        Lazy().listen(iocpcore.ECHO)


@pytest.mark.parametrize("host, shown", [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_listener_says_where_it_listens_and_for_whom(proactor, host, shown):
    listener = proactor.listen(Ending(), host)
    assert repr(listener) == f"<iocpcore.Listener {shown}:{listener.port} <iocpcore.handler Ending>>"
    assert repr(proactor.listen(iocpcore.ECHO, host)).endswith(" <iocpcore.ECHO>>")


def test_a_listener_that_never_listened_says_so():
    assert "not made by listen" in repr(iocpcore.Listener.__new__(iocpcore.Listener))


def test_a_load_cannot_listen(proactor):
    with pytest.raises(TypeError, match="connects by itself"):
        proactor.listen(iocpcore.Load())


def test_an_address_in_use_is_the_systems_error_and_leaves_nothing(proactor, echo):
    handles = open_handles()
    with pytest.raises(OSError, match=f"port {echo.port}") as caught:
        proactor.listen(iocpcore.ECHO, port=echo.port)
    assert caught.value.errno in (98, 10048, 13)  # in use; 13: an exclusive port on Windows
    assert open_handles() == handles


def test_a_host_that_does_not_resolve_is_the_resolvers_error(proactor):
    with pytest.raises(socket.gaierror, match="nowhere.invalid"):
        proactor.listen(iocpcore.ECHO, "nowhere.invalid")


@pytest.mark.parametrize(
    "arguments",
    [{"connections": 0}, {"messages": 0}, {"size": 0}, {"size": (5, 4)}, {"size": (1, 2, 3)}, {"pipeline": 0}],
)
def test_a_load_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError):
        iocpcore.Load(**arguments)


def lying(kind):
    """A subclass whose instances are less and more than everything, and equal to it."""
    names = ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__bool__")
    methods = dict.fromkeys(names, lambda *_: True)
    return type("Liar", (kind,), {**methods, "__hash__": kind.__hash__, "__index__": lambda self: 0})


Liar, FloatLiar = lying(int), lying(float)


@pytest.mark.parametrize("workers", [Liar(300), Liar(-1), Liar(1 << 70), Liar(-1 << 70)], ids=int)
def test_what_a_number_says_of_itself_does_not_count(workers):
    with pytest.raises(ValueError, match="workers must be from 0 to 256"):
        iocpcore.Proactor(workers)


@pytest.mark.parametrize(
    "call",
    [
        lambda proactor: proactor.listen(iocpcore.ECHO, workers=[Liar(64)]),
        lambda proactor: proactor.listen(iocpcore.ECHO, port=Liar(70000)),
        lambda proactor: proactor.listen(iocpcore.ECHO, backlog=Liar(0)),
        lambda proactor: proactor.listen(iocpcore.ECHO, receive_size=Liar(1 << 30)),
        lambda proactor: proactor.listen(iocpcore.ECHO, idle_timeout=Liar(-1)),
        lambda proactor: proactor.listen(iocpcore.ECHO, idle_timeout=Liar(1 << 2000)),
        lambda proactor: proactor.listen(iocpcore.ECHO, idle_timeout=FloatLiar("nan")),
        lambda proactor: proactor.post(print, worker=Liar(64)),
        lambda proactor: proactor.close(FloatLiar(-1)),
    ],
)
def test_nor_in_any_other_argument(proactor, call):
    with pytest.raises(ValueError, match="must be from"):
        call(proactor)


def test_an_enumerations_number_is_a_number(proactor, echo):
    class Port(enum.IntEnum):
        ANY = 0
        ECHO = echo.port

    listener = proactor.listen(iocpcore.DISCARD, port=Port.ANY, backlog=Port.ECHO, workers=[Port.ANY])
    assert re.search(rf"127\.0\.0\.1:{listener.port}\b", repr(listener))
    load = iocpcore.Load(connections=1, messages=1)
    load.start(proactor, "127.0.0.1", Port.ECHO)
    assert load.wait(WAIT)
    assert load.result()["errors"] == 0
    session = proactor.connect(Ending(), "127.0.0.1", Port.ECHO, local_address=("127.0.0.1", Port.ANY))
    until(lambda: session.sockname)
    assert "Port" not in repr(session)


STUB = ast.parse(importlib.resources.files("iocpcore").joinpath("_core.pyi").read_text("utf-8"))
METHODS = {  # of one with overloads the last, which has every argument
    f"{of.name}.{method.name}": method.args
    for of in STUB.body
    if isinstance(of, ast.ClassDef)
    for method in of.body
    if isinstance(method, ast.FunctionDef) and {ast.unparse(it) for it in method.decorator_list} <= {"overload"}
    if not method.name.startswith("_") or (method.name == "__init__" and not method.args.posonlyargs)
}


def parameters_of(arguments):
    """What the stub says: (name, kind, default) of each, without self; a default of ... is any."""
    parameter = inspect.Parameter
    defaults = [parameter.empty] * len(arguments.args) + [ast.unparse(default) for default in arguments.defaults]
    for given, default in list(zip(arguments.args, defaults[-len(arguments.args) :], strict=True))[1:]:
        yield given.arg, parameter.POSITIONAL_OR_KEYWORD, default
    if arguments.vararg:
        yield arguments.vararg.arg, parameter.VAR_POSITIONAL, parameter.empty
    for given, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield given.arg, parameter.KEYWORD_ONLY, parameter.empty if default is None else ast.unparse(default)
    if arguments.kwarg:
        yield arguments.kwarg.arg, parameter.VAR_KEYWORD, parameter.empty


@pytest.mark.parametrize("name", METHODS)
def test_help_and_editors_are_told_the_signature_that_the_stub_has(name):
    of, _, method = name.partition(".")
    kind = getattr(iocpcore, of)
    signature = inspect.signature(kind if method == "__init__" else getattr(kind, method))
    told = [
        (it.name, it.kind, it.default if it.default is it.empty else repr(it.default))
        for it in signature.parameters.values()
        if it.name != "self"
    ]
    expected = list(parameters_of(METHODS[name]))
    assert [it[:2] for it in told] == [it[:2] for it in expected]
    for (_, _, default), (_, _, wanted) in zip(told, expected, strict=True):
        assert wanted == "..." or default == wanted


@pytest.mark.parametrize("function", [iocpcore.serve, iocpcore.run, iocpcore.backends])
def test_functions_have_signatures_too(function):
    assert inspect.signature(function)


def test_the_stubs_methods_are_found():
    wanted = {"listen", "connect", "adopt", "post", "poll", "close", "stats", "__init__"}
    assert wanted == {name.partition(".")[2] for name in METHODS if name.startswith("Proactor.")}
    assert "Session.send" in METHODS


# ---- life and death ----


def test_a_closed_proactor_says_so(backend):
    proactor = iocpcore.Proactor(1, backend)
    proactor.close()
    with pytest.raises(RuntimeError, match="closed"):
        proactor.listen(iocpcore.ECHO)
    with pytest.raises(RuntimeError, match="closed"):
        iocpcore.Load().start(proactor, "127.0.0.1", 9)


def test_closing_a_listener_after_its_proactor_does_nothing(backend):
    proactor = iocpcore.Proactor(1, backend)
    listener = proactor.listen(iocpcore.ECHO)
    proactor.close()
    listener.close()
    assert_nothing_left(proactor)


def test_workers_are_visible_named_daemon_threads(backend):
    with iocpcore.Proactor(2, backend):
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("iocpcore-worker-")]
        assert [thread.name for thread in workers] == ["iocpcore-worker-0", "iocpcore-worker-1"]
        assert all(thread.daemon for thread in workers)
    assert not any(thread.name.startswith("iocpcore-worker-") for thread in threading.enumerate())


def test_the_package_is_the_installed_one():
    assert iocpcore.__file__ is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+", iocpcore.__version__)


# ---- the GIL ----


def test_an_echo_comes_back_while_the_gil_is_held(echo, connect):
    """A receive called through ctypes.PyDLL keeps the GIL: only a worker without it can make it return."""
    peer = connect(echo)
    peer.settimeout(None)
    seconds = b"\x10\x27\x00\x00" if sys.platform == "win32" else (10).to_bytes(8, "little") + bytes(8)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    recv = (ctypes.PyDLL("ws2_32") if sys.platform == "win32" else ctypes.PyDLL(None)).recv
    handle = ctypes.c_size_t if sys.platform == "win32" else ctypes.c_int
    recv.argtypes = [handle, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    answer = ctypes.create_string_buffer(16)
    peer.sendall(b"no GIL")
    assert recv(peer.fileno(), answer, 16, 0) == 6
    assert answer.value == b"no GIL"


# ---- the interpreter's end, signals, fork ----

BEGIN = "import iocpcore, socket, signal, threading, time\n"


def test_leaving_the_interpreter_without_close_neither_hangs_nor_crashes(backend):
    run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(2, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
peer = socket.create_connection(listener.address, timeout=30)
peer.sendall(b"x" * 100000)
assert peer.recv(1)
"""
    )


SHOW_WARNINGS = """
import warnings
warnings.simplefilter("always")
warnings.showwarning = lambda message, category, *rest, **options: print(category.__name__, message, flush=True)
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_proactor_that_nobody_closed_is_warned_of_when_the_interpreter_ends(backend, workers):
    output = run_python(
        BEGIN
        + SHOW_WARNINGS
        + f"""
closed = iocpcore.Proactor({workers}, {backend!r})
closed.close()
with iocpcore.Proactor({workers}, {backend!r}):
    pass
proactor = iocpcore.Proactor({workers}, {backend!r})
proactor.listen(iocpcore.ECHO)
print(proactor, flush=True)
"""
    )
    name, warning = output.splitlines()
    assert warning == f"ResourceWarning unclosed proactor {name}"


def test_where_warnings_are_errors_every_proactor_that_nobody_closed_is_closed_all_the_same(backend):
    output = run_python(
        BEGIN
        + f"""
import sys
sys.unraisablehook = lambda info: print(type(info.exc_value).__name__, flush=True)
class Note:
    def on_close(self, session, error):
        print("closed", flush=True)
proactors = [iocpcore.Proactor(1, {backend!r}) for _ in range(2)]
peers = [socket.create_connection(proactor.listen(Note()).address) for proactor in proactors]
while sum(proactor.stats().active for proactor in proactors) < 2:
    time.sleep(0.01)
""",
        PYTHONWARNINGS="error::ResourceWarning",
    )
    # What follows, when all was closed, is about the sockets.
    assert sorted(output.splitlines()[:4]) == ["ResourceWarning"] * 2 + ["closed"] * 2


def test_an_exception_that_ends_the_program_does_not_hang_it(backend):
    output = run_python(
        BEGIN
        + f"""
import sys
sys.excepthook = lambda *info: (print("died of", info[0].__name__), sys.stdout.flush())
sys.unraisablehook = print
def main():
    proactor = iocpcore.Proactor(2, {backend!r})
    proactor.listen(iocpcore.ECHO)
    raise LookupError
try:
    main()
except LookupError:
    print("died")
"""
    )
    assert output.strip() == "died"


def test_an_interrupt_ends_a_wait_for_a_load(backend):
    """signal.raise_signal from another thread is what Ctrl+C does, on both systems."""
    output = run_python(
        BEGIN
        + f"""
silent = socket.create_server(("127.0.0.1", 0))    # never answers
load = iocpcore.Load(connections=1, messages=1)
with iocpcore.Proactor(1, {backend!r}) as proactor:
    load.start(proactor, *silent.getsockname())
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    try:
        load.wait()
    except KeyboardInterrupt:
        print("interrupted")
    proactor.close(0)
"""
    )
    assert output.strip() == "interrupted"


def test_an_interrupt_ends_a_close_that_waits_and_a_second_close_ends_it(backend):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(1, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
peer = socket.create_connection(listener.address)
peer.sendall(b"x"); peer.recv(1)
threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
try:
    proactor.close(1000)        # the peer never ends
except KeyboardInterrupt:
    print("interrupted")
peer.close()
proactor.close()
print(proactor.stats().active)
"""
    )
    assert output.split() == ["interrupted", "0"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGBREAK"])
def test_serve_ends_on_a_signal_and_drains(backend, name):
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    output = run_python(
        BEGIN
        + f"""
def started(listener):
    peer = socket.create_connection(listener.address)
    peer.sendall(b"x"); peer.recv(1); peer.close()
    threading.Timer(0.1, signal.raise_signal, [signal.{name}]).start()
before = signal.getsignal(signal.{name})
stats = iocpcore.serve(iocpcore.ECHO, backend={backend!r}, started=started)
assert signal.getsignal(signal.{name}) == before
print(stats.bytes_sent, stats.active)
"""
    )
    assert output.split() == ["1", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_is_told_to_make_its_own_proactor(backend):
    output = run_python(
        BEGIN
        + f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)    # newer Pythons dislike a fork with threads, and are right
proactor = iocpcore.Proactor(1, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
child = os.fork()
if child == 0:
    for use in (lambda: proactor.listen(iocpcore.ECHO), proactor.close, listener.close,
                lambda: iocpcore.run(proactor, started=lambda: sys.exit(1))):
        try:
            use()
        except RuntimeError as error:
            print(error, flush=True)
    with iocpcore.Proactor(1, {backend!r}) as own:
        peer = socket.create_connection(own.listen(iocpcore.ECHO).address, timeout=30)
        peer.sendall(b"child"); print(peer.recv(5), flush=True)
        peer.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
peer = socket.create_connection(listener.address, timeout=30)
peer.sendall(b"parent"); print(peer.recv(6))
peer.close()
proactor.close()
"""
    )
    lines = output.splitlines()
    assert len(lines) == 6
    assert all("belongs to the parent process" in line for line in lines[:4])
    assert lines[4:] == ["b'child'", "b'parent'"]


def test_serve_refuses_a_wrong_drain_time_before_it_serves():
    with pytest.raises(TypeError, match="drain"):
        iocpcore.serve(iocpcore.ECHO, drain="1")


def test_serve_takes_the_options_of_listen(backend):
    with pytest.raises(ValueError, match="when_full"):
        iocpcore.serve(iocpcore.ECHO, backend=backend, when_full="perhaps")


def test_what_has_no_workers_is_not_served(backend):
    with pytest.raises(ValueError, match="call its poll"):
        iocpcore.serve(iocpcore.ECHO, workers=0, backend=backend)


def test_run_wants_a_proactor():
    with pytest.raises(TypeError, match="takes a Proactor, not Handler"):
        iocpcore.run(iocpcore.ECHO)


@pytest.mark.parametrize("workers, drain", [(0, 1.0), (1, -1.0)])
def test_run_refuses_before_it_says_that_the_server_runs(backend, workers, drain):
    said = []
    with iocpcore.Proactor(workers, backend) as proactor, pytest.raises(ValueError):
        iocpcore.run(proactor, drain=drain, started=lambda: said.append("it runs"))
    assert said == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_proactor_knows_how_many_workers_it_was_made_with(backend, workers):
    with iocpcore.Proactor(workers, backend) as proactor:
        assert proactor.workers == workers


def test_run_serves_all_listeners_until_a_signal(backend):
    output = run_python(
        BEGIN
        + f"""
with iocpcore.Proactor(2, {backend!r}) as proactor:
    listeners = [proactor.listen(iocpcore.ECHO) for _ in range(2)]
    def meet():
        for listener in listeners:
            assert listener.proactor is proactor
            with socket.create_connection(listener.address, timeout=30) as peer:
                peer.sendall(b"x"); peer.recv(1)
        signal.raise_signal(signal.SIGINT)
    stats = iocpcore.run(proactor, started=threading.Thread(target=meet).start)
print(stats.bytes_sent, stats.active)
"""
    )
    assert output.split() == ["2", "0"]


def test_a_second_interrupt_ends_the_drain_of_serve(backend):
    output = run_python(
        BEGIN
        + f"""
def started(listener):
    global peer
    peer = socket.create_connection(listener.address)
    peer.sendall(b"x"); peer.recv(1)        # it never ends, and the drain would last long
    def interrupt():
        signal.raise_signal(signal.SIGINT)
        done.wait(0.3)
        signal.raise_signal(signal.SIGINT)
    done = threading.Event()
    threading.Timer(0.1, interrupt).start()
try:
    iocpcore.serve(iocpcore.ECHO, backend={backend!r}, started=started, drain=1000)
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert output.strip() == "interrupted"


def test_signals_that_come_while_serve_waits_never_hang_it(backend):
    """The handler runs in the thread that waits: it may find any lock of that wait taken."""
    output = run_python(
        BEGIN
        + """
from iocpcore._serve import StopSignals
import time
for turn in range(200):
    with StopSignals() as signals:
        timer = threading.Timer(0.0005 * (turn % 7), signal.raise_signal, [signal.SIGINT])
        timer.start()
        assert signals.wait(30)
        timer.join()
print("woken")
"""
    )
    assert output.strip() == "woken"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_an_interrupt_while_a_proactor_is_made_leaves_no_worker_on_freed_memory(backend):
    output = run_python(
        BEGIN
        + f"""
made = interrupted = 0
for microseconds in range(10, 3000, 10):
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
        with iocpcore.Proactor(2, {backend!r}) as proactor:
            signal.setitimer(signal.ITIMER_REAL, 0)
            proactor.close(0)
            made += 1
    except (KeyboardInterrupt, RuntimeError):   # Thread.start() itself may then say that a lock of its own is not held
        interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
print(made + interrupted)
"""
    )
    assert output.strip() == "299"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_may_close_what_it_inherited_and_get_the_numbers_anew(backend):
    output = run_python(
        BEGIN
        + f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
proactor = iocpcore.Proactor(1, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
peers = [socket.create_connection(listener.address, timeout=30) for _ in range(20)]
for peer in peers:
    peer.sendall(b"x"); peer.recv(1)
child = os.fork()
if child == 0:
    os.closerange(3, 1000)
    with iocpcore.Proactor(1, {backend!r}) as own:
        load = iocpcore.Load(connections=20, messages=5)
        load.start(own, "127.0.0.1", own.listen(iocpcore.ECHO).port)
        assert load.wait(30)
        print(load.result()["errors"], flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert output.strip() == "0"


WITH_HOLDER = (
    BEGIN
    + """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
def fork_a_holder():
    begin, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on)
        os.read(begin, 1)   # holds all that we have until we have gone on, or ended
        os._exit(0)
    return go_on, child
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("idle_timeout", [None, 1.0], ids=["the peer has ended", "idle"])
def test_a_peer_sees_the_end_of_its_connection_though_a_forked_child_holds_it_too(backend, idle_timeout):
    output = run_python(
        WITH_HOLDER
        + f"""
with iocpcore.Proactor(1, {backend!r}) as proactor:
    listener = proactor.listen(iocpcore.ECHO, idle_timeout={idle_timeout})
    peer = socket.create_connection(listener.address, timeout=10)
    peer.sendall(b"x"); peer.recv(1)
    go_on, child = fork_a_holder()
    if not {idle_timeout}:
        peer.shutdown(socket.SHUT_WR)
    print(peer.recv(1))
    os.close(go_on)
    assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert output.strip() == "b''"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_peer_sees_an_abort_though_a_forked_child_holds_the_connection_too(backend):
    output = run_python(
        WITH_HOLDER
        + f"""
class Aborting:
    def on_receive(self, session, data):
        if data == b"abort":
            session.abort()
        else:
            session.send(data)
with iocpcore.Proactor(1, {backend!r}) as proactor:
    peer = socket.create_connection(proactor.listen(Aborting()).address, timeout=10)
    peer.sendall(b"x"); peer.recv(1)
    go_on, child = fork_a_holder()
    peer.sendall(b"abort")
    try:
        peer.recv(1)
    except ConnectionResetError:
        print("reset")
    os.close(go_on)
    assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert output.strip() == "reset"


@pytest.mark.uninstrumented  # a sanitizer reports it in its own way
@pytest.mark.skipif(sys.platform == "win32", reason="SIGSEGV is delivered in another way there")
def test_a_fault_in_a_worker_is_reported(backend):
    """A thread that blocked SIGSEGV would end the process without a word."""
    program = (
        BEGIN
        + f"""
import faulthandler, os
faulthandler.enable()
proactor = iocpcore.Proactor(1, {backend!r})
worker = next(thread for thread in threading.enumerate() if thread.name.startswith("iocpcore"))
signal.pthread_kill(worker.ident, signal.SIGSEGV)
threading.Event().wait(30)
"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr


# ---- close() from several sides ----


@pytest.fixture
def closes_while_it_resolves(backend, monkeypatch):
    """A proactor that another thread, so to speak, closes within getaddrinfo()."""
    proactor = iocpcore.Proactor(1, backend)
    resolve = socket.getaddrinfo

    def slow(*arguments, **options):
        proactor.close()
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    return proactor


def test_closing_while_a_load_resolves_its_host_is_an_error(closes_while_it_resolves):
    with pytest.raises(RuntimeError, match="closed"):
        iocpcore.Load(connections=1).start(closes_while_it_resolves, "127.0.0.1", 9)


def test_closing_while_a_listener_resolves_its_host_is_an_error(closes_while_it_resolves):
    handles = open_handles()
    with pytest.raises(RuntimeError, match="closed"):
        closes_while_it_resolves.listen(iocpcore.ECHO)
    assert open_handles() <= handles


def closes_its(proactor):
    """A handler that closes the proactor when it is asked for its callbacks."""

    class Handler:
        @property
        def on_receive(self):
            proactor.close()
            return print

    return Handler()


def test_a_handler_that_closes_the_proactor_it_is_given_to_is_refused(backend):
    proactor = iocpcore.Proactor(1, backend)
    with pytest.raises(RuntimeError, match="closed"):
        proactor.listen(closes_its(proactor))


def test_a_handler_that_closes_the_proactor_that_adopts_is_refused_and_the_socket_stays_its_owners(backend):
    proactor = iocpcore.Proactor(1, backend)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        with pytest.raises(RuntimeError, match="closed"):
            proactor.adopt(closes_its(proactor), sock)
        assert sock.fileno() >= 0


def closing_socket(proactor, name, how):
    """A class of sockets that closes the proactor when that attribute is asked for."""

    def close():
        if how == "signal":
            signal.raise_signal(signal.SIGINT)
        else:
            proactor.close(0)

    class Socket(socket.socket):
        def __getattribute__(self, asked):
            if asked == name:
                close()
            return super().__getattribute__(asked)

    return Socket


@pytest.fixture
def interrupted(backend):
    """A proactor that a signal's handler closes."""
    proactor = iocpcore.Proactor(1, backend)
    before = signal.signal(signal.SIGINT, lambda *_: proactor.close(0))
    yield proactor
    signal.signal(signal.SIGINT, before)
    proactor.close(0)
    assert_nothing_left(proactor)


HOWS = ["close", "signal"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["type", "family", "getsockname", "getpeername", "getsockopt"])
def test_a_proactor_that_closes_while_a_given_socket_is_asked_listens_no_more(interrupted, name, how):
    with closing_socket(interrupted, name, how)() as sock:
        sock.bind(("127.0.0.1", 0))
        number = sock.fileno()
        with pytest.raises(RuntimeError, match="closed"):
            interrupted.listen(iocpcore.ECHO, sock=sock)
        assert sock.fileno() == number  # its owner's
        socket.socket.getsockname(sock)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["setsockopt", "bind", "listen", "getsockname", "family"])
def test_a_proactor_that_closes_while_its_listening_socket_is_made_keeps_none(interrupted, monkeypatch, name, how):
    handles = open_handles()
    monkeypatch.setattr(socket, "socket", closing_socket(interrupted, name, how))
    with pytest.raises(RuntimeError, match="closed"):
        interrupted.listen(iocpcore.ECHO)
    assert open_handles() <= handles


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["setsockopt", "bind"])
def test_a_proactor_that_closes_while_the_socket_to_connect_is_made_keeps_none(interrupted, monkeypatch, name, how):
    handles = open_handles()
    monkeypatch.setattr(socket, "socket", closing_socket(interrupted, name, how))
    with pytest.raises(RuntimeError, match="closed"):
        interrupted.connect(Ending(), "127.0.0.1", 9, local_address=("127.0.0.1", 0))
    assert open_handles() <= handles


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["type", "family", "getpeername"])
def test_a_proactor_that_closes_while_a_connected_socket_is_asked_adopts_nothing(interrupted, name, how):
    with socket.create_server(("127.0.0.1", 0)) as server, closing_socket(interrupted, name, how)() as sock:
        sock.connect(server.getsockname())
        number = sock.fileno()
        with pytest.raises(RuntimeError, match="closed"):
            interrupted.adopt(iocpcore.ECHO, sock)
        assert sock.fileno() == number
        socket.socket.getpeername(sock)


class Garbage:
    """Part of a cycle: the collector calls its finalizer, at any allocation."""

    def __init__(self, finalizer):
        self.finalizer = finalizer
        self.itself = self

    def __del__(self):
        self.finalizer()


@contextlib.contextmanager
def collecting_after(allocations, finalizer):
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        Garbage(finalizer)
        gc.set_threshold(gc.get_count()[0] + allocations)
        gc.enable()
        yield
    finally:
        gc.set_threshold(*before)
        gc.enable()


CALLS = {
    "listen": lambda proactor, address: proactor.listen(iocpcore.ECHO),
    "connect": lambda proactor, address: proactor.connect(Ending(), *address),
    "adopt": lambda proactor, address: proactor.adopt(Ending(), socket.create_connection(address)),
    "post": lambda proactor, address: proactor.post(print),
    "poll": lambda proactor, address: proactor.poll(0),
    "start": lambda proactor, address: iocpcore.Load(1, 1).start(proactor, *address),
    "stats": lambda proactor, address: proactor.stats(),
    "close": lambda proactor, address: proactor.close(0),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_finalizer_that_closes_the_proactor_anywhere_within_a_call_harms_nothing(backend, call):
    with socket.create_server(("127.0.0.1", 0)) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a socket that adopt() has not taken is its owner's
        handles = []
        for _ in range(2):  # what the first round opens once and keeps is no leak: one handle, under wine 8
            for allocations in range(1, 50):
                proactor = iocpcore.Proactor(0, backend)
                with (
                    collecting_after(allocations, functools.partial(proactor.close, 0)),
                    contextlib.suppress(RuntimeError, OSError),
                ):
                    CALLS[call](proactor, server.getsockname())
                proactor.close(0)
                assert_nothing_left(proactor)
            gc.collect()
            handles.append(open_handles())
        assert handles[1] <= handles[0]


def test_a_load_that_is_started_while_it_resolves_its_host_starts_once(proactor, echo, monkeypatch):
    load = iocpcore.Load(connections=1, messages=1)
    resolve = socket.getaddrinfo

    def slow(*arguments, **options):
        monkeypatch.undo()
        load.start(proactor, "127.0.0.1", echo.port)
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(RuntimeError, match="once"):
        load.start(proactor, "127.0.0.1", echo.port)
    assert load.wait(WAIT)
    assert load.result()["echoes"] == 1


def test_a_load_that_python_makes_itself_cannot_be_started(proactor):
    with pytest.raises(RuntimeError, match="__init__"):
        iocpcore.Load.__new__(iocpcore.Load).start(proactor, "127.0.0.1", 9)


def test_a_listener_that_python_makes_itself_is_a_closed_one():
    iocpcore.Listener.__new__(iocpcore.Listener).close()


def test_a_listener_is_made_by_listen_only():
    with pytest.raises(TypeError, match="Proactor.listen"):
        iocpcore.Listener()


def test_two_threads_may_close_at_once(backend, connect):
    proactor = iocpcore.Proactor(2, backend)
    peer = connect(proactor.listen(iocpcore.ECHO))
    until(lambda: proactor.stats().active == 1)
    closers = [threading.Thread(target=proactor.close, args=(WAIT,)) for _ in range(4)]
    for closer in closers:
        closer.start()
    assert receive_exactly(peer, 1) == b""
    peer.close()
    for closer in closers:
        closer.join(WAIT)
        assert not closer.is_alive()
    assert_nothing_left(proactor)


# ---- workers that never ran, or never came back ----


@pytest.fixture
def held_back(backend):
    """A proactor whose worker has not begun, as when the system is busy, and does not before the test is over."""
    begin = threading.Event()

    def wait_in_run(frame, event, argument):
        if frame.f_code.co_name == "run":
            begin.wait(WAIT)

    before = threading.gettrace()
    threading.settrace(wait_in_run)
    proactor = iocpcore.Proactor(1, backend)
    threading.settrace(before)
    yield proactor
    proactor.close()
    begin.set()


def test_what_was_posted_to_a_worker_that_never_ran_is_called(held_back):
    done = []
    held_back.post(done.append, 1)
    held_back.close()
    assert done == [1]


def test_a_load_of_a_worker_that_never_ran_is_over(held_back):
    load = iocpcore.Load(connections=2, messages=1)
    load.start(held_back, "127.0.0.1", 9)
    held_back.close()
    assert load.wait(WAIT)
    assert load.result()["errors"] == 2


def test_what_a_worker_that_never_ran_does_at_its_end_is_counted(held_back):
    iocpcore.Load(connections=2, messages=1).start(held_back, "127.0.0.1", 9)
    held_back.post(list)
    held_back.close()
    stats = held_back.stats()
    assert (stats.connect_failures, stats.callbacks) == (2, 1)


def test_a_listener_of_a_worker_that_never_ran_is_refused_and_closes_its_own_socket_only(held_back):
    errors = []

    def listen():
        try:
            held_back.listen(iocpcore.ECHO, sock=sock)
        except (OSError, RuntimeError) as error:
            errors.append(error)

    os.fstat(0)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        thread = threading.Thread(target=listen)
        thread.start()
        until(lambda: sock.fileno() == -1)  # it was handed over
        held_back.close()
        thread.join(WAIT)
        assert len(errors) == 1
        with pytest.raises(OSError):
            socket.create_connection(address, timeout=5)
    os.fstat(0)


def test_two_threads_may_close_while_one_tells_what_never_came_to_be(held_back):
    telling, go_on = threading.Event(), threading.Event()

    class Handler:
        def on_close(self, session, error):
            telling.set()
            go_on.wait(WAIT)

    held_back.connect(Handler(), "127.0.0.1", 9)
    closer = threading.Thread(target=held_back.close)
    closer.start()
    assert telling.wait(WAIT)
    held_back.close()
    go_on.set()
    closer.join(WAIT)
    assert not closer.is_alive()


LEFT_BEHIND = """
iocpcore._core.MARGIN = 0.1
leave, waits = threading.Event(), threading.Event()
def stay():
    waits.set()
    leave.wait(30)
    raise SystemExit(3)
"""


def test_what_a_worker_that_was_left_behind_raises_harms_nobody(backend):
    output = run_python(
        BEGIN
        + LEFT_BEHIND
        + f"""
proactor = iocpcore.Proactor(1, {backend!r})
worker = next(thread for thread in threading.enumerate() if thread.name.startswith("iocpcore"))
proactor.post(stay)
waits.wait(30)
try:
    proactor.close(0)
except RuntimeError as error:
    print(error)
leave.set()
worker.join(30)
print(worker.is_alive())
"""
    )
    assert output.splitlines()[1] == "False" and "worker 0 is in a function that was posted, stay" in output


def test_listening_ends_when_the_worker_is_left_behind(backend):
    output = run_python(
        BEGIN
        + LEFT_BEHIND
        + f"""
proactor = iocpcore.Proactor(1, {backend!r})
proactor.post(stay)
waits.wait(30)
sock = socket.create_server(("127.0.0.1", 0))
def listen():
    try:
        proactor.listen(iocpcore.ECHO, sock=sock)
    except RuntimeError as error:
        print(error)
listener = threading.Thread(target=listen)
listener.start()
while sock.fileno() != -1:  # until it was handed over
    time.sleep(0.001)
try:
    proactor.close(0)
except RuntimeError:
    pass
listener.join(30)
leave.set()
"""
    )
    assert output.strip() == "the proactor is closed"


# ---- a fork in a callback ----

FORKS = """
import os, socket, warnings, sys
warnings.simplefilter("ignore", DeprecationWarning)    # newer Pythons dislike a fork with threads, and are right
children = []
class Echo:
    def on_receive(self, session, data):
        if data == b"fork":
            child = os.fork()
            if child == 0:
                return
            children.append(child)
        session.send(data)
def talk(peer, data):
    peer.sendall(data)
    return peer.recv(100)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_that_a_callback_has_forked_does_not_serve_when_the_callback_returns(backend):
    output = run_python(
        BEGIN
        + FORKS
        + f"""
with iocpcore.Proactor(1, {backend!r}) as proactor:
    with socket.create_connection(proactor.listen(Echo()).address, timeout=30) as peer:
        print(talk(peer, b"fork"))
        os.waitpid(children[0], 0)
        print(talk(peer, b"parent"))
"""
    )
    assert output.splitlines() == ["b'fork'", "b'parent'"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_poll_says_that_the_proactor_is_the_parents_when_a_callback_has_forked(backend):
    output = run_python(
        BEGIN
        + FORKS
        + f"""
proactor = iocpcore.Proactor(0, {backend!r})
with socket.create_connection(proactor.listen(Echo()).address, timeout=30) as peer:
    peer.sendall(b"fork")
    try:
        while not children:
            proactor.poll(30)
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(0)
    os.waitpid(children[0], 0)
    proactor.poll(0)
    print(peer.recv(100))
    peer.close()
    proactor.close()
"""
    )
    lines = output.splitlines()
    assert "belongs to the parent process" in lines[0]
    assert lines[1:] == ["b'fork'"]


# ---- what was never closed, and what could not be made ----


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_that_ends_in_order_leaves_what_its_parent_polls_alone(backend):
    output = run_python(
        BEGIN
        + f"""
import os, sys
proactor = iocpcore.Proactor(0, {backend!r})
listener = proactor.listen(iocpcore.ECHO)
peer = socket.create_connection(listener.address, timeout=30)
while not proactor.stats().active:
    proactor.poll(30)
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
peer.sendall(b"x")
while not proactor.stats().bytes_sent:
    proactor.poll(30)
print(peer.recv(1))
peer.close()
proactor.close()
"""
    )
    assert output.splitlines() == ["7", "b'x'"]


def test_the_interpreter_ends_in_order_though_the_thread_that_polled_did_not_close(backend):
    output = run_python(
        BEGIN
        + f"""
proactor = iocpcore.Proactor(0, {backend!r})
def poll():
    listener = proactor.listen(iocpcore.ECHO)
    peers.append(socket.create_connection(listener.address))
    while not proactor.stats().active:
        proactor.poll(30)
peers = []
poller = threading.Thread(target=poll)
poller.start()
poller.join()
print("ended")
"""
    )
    assert output.strip() == "ended"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of handles to set")
def test_a_proactor_that_could_not_be_made_is_a_closed_one(backend):
    output = run_python(
        BEGIN
        + f"""
import os, resource
class Many(iocpcore.Proactor):
    def __init__(self):
        try:
            super().__init__(50, {backend!r})
        except OSError as error:
            print(error.errno == 24)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
before = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 8, limits[1]))
many = Many()
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
print(len(os.listdir("/proc/self/fd")) - len(before))
for use in (lambda: many.post(print, worker=40), lambda: many.listen(iocpcore.ECHO)):
    try:
        use()
    except RuntimeError as error:
        print(error)
print(many.stats().active)
many.close()
"""
    )
    assert output.splitlines() == ["True", "0", "the proactor is closed", "the proactor is closed", "0"]


def test_numbers_of_workers_that_change_while_listening_are_those_that_were_given(backend):
    output = run_python(
        BEGIN
        + f"""
class Numbers(list):
    def __getitem__(self, i):
        return 1 << 30
with iocpcore.Proactor(2, {backend!r}) as proactor:
    print(proactor.listen(iocpcore.ECHO, workers=Numbers([1])).port > 0)
"""
    )
    assert output.strip() == "True"
