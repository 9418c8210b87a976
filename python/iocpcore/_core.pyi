from types import TracebackType
from typing import Final, Self, TypedDict, type_check_only

compiler: Final[str]
cython_version: Final[str]

DRAIN: Final[float]
MARGIN: Final[float]

@type_check_only
class _Row(TypedDict):
    accepted: int
    accept_failures: int
    refused: int
    connected: int
    connect_failures: int
    active: int
    closed_by_us: int
    closed_by_peer: int
    closed_by_error: int
    closed_by_timeout: int
    undrained: int
    bytes_received: int
    bytes_discarded: int
    bytes_sent: int
    bytes_unsent: int
    bytes_queued: int
    submitted: int
    packets: int
    inline_successes: int
    failed_starts: int
    in_flight: int
    cancelled: int
    failed: int
    dequeues: int
    dequeue_failures: int
    wakeups: int
    buffers_used: int
    buffers_spare: int

@type_check_only
class _Stats(_Row):
    backend: str
    workers: list[_Row]

@type_check_only
class _Latency(TypedDict):
    p50: float
    p99: float
    p999: float

@type_check_only
class _Result(TypedDict):
    connections: int
    echoes: int
    bytes: int
    seconds: float
    echoes_per_second: float
    mismatches: int
    errors: int
    error: str | None
    latency_us: _Latency

class Handler: ...

ECHO: Final[Handler]
DISCARD: Final[Handler]

class Load(Handler):
    def __init__(
        self, connections: int = 50, messages: int = 1000, size: int | tuple[int, int] = 64, pipeline: int = 1
    ) -> None: ...
    def start(self, proactor: Proactor, host: str | None, port: int) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    @property
    def echoes(self) -> int: ...
    def result(self) -> _Result: ...

class Listener:
    # An IPv6 address has flow info and scope behind host and port.
    @property
    def address(self) -> tuple[str, int] | tuple[str, int, int, int]: ...
    @property
    def port(self) -> int: ...
    def close(self) -> None: ...

class Proactor:
    def __init__(self, workers: int = 1, backend: str | None = None, *, skip_on_success: bool = True) -> None: ...
    @property
    def backend(self) -> str: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        error: BaseException | None = ...,
        traceback: TracebackType | None = ...,
        /,
    ) -> None: ...
    def listen(
        self, handler: Handler, host: str | None = "127.0.0.1", port: int = 0, *, backlog: int | None = None
    ) -> Listener: ...
    def stats(self) -> _Stats: ...
    def close(self, drain: float = ...) -> None: ...

def check_seconds(name: str, value: float) -> None: ...
def backends() -> dict[str, str | None]: ...
def _pitfall(name: str, wrong: bool, stage: object) -> tuple[str, str]: ...
