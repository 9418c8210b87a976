"""A native I/O completion port core for Python TCP servers: IOCP on Windows, io_uring and epoll on Linux.

The core runs without the GIL. Python sees listeners, sessions, handlers and statistics.
"""

from ._core import (
    DISCARD,
    ECHO,
    Handler,
    Listener,
    Load,
    Proactor,
    SendLimitExceeded,
    Session,
    SessionClosed,
    backends,
)
from ._handlers import SessionHandler
from ._options import Options
from ._serve import run, serve
from ._stats import ListenerStats, SessionStats, Stats, WorkerStats

__version__ = "0.1.0"
__all__ = [
    "DISCARD",
    "ECHO",
    "Handler",
    "Listener",
    "ListenerStats",
    "Load",
    "Options",
    "Proactor",
    "SendLimitExceeded",
    "Session",
    "SessionClosed",
    "SessionHandler",
    "SessionStats",
    "Stats",
    "WorkerStats",
    "backends",
    "run",
    "serve",
]
