"""Statistics: frozen snapshots, and the meaning of every field.

A worker counts alone and publishes its row when a batch of packets is over, so that

    submitted == packets + inline_successes + failed_starts + in_flight

holds in every row and in the sums of all: in_flight is counted on its own, so the sum is a proof and not a definition.
What a callback reads of its own worker is the state before the batch that it belongs to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)


def _counter(unit: str, meaning: str) -> Mapping[str, str]:
    """Only ever rises."""
    return {"kind": "counter", "unit": unit, "meaning": meaning}


def _gauge(unit: str, meaning: str) -> Mapping[str, str]:
    """How many there are now."""
    return {"kind": "gauge", "unit": unit, "meaning": meaning}


def _documented(made: _Class) -> _Class:
    """With its fields in its docstring."""
    lines = [f"- {each.name} ({each.metadata['unit']}): {each.metadata['meaning']}" for each in fields(Counters)]
    made.__doc__ = "\n    ".join([f"{made.__doc__}\n", *lines])
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a worker counts. Each field has its kind, unit and meaning in its metadata: see dataclasses.fields()."""

    # sessions
    accepted: int = field(
        metadata=_counter("connections", "Accepted, at the listener's worker; the session may live at another.")
    )
    accept_failures: int = field(metadata=_counter("accepts", "Failed; their listener goes on."))
    refused: int = field(
        metadata=_counter("connections", "Accepted, but closed at once: no memory, closing, or no place for it.")
    )
    parked: int = field(metadata=_counter("connections", "Accepted, and had to wait for a place."))
    adopted: int = field(metadata=_counter("connections", "Taken over by adopt()."))
    connected: int = field(metadata=_counter("connections", "Made by us."))
    connect_failures: int = field(metadata=_counter("connections", "Tried by us, and never came to be."))
    exhausted: int = field(
        metadata=_counter("operations", "Accepts and connects that failed for want of descriptors or memory.")
    )
    active: int = field(metadata=_gauge("sessions", "There are; those that connect or close still are among them."))
    closed_by_us: int = field(metadata=_counter("sessions", "Ended by close() or abort(), or as a callback raised."))
    closed_by_peer: int = field(metadata=_counter("sessions", "Ended because the peer did."))
    closed_by_error: int = field(metadata=_counter("sessions", "Ended by a receive or send that failed."))
    closed_by_timeout: int = field(metadata=_counter("sessions", "Ended by a time limit: idle, send or linger."))
    undrained: int = field(metadata=_counter("sockets", "Closed before all their operations had ended."))
    # bytes
    bytes_received: int = field(metadata=_counter("bytes", "Received."))
    bytes_discarded: int = field(
        metadata=_counter("bytes", "Received, but nobody wanted them: the session was finishing, or has no on_receive.")
    )
    bytes_sent: int = field(metadata=_counter("bytes", "Taken by the system."))
    bytes_unsent: int = field(metadata=_counter("bytes", "Queued by sessions that ended before they could be sent."))
    bytes_queued: int = field(metadata=_gauge("bytes", "To be sent."))
    # operations
    submitted: int = field(metadata=_counter("operations", "Handed to the system."))
    packets: int = field(metadata=_counter("operations", "Ended as a completion packet."))
    inline_successes: int = field(metadata=_counter("operations", "Succeeded at once, without a packet."))
    failed_starts: int = field(metadata=_counter("operations", "Failed at once, without a packet."))
    in_flight: int = field(metadata=_gauge("operations", "Submitted, and not ended yet."))
    cancelled: int = field(metadata=_counter("packets", "Of cancelled operations."))
    failed: int = field(metadata=_counter("packets", "Of operations that failed in any other way."))
    # the loop
    dequeues: int = field(metadata=_counter("calls", "For the next batch of packets."))
    dequeue_failures: int = field(
        metadata=_counter("calls", "For the next batch that gave none, for another reason than their timeout.")
    )
    wakeups: int = field(metadata=_counter("packets", "Posted by other threads."))
    backlogs: int = field(
        metadata=_counter(
            "times", "More than 100,000 calls of other threads or 64 MiB waited for the worker, or one for 5 seconds."
        )
    )
    # Python
    attaches: int = field(metadata=_counter("times", "The GIL was taken: once a batch, or for 64 KiB of one."))
    callbacks: int = field(metadata=_counter("calls", "Of handlers in Python, and of posted functions."))
    callback_errors: int = field(metadata=_counter("calls", "Of them, those that raised an exception."))
    callback_time: float = field(metadata=_counter("seconds", "With the GIL, or waiting for it."))
    # memory
    buffers_used: int = field(metadata=_gauge("buffers", "Of 16 KiB, in use."))
    buffers_spare: int = field(metadata=_gauge("buffers", "Of 16 KiB, kept for reuse."))
    sessions_spare: int = field(metadata=_gauge("sessions", "That there is memory for, kept for reuse."))

    @property
    def closed(self) -> int:
        """Sessions that have ended, for any reason."""
        return self.closed_by_us + self.closed_by_peer + self.closed_by_error + self.closed_by_timeout

    @property
    def packets_per_dequeue(self) -> float:
        """How well packets come in batches; 0.0 before the first."""
        return self.packets / self.dequeues if self.dequeues else 0.0

    @property
    def attaches_per_packet(self) -> float:
        """How often a packet costs taking the GIL; 0.0 before the first packet."""
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

    - accepted (connections): until now.
    - refused (connections): of them, those that were closed at once, as in Stats.
    - sessions: now, those on their way to their worker included.
    - max_sessions: that may be; None: any number.
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

    - bytes_received: those included that came when it was finishing, and were not delivered.
    - bytes_sent: taken by the system.
    - bytes_queued: taken by send(), but not by the system; after the end: those that will never be sent.

    Each number is exact. While the worker ends a send, its bytes may for a moment be in bytes_sent and in bytes_queued.
    """

    bytes_received: int
    bytes_sent: int
    bytes_queued: int

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as json.dumps() takes them."""
        return asdict(self)
