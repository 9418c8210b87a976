"""run() and serve(): servers that run until a signal."""

import functools
import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Self, Unpack

from ._core import Listener, Proactor, check_seconds
from ._handlers import AnyHandler
from ._options import ServeOptions
from ._stats import Stats

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGBREAK") if (number := getattr(signal, name, None)) is not None]


class StopSignals:
    """In its `with`, a signal that would end the process only sets `stopped`. Works in the main thread alone.

    It uses a plain attribute and short sleeps, not a threading.Event: the signal handler would set the event in the
    same thread that may hold its lock, and on Windows no signal interrupts a wait for a lock.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the previous signal handlers back."""
        while self.previous:
            number, handler = self.previous.popitem()
            # None: the handler was not installed from Python, so Python cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def on_signal(self, number: int, frame: object) -> None:
        self.stopped = True

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait for a signal, at most that long. Returns whether one has come."""
        deadline = time.monotonic() + seconds
        while not self.stopped and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.stopped


def check_callable(name: str, given: object) -> None:
    """Raise TypeError unless it is callable or None."""
    if given is not None and not callable(given):
        raise TypeError(f"{name} must be a function, not {type(given).__name__}")


def run(proactor: Proactor, *, drain: float = 1.0, started: Callable[[], object] | None = None) -> Stats:
    """Wait for Ctrl+C, SIGTERM or SIGBREAK, or until something closes the proactor, then close it.

    Sessions have `drain` seconds to finish; a second signal ends the drain too. Python delivers signals to the main
    thread only: in any other thread run() waits until something closes the proactor. started: called when signals are
    handled, which is the moment to say that the server runs. Returns the statistics.

    Raises ValueError for a proactor without workers, which must be polled, and RuntimeError for a proactor that belongs
    to the parent process. If a callback stopped the proactor with SystemExit or KeyboardInterrupt, raises that
    exception again.
    """
    if not isinstance(proactor, Proactor):
        raise TypeError(f"run() takes a Proactor, not {type(proactor).__name__}; serve() makes one itself")
    check_callable("started", started)
    return _run(proactor, drain, started)


def _run(proactor: Proactor, drain: float, started: Callable[[], object] | None) -> Stats:
    check_seconds("drain", drain)
    if proactor.workers == 0:
        raise ValueError("a proactor without workers has no threads to run: call its poll()")
    proactor.stats()  # RuntimeError in a forked child, where nothing would ever end the wait
    with StopSignals() as signals:
        if started is not None:
            started()
        while not signals.wait(0.1) and not proactor.closing:
            pass
        signals.restore()  # a second signal ends the drain
        proactor.close(drain)
        return proactor.stats()


def serve(
    handler: AnyHandler,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    workers: int = 1,
    backend: str | None = None,
    drain: float = 1.0,
    started: Callable[[Listener], object] | None = None,
    **options: Unpack[ServeOptions],
) -> Stats:
    """Make a proactor, listen, and run() until Ctrl+C, SIGTERM or SIGBREAK.

    started: called with the Listener when it accepts connections. options: those of `Options`, and these arguments of
    Proactor.listen(): sock, shared, backlog, max_sessions and when_full.
    Raises what Proactor, Proactor.listen() and run() raise. Returns the statistics.
    """
    check_seconds("drain", drain)
    check_callable("started", started)
    for name in options:
        if name not in ServeOptions.__optional_keys__:  # listen() would refuse it too, but name itself
            raise TypeError(f"serve() got an unexpected keyword argument {name!r}")
    with Proactor(workers, backend) as proactor:
        listener = proactor.listen(handler, host, port, **options)
        return _run(proactor, drain, None if started is None else functools.partial(started, listener))
