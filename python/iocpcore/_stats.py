"""Statistics: frozen snapshots, and the meaning of every field.

Only the worker itself writes its row, and publishes it when a batch of packets is over. So

    submitted == packets + inline_successes + failed_starts + in_flight

holds in every row and in the sums. in_flight is counted on its own, so the equation is a check and not a definition. A
callback sees the row of its own worker as it was before the callback's batch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)


def _counter(unit: str, meaning: str) -> Mapping[str, str]:
    """A number that only rises."""
    return {"kind": "counter", "unit": unit, "meaning": meaning}


def _gauge(unit: str, meaning: str) -> Mapping[str, str]:
    """A number of things that there are now."""
    return {"kind": "gauge", "unit": unit, "meaning": meaning}


def _documented(made: _Class) -> _Class:
    """The class, with its fields listed in its docstring."""
    lines = [f"- {each.name} ({each.metadata['unit']}): {each.metadata['meaning']}" for each in fields(Counters)]
    made.__doc__ = "\n    ".join([f"{made.__doc__}\n", *lines])
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The counts of a worker. The metadata of each field (see dataclasses.fields()) has its kind, unit and meaning."""

    # sessions
    accepted: int = field(
        metadata=_counter("connections", "Accepted; counted at the listener's worker, even if another has the session.")
    )
    accept_failures: int = field(metadata=_counter("accepts", "Failed; the listener goes on."))
    refused: int = field(
        metadata=_counter("connections", "Accepted, but closed at once: no memory, no place, or the proactor closes.")
    )
    parked: int = field(metadata=_counter("connections", "Accepted, but had to wait for a place."))
    adopted: int = field(metadata=_counter("connections", "Taken over by adopt()."))
    connected: int = field(metadata=_counter("connections", "Made by connect() or a Load."))
    connect_failures: int = field(metadata=_counter("connections", "Attempts of connect() or a Load that failed."))
    exhausted: int = field(
        metadata=_counter("operations", "Accepts and connects that failed for want of descriptors or memory.")
    )
    active: int = field(metadata=_gauge("sessions", "Now, including those that still connect or close."))
    closed_by_us: int = field(metadata=_counter("sessions", "Ended by close(), abort() or a callback that raised."))
    closed_by_peer: int = field(metadata=_counter("sessions", "Ended because the peer ended."))
    closed_by_error: int = field(metadata=_counter("sessions", "Ended by a receive or send that failed."))
    closed_by_timeout: int = field(metadata=_counter("sessions", "Ended by a timeout: idle, send or linger."))
    undrained: int = field(metadata=_counter("sockets", "Closed before all their operations had ended."))
    # bytes
    bytes_received: int = field(metadata=_counter("bytes", "Received."))
    bytes_discarded: int = field(
        metadata=_counter("bytes", "Received, but not delivered: the session was finishing, or has no on_receive.")
    )
    bytes_sent: int = field(metadata=_counter("bytes", "Taken by the system."))
    bytes_unsent: int = field(metadata=_counter("bytes", "Queued, but not sent before their session ended."))
    bytes_queued: int = field(metadata=_gauge("bytes", "Queued for sending."))
    # operations
    submitted: int = field(metadata=_counter("operations", "Handed to the system."))
    packets: int = field(metadata=_counter("operations", "Ended by a completion packet."))
    inline_successes: int = field(metadata=_counter("operations", "Succeeded at once, without a packet."))
    failed_starts: int = field(metadata=_counter("operations", "Failed at once, without a packet."))
    in_flight: int = field(metadata=_gauge("operations", "Submitted, but not ended yet."))
    cancelled: int = field(metadata=_counter("packets", "Of cancelled operations."))
    failed: int = field(metadata=_counter("packets", "Of operations that failed in any other way."))
    # the loop
    dequeues: int = field(metadata=_counter("calls", "For the next batch of packets."))
    dequeue_failures: int = field(
        metadata=_counter("calls", "For the next batch, that failed for another reason than a timeout.")
    )
    wakeups: int = field(metadata=_counter("packets", "Posted by other threads."))
    backlogs: int = field(
        metadata=_counter(
            "times", "The inbox had over 100,000 calls of other threads or 64 MiB, or a call was 5 seconds old."
        )
    )
    # Python
    attaches: int = field(metadata=_counter("times", "The GIL was taken: once a batch, or for each 64 KiB of a batch."))
    callbacks: int = field(metadata=_counter("calls", "Of handlers in Python, and of posted functions."))
    callback_errors: int = field(metadata=_counter("calls", "Callbacks that raised an exception."))
    callback_time: float = field(metadata=_counter("seconds", "In Python: with the GIL, or waiting for it."))
    # memory
    buffers_used: int = field(metadata=_gauge("buffers", "Of 16 KiB, in use."))
    buffers_spare: int = field(metadata=_gauge("buffers", "Of 16 KiB, kept for reuse."))
    sessions_spare: int = field(metadata=_gauge("sessions", "Places for sessions, kept for reuse."))

    @property
    def closed(self) -> int:
        """Sessions that have ended, for any reason."""
        return self.closed_by_us + self.closed_by_peer + self.closed_by_error + self.closed_by_timeout

    @property
    def packets_per_dequeue(self) -> float:
        """The mean size of a batch; 0.0 before the first dequeue."""
        return self.packets / self.dequeues if self.dequeues else 0.0

    @property
    def attaches_per_packet(self) -> float:
        """How often the GIL was taken for each packet; 0.0 before the first packet."""
        return self.attaches / self.packets if self.packets else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as json.dumps() takes them."""
        return asdict(self)


@_documented
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats(Counters):
    """The row of one worker, as it was after its last batch."""


@_documented
@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Counters):
    """A snapshot of a proactor: the sums over its workers, and their rows. Made by Proactor.stats()."""

    backend: str
    workers: tuple[WorkerStats, ...]  # by number


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStats:
    """A snapshot of a listener. Made by Listener.stats().

    - accepted (connections): so far.
    - refused (connections): accepted, but closed at once, as in Stats.
    - sessions: now, including those on their way to their worker.
    - max_sessions: its limit; None: none.
    """

    accepted: int
    refused: int
    sessions: int
    max_sessions: int | None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as json.dumps() takes them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats:
    """A snapshot of a session. Made by Session.stats().

    - bytes_received: including those that came while it was finishing, and were not delivered.
    - bytes_sent: taken by the system.
    - bytes_queued: taken by send(), but not by the system; after the end, those that will never be sent.

    Each number is exact. But for a moment, when a send ends, its bytes may be in both bytes_sent and bytes_queued.
    """

    bytes_received: int
    bytes_sent: int
    bytes_queued: int

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as json.dumps() takes them."""
        return asdict(self)
