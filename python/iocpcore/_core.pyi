import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Never, Self, TypedDict, TypeVarTuple, Unpack, final, overload, type_check_only

# In the standard library since 3.12. A type checker knows them in stubs, even if the package is not installed.
from typing_extensions import Buffer, disjoint_base

from ._handlers import AnyHandler, PythonHandler
from ._options import Options
from ._stats import ListenerStats, SessionStats, Stats

_Args = TypeVarTuple("_Args")
_Address = tuple[str, int] | tuple[str, int, int, int]

compiler: Final[str]
cython_version: Final[str]

__test__: Final[dict[str, str]]  # made by Cython

DRAIN: Final[float]
WARNED_EVERY: float
MARGIN: Final[float]

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

@final
class Handler:
    def __init__(self, never: Never, /, *args: Never, **kwargs: Never) -> None: ...

ECHO: Final[Handler]
DISCARD: Final[Handler]

@final
class Load(Handler):  # type: ignore[misc]  # Handler is final for users, not for the core
    def __init__(
        self, connections: int = 50, messages: int = 1000, size: int | tuple[int, int] = 64, pipeline: int = 1
    ) -> None: ...
    def start(self, proactor: Proactor, host: str | None, port: int) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    @property
    def echoes(self) -> int: ...
    def result(self) -> _Result: ...

CALLBACKS: Final[dict[str, int]]
ARGUMENTS: Final[dict[str, tuple[str, ...]]]

@final
class Callbacks(Handler): ...  # type: ignore[misc]

OPTION_BOUNDS: Final[dict[str, tuple[int, int]]]

def option_defaults() -> dict[str, Any]: ...

class SessionClosed(ConnectionError): ...
class SendLimitExceeded(BufferError): ...

@final
class Session:
    def __init__(self, never: Never, /, *args: Never, **kwargs: Never) -> None: ...
    data: Any
    @property
    def id(self) -> int: ...
    @property
    def peername(self) -> _Address | None: ...
    @property
    def sockname(self) -> _Address | None: ...
    @property
    def listener(self) -> Listener | None: ...
    @property
    def unsent(self) -> int: ...
    @property
    def closing(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def send(self, data: Buffer) -> bool: ...
    def set_water_marks(self, high: int, low: int | None = None) -> None: ...
    def end(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def stats(self) -> SessionStats: ...

@final
class Listener:
    def __init__(self, never: Never, /, *args: Never, **kwargs: Never) -> None: ...
    # An IPv6 address also has flow info and scope id, after host and port.
    @property
    def address(self) -> _Address: ...
    @property
    def port(self) -> int: ...
    @property
    def proactor(self) -> Proactor: ...
    def close(self) -> None: ...
    def stats(self) -> ListenerStats: ...

@disjoint_base
class Proactor:
    def __init__(
        self,
        workers: int = 1,
        backend: str | None = None,
        *,
        max_sessions: int | None = None,
        skip_on_success: bool = True,
        drain: float = 1.0,
    ) -> None: ...
    @property
    def backend(self) -> str: ...
    @property
    def closing(self) -> bool: ...
    @property
    def workers(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = ...,
        error: BaseException | None = ...,
        traceback: TracebackType | None = ...,
        /,
    ) -> None: ...
    def listen(
        self,
        handler: AnyHandler,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        shared: bool = False,
        backlog: int | None = None,
        max_sessions: int | None = None,
        when_full: Literal["wait", "refuse"] = "wait",
        workers: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> Listener: ...
    def connect(
        self,
        handler: PythonHandler,
        host: str | None,
        port: int,
        *,
        timeout: float | None = None,
        local_address: _Address | None = None,
        **options: Unpack[Options],
    ) -> Session: ...
    @overload
    def adopt(self, handler: Handler, sock: socket.socket) -> None: ...
    @overload
    def adopt(self, handler: PythonHandler, sock: socket.socket, **options: Unpack[Options]) -> Session: ...
    def post(
        self, function: Callable[[*_Args], object], *args: *_Args, worker: int | None = None
    ) -> None: ...
    def poll(self, timeout: float | None = None) -> int: ...
    def stats(self) -> Stats: ...
    def close(self, drain: float | None = None) -> None: ...

def check_seconds(name: str, value: float) -> None: ...
def backends() -> dict[str, str | None]: ...
def _backend_absent(name: str) -> str | None: ...
