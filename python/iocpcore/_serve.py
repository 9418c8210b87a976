"""serve(): the shortest way to a running server."""

import functools
import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from ._core import Listener, Proactor, check_seconds
from ._stats import Stats

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGBREAK") if (number := getattr(signal, name, None)) is not None]


class StopSignals:
    """While it is entered, a signal that asks the process to end is noted instead, if this is the main thread.

    A plain attribute and sleeps in slices: a threading.Event would be set by the handler in the very thread that may
    hold its lock, and a wait for a lock is not interrupted on Windows at all.
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
        """Signals do from now on what they did before."""
        while self.previous:
            number, handler = self.previous.popitem()
            # None: it was not installed from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def on_signal(self, number: int, frame: object) -> None:
        self.stopped = True

    def wait(self, seconds: float = math.inf) -> bool:
        """Until a signal has come, at most so long; whether one has."""
        deadline = time.monotonic() + seconds
        while not self.stopped and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.stopped


def check_callable(name: str, given: object) -> None:
    """TypeError unless it can be called, or is None."""
    if given is not None and not callable(given):
        raise TypeError(f"{name} must be a function, not {type(given).__name__}")


def run(proactor: Proactor, *, drain: float = 1.0, started: Callable[[], object] | None = None) -> Stats:
    """Wait for Ctrl+C, SIGTERM or SIGBREAK, or until something closes the proactor, then close it.

    Sessions have `drain` seconds to finish; another signal ends that too. In another thread than the main one only the
    second ends it, for signals are the main thread's. started: called once a signal does all that: the moment to say
    that the server runs. Returns the statistics.

    Raises ValueError for a proactor without workers: that one is polled; RuntimeError for one of the process that has
    forked this one. What a callback has raised to stop the proactor (SystemExit, KeyboardInterrupt) is raised again
    here.
    """
    if not isinstance(proactor, Proactor):
        raise TypeError(f"run() wants a Proactor, not {type(proactor).__name__}; serve() makes one itself")
    check_callable("started", started)
    return _run(proactor, drain, started)


def _run(proactor: Proactor, drain: float, started: Callable[[], object] | None) -> Stats:
    check_seconds("drain", drain)
    if proactor.workers == 0:
        raise ValueError("a proactor without workers is polled, not run")
    proactor.stats()  # RuntimeError in a child that was forked: nothing there would ever end the wait
    with StopSignals() as signals:
        if started is not None:
            started()
        while not signals.wait(0.1) and not proactor.closing:
            pass
        signals.restore()  # another one ends this too
        proactor.close(drain)
        return proactor.stats()


def serve(
    handler: object,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    workers: int = 1,
    backend: str | None = None,
    drain: float = 1.0,
    started: Callable[[Listener], object] | None = None,
    **options: Any,
) -> Stats:
    """Serve until Ctrl+C, SIGTERM or SIGBREAK, as run() does with a proactor of its own.

    started: called with the Listener when it accepts connections. options: all others of Proactor.listen(). Errors are
    those of Proactor, Proactor.listen() and run(). Returns the statistics.
    """
    check_seconds("drain", drain)
    check_callable("started", started)
    with Proactor(workers, backend) as proactor:
        listener = proactor.listen(handler, host, port, **options)
        return _run(proactor, drain, None if started is None else functools.partial(started, listener))
