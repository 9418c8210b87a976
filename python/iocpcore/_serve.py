"""serve(): the shortest way to a running server."""

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from ._core import Handler, Listener, Proactor

if TYPE_CHECKING:
    from ._core import _Stats

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGBREAK") if (number := getattr(signal, name, None)) is not None]


class StopSignals:
    """While it is entered, a signal that asks the process to end sets `stop` instead, if this is the main thread."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self.previous.items():
            # None: it was not installed from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def on_signal(self, number: int, frame: object) -> None:
        self.stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Until a signal has come, at most so long; whether one has.

        In slices, because a wait for a lock is not interrupted on Windows.
        """
        while seconds is None or seconds > 0:
            if self.stop.wait(0.1 if seconds is None else min(seconds, 0.1)):
                return True
            if seconds is not None:
                seconds -= 0.1
        return self.stop.is_set()


def serve(
    handler: Handler,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    workers: int = 1,
    backend: str | None = None,
    drain: float = 1.0,
    started: Callable[[Listener], object] | None = None,
) -> "_Stats":
    """Serve until Ctrl+C, SIGTERM or SIGBREAK, then let sessions finish for `drain` seconds.

    started: called with the Listener when it accepts connections. Arguments and errors are else those of Proactor and
    Proactor.listen(). Returns the statistics.
    """
    with StopSignals() as signals:
        proactor = Proactor(workers, backend)
        try:
            listener = proactor.listen(handler, host, port)
            if started is not None:
                started(listener)
            signals.wait()
        finally:
            proactor.close(drain)
    return proactor.stats()
