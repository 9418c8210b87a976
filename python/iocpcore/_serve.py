"""serve(): the shortest way to a running server."""

import signal
import threading

from ._core import Proactor

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGBREAK") if (number := getattr(signal, name, None)) is not None]


class StopSignals:
    """While it is entered, a signal that asks the process to end sets `stop` instead; only the main thread can do so."""

    def __init__(self):
        self.stop = threading.Event()

    def __enter__(self):
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def on_signal(self, number, frame):
        self.stop.set()

    def wait(self, seconds=None):
        """Until a signal has come, at most so long; whether one has.

        In slices, because a wait for a lock is not interrupted on Windows.
        """
        while seconds is None or seconds > 0:
            if self.stop.wait(0.1 if seconds is None else min(seconds, 0.1)):
                return True
            if seconds is not None:
                seconds -= 0.1
        return self.stop.is_set()


def serve(handler, host="127.0.0.1", port=0, *, workers=1, backend=None, drain=1.0, started=None):
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
